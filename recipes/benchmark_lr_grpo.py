"""One LR-GRPO step in two ways, for `benchmark_training.py`: ours, and the prompt repeated for every sample.

Shapes: B prompts, K samples of a thought, L prompt, T answer, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from benchmarking import peak_memory, time_alternating
from torch import nn

from hf_latentrec import Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig
from hf_latentrec.models.latent_reasoning.thought_state import ThoughtState
from hf_latentrec.trainer import batch_advantage, clipped_policy_loss, perplexity_reward


# 8 layers of 256 with 8,192 tokens: the share of the work that the vocabulary has in a model of 1.5 billion weights.
SIZES = {
    "vocab_size": 8_192,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
TOLERANCE = 1e-4


@dataclass
class Step:
    """What both ways get: prompts [B, L], targets [B, T] and noise [B, K, D], the first sample without any."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    thought_noise: torch.Tensor


def build() -> Qwen3ForLatentReasoningRec:
    """The model after its warm-up: only the reasoner is trained."""
    torch.manual_seed(0)
    config = Qwen3LatentRecConfig(**SIZES, num_thoughts=1, reasoner_config={"reasoner": "latent_attention"})
    model = Qwen3ForLatentReasoningRec(config).eval().requires_grad_(False)
    model.reasoner.requires_grad_(True)
    return model


def make_step(num_prompts: int, num_samples: int = 8, prompt_length: int = 200, answer_length: int = 12) -> Step:
    """Random prompts and targets of one length each."""
    torch.manual_seed(0)
    input_ids = torch.randint(SIZES["vocab_size"], (num_prompts, prompt_length))
    labels = torch.randint(SIZES["vocab_size"], (num_prompts, answer_length))
    noise = torch.randn(num_prompts, num_samples, SIZES["hidden_size"])
    noise[:, 0] = 0
    return Step(input_ids, labels, noise)


def shared_logps(model: Qwen3ForLatentReasoningRec, step: Step) -> torch.Tensor:
    """Ours: every prompt is encoded once, its samples are branches. Log-probabilities [B, K, T]."""
    return model(step.input_ids, labels=step.labels, thought_noise=step.thought_noise).logps


def repeated_logps(model: Qwen3ForLatentReasoningRec, step: Step) -> torch.Tensor:
    """
    The prompt stands there once per sample: one full pass over it gives the thoughts, a second one over prompt,
    thought and answer the probabilities. Logits are computed for the answer alone.
    """
    B, K, D = step.thought_noise.shape
    prompts = step.input_ids.repeat_interleave(K, dim=0)
    answers = step.labels.repeat_interleave(K, dim=0)
    embeds = model.get_input_embeddings()
    hidden = model.model(inputs_embeds=embeds(prompts), use_cache=False).last_hidden_state
    L = prompts.shape[1]
    seen = hidden.new_ones(len(prompts), 1, L, dtype=torch.bool)
    positions = torch.arange(L).expand(len(prompts), -1)
    state = ThoughtState(None, seen, hidden[:, -1:], (hidden,), (positions,), None, None)
    thought = model.reasoner(state).embeds_BKD + step.thought_noise.view(B * K, 1, D)
    sequence = torch.cat([embeds(prompts), thought, embeds(answers[:, :-1])], dim=1)
    hidden = model.model(inputs_embeds=sequence, use_cache=False).last_hidden_state[:, L:]
    losses = nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), answers.flatten(), reduction="none")
    return -losses.view(B, K, -1)


def train(
    model: nn.Module, step: Step, logps_of: Callable[[nn.Module, Step], torch.Tensor], rolls_out: bool = False
) -> torch.Tensor:
    """
    Rewards, advantages, loss and the reasoner's gradients (Eq. 6 to 8). With `rolls_out`, the rewards come from a
    forward without gradient, and the loss computes thoughts and probabilities again.
    """
    model.zero_grad()
    with torch.no_grad():
        old_logps = logps_of(model, step) if rolls_out else None
    logps = logps_of(model, step)
    old_logps = logps.detach() if old_logps is None else old_logps
    mask = torch.ones_like(logps, dtype=torch.bool)
    advantages = batch_advantage(perplexity_reward(old_logps, mask).rewards).advantages
    loss = clipped_policy_loss(logps, old_logps, advantages, mask, 0.2, 0.28).loss.mean()
    loss.backward()
    return loss.detach()


# The usual way has the two phases of GRPO: rewards of a rollout, then a loss that recomputes the thoughts, as the
# script that was published with the paper does. The kinder form takes the rewards from the loss' own forward, as ours.
WAYS = {
    "shared": partial(train, logps_of=shared_logps),
    "repeated": partial(train, logps_of=repeated_logps, rolls_out=True),
    "repeated_one_phase": partial(train, logps_of=repeated_logps),
}


def check_equal(model: nn.Module, step: Step) -> None:
    """Raises where a way differs in the loss or in a gradient of the reasoner."""
    losses, gradients = [], []
    for run in WAYS.values():
        losses.append(run(model, step))
        gradients.append({name: parameter.grad.clone() for name, parameter in model.reasoner.named_parameters()})
    differences = {}
    for way, loss, gradient in zip(WAYS, losses, gradients, strict=True):
        differences[f"the loss of {way!r}"] = (loss - losses[0]).abs() / losses[0].abs()
        for name, expected in gradients[0].items():
            differences[f"the gradient of {name} of {way!r}"] = (gradient[name] - expected).norm() / expected.norm()
    for what, difference in differences.items():
        if not difference <= TOLERANCE:
            raise SystemExit(f"LR-GRPO: {what} differs by {difference:.2g} from that of the shared prompt")


def measure_lr_grpo(num_prompts: int, repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds and peak bytes of a step in every way, after a check that all give the same."""
    model, step = build(), make_step(num_prompts)
    check_equal(model, step)
    runs = {way: partial(run, model, step) for way, run in WAYS.items()}
    return time_alternating(runs, repeats=repeats), {way: peak_memory(run) for way, run in runs.items()}


__all__ = ["measure_lr_grpo"]
