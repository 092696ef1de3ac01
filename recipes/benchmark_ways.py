"""
The ways of decoding that are compared (ours, `generate` of transformers, the bare forwards), and whether they agree.

Shapes: B prompts, K beams, L prompt, S cache slots, T answer, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmark_catalogs import Vocabulary
from torch import nn
from transformers import DynamicCache, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from hf_latentrec import ItemTrie, Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig


Answers = list[dict[tuple[int, ...], float]]  # of every prompt: its answers with their scores
TOLERANCE = 1e-3  # of float32 scores
NO_BEAM = -1e8  # `generate` carries beams that do not exist along at -1e9


@dataclass
class Task:
    """
    Prompts and the catalog that they are answered from.

    Args:
        input_ids, attention_mask (`torch.LongTensor` [B, L]): prompts.
        sequences (`list[list[int]]`): the tokens of every item.
        num_beams (`int`): beams per prompt; all of them are returned.
        pad (`int`): token that pads answers.
        terminal (`int`, *optional*): last token of every item, where items differ in length.
        length_penalty (`float`, *optional*, defaults to 0.0): of beam search.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    sequences: list[list[int]]
    num_beams: int
    pad: int
    terminal: int | None = None
    length_penalty: float = 0.0


def build_models(
    sizes: dict, vocabulary: Vocabulary, dtype: torch.dtype, device: str
) -> tuple[Qwen3ForLatentReasoningRec, Qwen3ForCausalLM]:
    """
    A recommender with random weights and the plain causal LM with the same ones.

    Args:
        sizes (`dict`): fields of `Qwen3Config`.
        vocabulary (`Vocabulary`): its size and the thought markers.
        dtype (`torch.dtype`): of the weights.
        device (`str`): where they lie.
    """
    start, end = vocabulary.thought_markers
    shared = {
        **sizes,
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "max_position_embeddings": 4096,
        "initializer_range": sizes["hidden_size"] ** -0.5,  # logits of about unit variance: answers hardly tie
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForLatentReasoningRec(
            Qwen3LatentRecConfig(**shared, start_thought_token_id=start, end_thought_token_id=end)
        )
        plain = Qwen3ForCausalLM(Qwen3Config(**shared))
    model.to(dtype).eval()
    plain.to(dtype).eval()
    plain.load_state_dict(model.state_dict(), assign=True)  # one set of weights for both
    return model, plain


def our_way(
    model: Qwen3ForLatentReasoningRec, task: Task, normalize: str, num_thoughts: int = 0
) -> Callable[[], object]:
    """Our `generate` over the tree of items, which is built beforehand."""
    trie = ItemTrie.from_sequences(task.sequences).to(task.input_ids.device)
    return lambda: model.generate(
        task.input_ids,
        task.attention_mask,
        item_trie=trie,
        num_beams=task.num_beams,
        normalize=normalize,
        length_penalty=task.length_penalty,
        num_thoughts=num_thoughts,
    )


def ordinary_way(
    plain: Qwen3ForCausalLM, task: Task, normalize: str, with_scores: bool = False
) -> Callable[[], object]:
    """
    `generate` of transformers with a prefix function over a dictionary tree, which is built beforehand.

    It returns the scores of its answers only if it keeps the logits of all steps as well (`with_scores`), so the runs
    that are timed or measured do without.
    """
    config = GenerationConfig(
        num_beams=task.num_beams,
        num_return_sequences=task.num_beams,
        do_sample=False,
        length_penalty=task.length_penalty,
        max_new_tokens=max(map(len, task.sequences)),
        renormalize_logits=normalize == "catalog",
        eos_token_id=task.terminal,
        pad_token_id=task.pad,
        return_dict_in_generate=True,
        output_scores=with_scores,
    )
    prefix_function = make_prefix_function(task)
    return lambda: plain.generate(
        task.input_ids,
        attention_mask=task.attention_mask,
        generation_config=config,
        prefix_allowed_tokens_fn=prefix_function,
    )


def make_prefix_function(task: Task) -> Callable[[int, torch.Tensor], list[int]]:
    """The tokens that `generate` may go on with: the keys of nested dictionaries at the answer so far."""
    root: dict = {}
    for sequence in task.sequences:
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
    prompt_length = task.input_ids.shape[1]
    nothing = [task.pad if task.terminal is None else task.terminal]

    def allowed_tokens(_prompt: int, input_ids: torch.Tensor) -> list[int]:
        node = root
        for token in input_ids[prompt_length:].tolist():
            node = node.get(token, {})
        return list(node) or nothing  # `generate` wants a token for beams that do not exist, too

    return allowed_tokens


def bare_forwards(model: Qwen3ForLatentReasoningRec, task: Task, num_thoughts: int = 0) -> Callable[[], object]:
    """
    The least that a search over semantic IDs has to compute: the prompts once, one token per prompt and thought, then
    every beam's newest token after each step but the last; with embeddings, masks and positions at hand, and without
    any output projection.
    """
    B, K = len(task.input_ids), task.num_beams
    device, num_steps = task.input_ids.device, len(task.sequences[0]) - 1
    prompt_BLD = model.get_input_embeddings()(task.input_ids).detach()
    tokens_BKT = torch.tensor(task.sequences[: B * K], device=device).view(B, K, -1)
    beams_BKTD = model.get_input_embeddings()(tokens_BKT).detach()
    prompt_positions_BL = (task.attention_mask.cumsum(1) - 1).clamp(min=0)
    positions_B1 = task.attention_mask.sum(1, keepdim=True)

    passes = []  # embeddings, mask, positions
    visible_B1S = task.attention_mask.bool()[:, None]
    for thought in range(num_thoughts):
        visible_B1S = nn.functional.pad(visible_B1S, (0, 1), value=True)
        passes.append((prompt_BLD[:, -1:], visible_B1S[:, None], positions_B1 + thought))
    own_KK = torch.eye(K, dtype=torch.bool, device=device).expand(B, K, K)
    for step in range(num_steps):
        visible_BKS = torch.cat([visible_B1S.expand(B, K, -1), *[own_KK] * (step + 1)], dim=-1)
        positions_BK = (positions_B1 + num_thoughts + step).expand(B, K)
        passes.append((beams_BKTD[:, :, step], visible_BKS[:, None], positions_BK))

    @torch.inference_mode()
    def run() -> None:
        cache = DynamicCache(config=model.config)
        model.model(
            inputs_embeds=prompt_BLD,
            attention_mask=task.attention_mask,
            position_ids=prompt_positions_BL,
            past_key_values=cache,
        )
        for embeds, mask, positions in passes:
            model.model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache)

    return run


def our_answers(output) -> Answers:
    """Answers by prompt, without padding (-100)."""
    answers: Answers = [{} for _ in range(output.num_users)]
    rows = zip(output.user_indices.tolist(), output.sequences.tolist(), output.sequences_scores.tolist(), strict=True)
    for user, sequence, score in rows:
        answers[user][tuple(token for token in sequence if token >= 0)] = score
    return answers


def ordinary_answers(output, task: Task) -> Answers:
    """Answers by prompt, up to the terminal."""
    B, L = task.input_ids.shape
    answers: Answers = [{} for _ in range(B)]
    for row, (sequence, score) in enumerate(
        zip(output.sequences[:, L:].tolist(), output.sequences_scores.tolist(), strict=True)
    ):
        if task.terminal in sequence:
            sequence = sequence[: sequence.index(task.terminal) + 1]
        if score > NO_BEAM:
            answers[row // task.num_beams][tuple(sequence)] = score
    return answers


def compare_answers(ours: Answers, ordinary: Answers) -> tuple[float, float]:
    """
    How far two ways agree.

    Returns:
        `tuple[float, float]`: share of the ordinary answers that ours are, too, and the largest difference of scores:
        of answers that both ways gave, and of the n-th best answers.

    Example:
        >>> compare_answers([{(1, 2): -0.5, (1, 3): -0.75}], [{(1, 2): -0.5, (4, 5): -1.0}])
        (0.5, 0.25)
    """
    num_shared, differences = 0, [0.0]
    for mine, plain in zip(ours, ordinary, strict=True):
        shared = mine.keys() & plain.keys()
        num_shared += len(shared)
        differences += [abs(mine[answer] - plain[answer]) for answer in shared]
        ranked = zip(sorted(mine.values(), reverse=True), sorted(plain.values(), reverse=True), strict=False)
        differences += [abs(a - b) for a, b in ranked]
    return num_shared / sum(map(len, ordinary)), max(differences)


def check_same_answers(ours: Answers, ordinary: Answers, tolerance: float = TOLERANCE) -> None:
    """
    Raises:
        ValueError: for the first prompt where scores differ, or where a way has an answer that the other lacks though
            it does not tie with the other's last one.
    """
    for user, (mine, plain) in enumerate(zip(ours, ordinary, strict=True)):
        if len(mine) != len(plain):
            raise ValueError(f"prompt {user}: we gave {len(mine)} answers, `generate` {len(plain)}")
        _, difference = compare_answers([mine], [plain])
        if difference > tolerance:
            raise ValueError(f"prompt {user}: scores differ by {difference:.2g} from those of `generate`")
        last = min(plain.values())
        for answer, score in (mine | plain).items():
            if (answer in mine) != (answer in plain) and abs(score - last) > tolerance:
                raise ValueError(
                    f"prompt {user}: only {'we' if answer in mine else '`generate`'} gave {list(answer)} with score "
                    f"{score:.4f}, though the last answer has {last:.4f}"
                )


__all__ = [
    "TOLERANCE",
    "Answers",
    "Task",
    "bare_forwards",
    "build_models",
    "check_same_answers",
    "compare_answers",
    "make_prefix_function",
    "ordinary_answers",
    "ordinary_way",
    "our_answers",
    "our_way",
]
