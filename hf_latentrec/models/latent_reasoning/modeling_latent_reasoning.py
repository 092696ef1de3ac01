"""LLM recommenders that think in latent space: encode the prompt once, think, branch.

Shapes: B prompts, G answers of a prompt, L prompt, T answer, N thoughts, D hidden, V vocabulary, I items.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from .answer_scores import entropy, greedy_matches, score_answers, score_steps
from .argument_checks import check_answers, check_noise, read_depths
from .branching import LatentBranchingMixin
from .configuration_latent_reasoning import LlamaLatentRecConfig, Qwen2LatentRecConfig, Qwen3LatentRecConfig
from .depth_policy import DepthPolicy
from .generation import LatentGenerationMixin
from .item_trie import ItemTrie
from .modeling_outputs import LatentRecOutput
from .reasoners import FactorizedReasoner, build_reasoner
from .safe_weights import SafeWeightsMixin
from .thought_state import ThoughtState


IGNORE_INDEX = -100


class LatentReasoningMixin(LatentBranchingMixin, LatentGenerationMixin, SafeWeightsMixin):
    """
    Turns a `...ForCausalLM` of transformers into a recommender that encodes a prompt once, thinks, and branches.

    [`encode`] → [`think`] → [`branch`], each a pass over new tokens only ([`extend`]): training and scoring are made
    of these ([`LatentBranchingMixin`]), and beam search is `branch` step by step ([`LatentGenerationMixin`]).
    """

    # Branches need a 4D mask, which these implementations do not take.
    _supports_flash_attn = False
    _supports_flex_attn = False
    # Layers under gradient checkpointing drop the cache, and with it the prompt that thoughts and answers attend to.
    supports_gradient_checkpointing = False
    # `forward` divides by `num_items_in_batch` itself (transformers.Trainer).
    accepts_loss_kwargs = True

    def __init__(self, config):
        super().__init__(config)
        self.reasoner = build_reasoner(config)
        self.depth_policy = DepthPolicy(config) if config.reasoner_config.adaptive_depth else None
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.post_init()  # of what came after the backbone's own

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FactorizedReasoner):
            module.reset_parameters(self.config.initializer_range)

    def token_log_probs(
        self, hidden: torch.Tensor, tokens: torch.Tensor, item_trie: ItemTrie | None = None
    ) -> torch.Tensor:
        """
        Log-probabilities of answer tokens in float32, over the vocabulary or over the trie's children.

        Args:
            hidden (`torch.Tensor` [..., T, D]): states that predict the tokens.
            tokens (`torch.LongTensor` [..., T]): answers from their first token on; -100 is padding.
            item_trie (`ItemTrie`, *optional*): normalize over its children.

        Returns:
            `torch.Tensor` [..., T]: 0 for padding, -inf for a token that the trie does not allow there.
        """
        real = tokens != IGNORE_INDEX
        if item_trie is None:
            picked = _pick_log_probs(self.lm_head(hidden[real]), tokens[real])
            return torch.zeros(tokens.shape, device=hidden.device).masked_scatter(real, picked)
        return score_answers(self, hidden, tokens, item_trie).masked_fill(~real, 0.0)

    @torch.no_grad()
    def token_entropies(
        self, hidden: torch.Tensor, tokens: torch.Tensor, item_trie: ItemTrie | None = None
    ) -> torch.Tensor:
        """
        Entropy in nats of what is predicted in place of each answer token, over the vocabulary or over the trie's
        children, without gradient.

        Args:
            hidden (`torch.Tensor` [..., T, D]): states that predict the tokens.
            tokens (`torch.LongTensor` [..., T]): answers from their first token on; -100 is padding.
            item_trie (`ItemTrie`, *optional*): normalize over its children.

        Returns:
            `torch.Tensor` [..., T]: float32; 0 for padding.
        """
        real = tokens != IGNORE_INDEX
        if item_trie is None:
            log_probs = self.lm_head(hidden[real]).float().log_softmax(-1)
            return torch.zeros(tokens.shape, device=hidden.device).masked_scatter(real, entropy(log_probs))
        by_depth = [entropy(log_probs) for log_probs, _ in score_steps(self, hidden, tokens, item_trie)]
        beyond = tokens.shape[-1] - len(by_depth)
        return nn.functional.pad(torch.stack(by_depth, dim=-1), (0, beyond)).masked_fill(~real, 0.0)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        branch_starts: torch.Tensor | None = None,
        labels_follow_prompt: bool = False,
        item_trie: ItemTrie | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        thought_noise: torch.Tensor | None = None,
        relative_noise: bool = False,
        output_entropy: bool = False,
        greedy_trie: ItemTrie | None = None,
        num_thoughts: int | torch.Tensor | None = None,
    ) -> LatentRecOutput:
        """
        Encodes prompts, thinks, and scores answers.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts (left-padded by the processor).
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            labels (`torch.LongTensor` [B, T] or [B, G, T], *optional*): one answer per prompt, or G; -100 is padding.
            branch_starts (`torch.LongTensor` [B, G], *optional*): for packed histories, the prompt index at which the
                branch of each answer starts. It sees the prompt before that index, its thoughts and itself.
            labels_follow_prompt (`bool`, *optional*, defaults to `False`): says that each answer is also what the
                prompt goes on with at its `branch_starts`. Without thoughts its states are then the prompt's own, and
                no token is computed twice; with thoughts this changes nothing.
            item_trie (`ItemTrie`, *optional*): normalize over the catalog (its children) instead of the vocabulary.
            num_items_in_batch (`int` or `torch.Tensor`, *optional*): divide the summed loss by this number of answer
                tokens instead of the number in this batch.
            thought_noise (`torch.Tensor` [B, K, D], *optional*): K samples of the last thought `r` (LatentR³ Eq. 5);
                branch k answers after `r + thought_noise[:, k]`. Labels [B, T] are then scored by every branch, of
                labels [B, K, T] the k-th answer by branch k.
            relative_noise (`bool`, *optional*, defaults to `False`): the noise is in units of the thought's root mean
                square.
            output_entropy (`bool`, *optional*, defaults to `False`): return the entropy of what is predicted for the
                first answer of every prompt.
            greedy_trie (`ItemTrie`, *optional*): return whether greedy search in this catalog would write each answer.
            num_thoughts (`int` or `torch.LongTensor` [B] or [B, G], *optional*): think for this number of steps, or
                for each prompt its own (for each branch of a packed history), instead of what the configuration says
                or the depth policy finds most probable.

        Returns:
            `LatentRecOutput`

        Raises:
            ValueError: where the arguments do not fit each other.

        Example:

        ```python
        >>> import torch
        >>> from hf_latentrec import Qwen3ForLatentReasoningRec, Qwen3LatentRecConfig

        >>> config = Qwen3LatentRecConfig(
        ...     vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        ...     num_key_value_heads=2, head_dim=8, num_thoughts=2, start_thought_token_id=30, end_thought_token_id=31,
        ... )
        >>> model = Qwen3ForLatentReasoningRec(config)
        >>> output = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[4, 5]]))
        >>> output.logits.shape, output.thoughts.shape
        (torch.Size([1, 2, 32]), torch.Size([1, 2, 16]))

        ```
        """
        check_answers(input_ids, labels, branch_starts, labels_follow_prompt)
        num_thoughts = read_depths(num_thoughts, input_ids.shape[:1] if branch_starts is None else branch_starts.shape)
        thinks = self.thinks(num_thoughts)
        if isinstance(num_thoughts, torch.Tensor) and branch_starts is None:
            num_thoughts = num_thoughts[:, None]
        if thought_noise is not None:
            has_depths = self.depth_policy is not None or isinstance(num_thoughts, torch.Tensor)
            num_steps = self.config.num_thoughts if num_thoughts is None else num_thoughts
            check_noise(thought_noise, input_ids, labels, branch_starts, num_steps, has_depths)
            if labels.dim() == 2:
                labels = labels[:, None].expand(-1, thought_noise.shape[1], -1)
        labels_BGT = labels[:, None] if labels is not None and labels.dim() == 2 else labels
        if labels is None:
            state = self.encode(input_ids, attention_mask, branch_starts, open_thoughts=thinks)
            state = self.think(state, num_thoughts)
        elif labels_follow_prompt and not thinks:
            state = self.encode(input_ids, attention_mask, branch_starts)
            hidden_BGTD = _states_in_prompt(state.hidden_BSD, branch_starts, labels_BGT.shape[-1])
        else:
            hidden_BGTD, state = self.answer(
                input_ids, attention_mask, branch_starts, labels_BGT, thought_noise, relative_noise, num_thoughts
            )
        output = self._describe_thoughts(state, input_ids, branch_starts is not None, thought_noise is not None)
        if labels is None:
            return output

        if greedy_trie is not None:
            with torch.no_grad():
                output.greedy_matches = greedy_matches(self, hidden_BGTD, labels_BGT, greedy_trie, IGNORE_INDEX)

        if output_entropy:
            output.entropy = self.token_entropies(hidden_BGTD[:, 0], labels_BGT[:, 0], item_trie)
        if labels.dim() == 3:
            output.logps = self.token_log_probs(hidden_BGTD, labels, item_trie)
        elif item_trie is not None:
            output.logps = self.token_log_probs(hidden_BGTD[:, 0], labels, item_trie)
        else:
            output.logits = self.lm_head(hidden_BGTD[:, 0])
            padding = labels == IGNORE_INDEX
            output.logps = _pick_log_probs(output.logits, labels.clamp(min=0)).masked_fill(padding, 0.0)
        num_items = (labels != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
        output.loss = -output.logps.sum() / num_items
        return output

    def _describe_thoughts(
        self, state: ThoughtState, input_ids: torch.Tensor, packed: bool, sampled: bool
    ) -> LatentRecOutput:
        """The part of the output that tells of thoughts. Unpacked, the samples of a thought share how it was made."""
        L = input_ids.shape[1]
        steps = state.steps
        attends = bool(steps) and steps[0].attentions_BKFS is not None
        has_factors = bool(steps) and steps[0].factors_BKFD is not None

        def drop_branch(x_BK: torch.Tensor) -> torch.Tensor:
            return x_BK if packed else x_BK[:, 0]

        depths_BK = state.depths_BK
        if depths_BK is None:
            depths_BK = torch.full(state.visible_BKS.shape[:2], state.thoughts_BKND.shape[2], device=input_ids.device)

        def fold_after_prompt(weights_BKFS: torch.Tensor) -> torch.Tensor:
            return torch.cat([weights_BKFS[..., :L], weights_BKFS[..., L:].sum(-1, keepdim=True)], dim=-1)

        return LatentRecOutput(
            thoughts=state.thoughts_BKND if sampled else drop_branch(state.thoughts_BKND),
            thought_embeds=drop_branch(state.thought_embeds_BKND),
            num_thoughts=drop_branch(depths_BK),
            depth_logits=None if state.depth_logits_BKC is None else drop_branch(state.depth_logits_BKC),
            factors=tuple(drop_branch(step.factors_BKFD) for step in steps) if has_factors else None,
            factor_attentions=(
                tuple(drop_branch(fold_after_prompt(step.attentions_BKFS)) for step in steps) if attends else None
            ),
            factor_gates=tuple(drop_branch(step.gates_BKF) for step in steps) if has_factors else None,
            loss_log_variances=self.reasoner.loss_log_variances.clone() if has_factors else None,
        )


def _pick_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of tokens [...] under logits [..., V], in float32."""
    losses = nn.functional.cross_entropy(logits.flatten(0, -2).float(), tokens.flatten(), reduction="none")
    return -losses.view(tokens.shape)


def _states_in_prompt(hidden_BLD: torch.Tensor, branch_starts_BG: torch.Tensor, answer_length: int) -> torch.Tensor:
    """The prompt's own states that predict its tokens from each branch start on, [B, G, T, D]."""
    B, _, D = hidden_BLD.shape
    step_T = torch.arange(-1, answer_length - 1, device=hidden_BLD.device)
    index_BGT = (branch_starts_BG[..., None] + step_T).clamp(0, hidden_BLD.shape[1] - 1)
    states = hidden_BLD.gather(1, index_BGT.view(B, -1, 1).expand(-1, -1, D))
    return states.view(*index_BGT.shape, D)


class Qwen2ForLatentReasoningRec(LatentReasoningMixin, Qwen2ForCausalLM):
    """Qwen2 / Qwen2.5 as a recommender that thinks in latent space; see [`LatentReasoningMixin`]."""

    config_class = Qwen2LatentRecConfig


class Qwen3ForLatentReasoningRec(LatentReasoningMixin, Qwen3ForCausalLM):
    """Qwen3 as a recommender that thinks in latent space; see [`LatentReasoningMixin`]."""

    config_class = Qwen3LatentRecConfig


class LlamaForLatentReasoningRec(LatentReasoningMixin, LlamaForCausalLM):
    """Llama as a recommender that thinks in latent space; see [`LatentReasoningMixin`]."""

    config_class = LlamaLatentRecConfig


__all__ = [
    "LatentReasoningMixin",
    "LlamaForLatentReasoningRec",
    "Qwen2ForLatentReasoningRec",
    "Qwen3ForLatentReasoningRec",
]
