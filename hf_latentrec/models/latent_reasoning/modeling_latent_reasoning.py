"""LLM recommenders that think in latent space: encode the prompt once, think, branch.

Shapes: B prompts, K branches of a prompt (G where they are answers), L prompt, T answer, N thoughts, M new tokens per
branch, S cache slots, D hidden, V vocabulary, I items.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from transformers import Cache, DynamicCache, LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from .answer_scores import score_answers
from .argument_checks import check_answers
from .configuration_latent_reasoning import LlamaLatentRecConfig, Qwen2LatentRecConfig, Qwen3LatentRecConfig
from .generation import LatentGenerationMixin
from .item_trie import ItemTrie
from .modeling_outputs import LatentRecOutput
from .reasoners import build_reasoner
from .thought_state import ThoughtState
from .tree_attention import (
    build_attention_mask,
    causal_visibility,
    extend_positions,
    extend_visibility,
    prompt_visibility,
)


IGNORE_INDEX = -100


class LatentReasoningMixin(LatentGenerationMixin):
    """
    Turns a `...ForCausalLM` of transformers into a recommender that encodes a prompt once, thinks, and branches.

    [`encode`] → [`think`] → [`branch`], each a pass over new tokens only ([`extend`]): training and scoring are made
    of these, and beam search is `branch` step by step.
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
        self.reasoner = build_reasoner(config.reasoner_config)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)

    def token_embeddings(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings [..., D], under dropout while training."""
        return self.embedding_dropout(self.get_input_embeddings()(input_ids))

    def encode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        branch_starts: torch.Tensor | None = None,
        open_thoughts: bool = False,
        cache: Cache | None = None,
    ) -> ThoughtState:
        """
        Runs the prompt through the backbone, once. A backbone that is frozen keeps no graph of it.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts, padded on either side.
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            branch_starts (`torch.LongTensor` [B, G], *optional*): for packed histories, the prompt index at which
                each branch starts; it sees the prompt before it. Without, one branch starts after the whole prompt.
            open_thoughts (`bool`, *optional*, defaults to `False`): let every branch read the marker that opens the
                thoughts, in the same pass.
            cache (`Cache`, *optional*): empty cache to fill; a new `DynamicCache` by default.

        Returns:
            `ThoughtState`: with one branch, or G.
        """
        B, K = (len(input_ids), 1) if branch_starts is None else branch_starts.shape
        riders_BKM = self._marker("start").expand(B, K, 1) if open_thoughts else input_ids.new_empty(B, K, 0)
        prompt_BLD, riders_BKMD = self._embed(input_ids, riders_BKM)
        state, _ = self._encode(prompt_BLD, attention_mask, branch_starts, riders_BKMD, cache)
        return replace(state, opened=open_thoughts)

    def _encode(
        self,
        prompt_BLD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        branch_starts: torch.Tensor | None,
        riders_BKMD: torch.Tensor,
        cache: Cache | None = None,
    ) -> tuple[ThoughtState, torch.Tensor]:
        """The prompt and in the same pass the first M tokens of every branch; states [B, K, 1 + M, D] from the newest
        token of the prompt on."""
        B, L, D = prompt_BLD.shape
        K, M = riders_BKMD.shape[1:3]
        real_BL = prompt_BLD.new_ones(B, L, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        slot_L = torch.arange(L, device=real_BL.device)
        visible_BKL = real_BL[:, None]
        if branch_starts is not None:
            visible_BKL = visible_BKL & (slot_L < branch_starts[..., None])
        positions = (real_BL.cumsum(-1) - 1).clamp(min=0)
        own_MM = causal_visibility(M, device=real_BL.device)
        visible_BKMS = extend_visibility(visible_BKL, own_MM)
        if branch_starts is None or M == 0:
            mask = nn.functional.pad(real_BL, (0, K * M), value=True)  # causal: one branch, or the prompt alone
        else:
            visible_BQS = torch.cat([prompt_visibility(real_BL, K * M), visible_BKMS.flatten(1, 2)], dim=1)
            mask = build_attention_mask(visible_BQS, self.config._attn_implementation, prompt_BLD.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains_backbone()):
            output = self.model(
                inputs_embeds=torch.cat([prompt_BLD, riders_BKMD.flatten(1, 2)], dim=1),
                attention_mask=mask,
                position_ids=torch.cat([positions, extend_positions(visible_BKL, own_MM).flatten(1)], dim=1),
                past_key_values=DynamicCache(config=self.config) if cache is None else cache,
                use_cache=True,
            )
        prompt_hidden_BLD, riders_hidden = output.last_hidden_state.split([L, K * M], dim=1)
        newest_BK = (visible_BKL * slot_L).amax(-1)
        before_BKD = prompt_hidden_BLD.gather(1, newest_BK[..., None].expand(-1, -1, D))
        hidden_BKMD = torch.cat([before_BKD[:, :, None], riders_hidden.view(B, K, M, D)], dim=2)
        state = ThoughtState(
            output.past_key_values,
            visible_BKMS[:, :, -1] if M else visible_BKL,
            hidden_BKMD[:, :, -1],
            prompt_hidden_BLD,
            thoughts_BKND=hidden_BKMD.new_empty(B, K, 0, D),
        )
        return state, hidden_BKMD

    def extend(
        self, state: ThoughtState, embeds_BKMD: torch.Tensor, own_MM: torch.Tensor | None = None
    ) -> tuple[ThoughtState, torch.Tensor]:
        """
        Appends M tokens to every branch: one pass over the new tokens, never over the prompt.

        Args:
            state (`ThoughtState`): with K branches. Its cache grows in place.
            embeds_BKMD (`torch.Tensor`): input embeddings.
            own_MM (`torch.BoolTensor`, *optional*): what the new tokens of a branch see of each other; by default each
                sees those before it. The branch goes on from the last token.

        Returns:
            `tuple`: the grown state and the new hidden states [B, K, M, D].
        """
        B, K, M, D = embeds_BKMD.shape
        own_MM = causal_visibility(M, device=embeds_BKMD.device) if own_MM is None else own_MM
        visible_BKMS = extend_visibility(state.visible_BKS, own_MM)
        output = self.model(
            inputs_embeds=embeds_BKMD.reshape(B, K * M, D),
            attention_mask=build_attention_mask(
                visible_BKMS.flatten(1, 2), self.config._attn_implementation, embeds_BKMD.dtype
            ),
            position_ids=extend_positions(state.visible_BKS, own_MM).flatten(1),
            past_key_values=state.past_key_values,
            use_cache=True,
        )
        hidden_BKMD = output.last_hidden_state.view(B, K, M, D)
        return replace(state, visible_BKS=visible_BKMS[:, :, -1], hidden_BKD=hidden_BKMD[:, :, -1]), hidden_BKMD

    def think(self, state: ThoughtState, num_thoughts: int | None = None) -> ThoughtState:
        """
        Lets every branch think for N steps; each costs one token per branch. The closing marker rides along with the
        last thought.

        Args:
            state (`ThoughtState`): from [`encode`].
            num_thoughts (`int`, *optional*): N; the configuration's by default. 0 returns the state as it is.

        Returns:
            `ThoughtState`: ready to answer; `thoughts_BKND` holds `h_1 .. h_N`.
        """
        num_thoughts = self.config.num_thoughts if num_thoughts is None else num_thoughts
        if num_thoughts == 0:
            return state
        B, K, _ = state.visible_BKS.shape
        if not state.opened:
            state, _ = self.extend(state, self.token_embeddings(self._marker("start").expand(B, K, 1)))
        return self._think(state, num_thoughts, self.token_embeddings(self._marker("end").expand(B, K, 1)))[0]

    def _think(
        self,
        state: ThoughtState,
        num_thoughts: int,
        riders_BKMD: torch.Tensor,
        own_MM: torch.Tensor | None = None,
    ) -> tuple[ThoughtState, torch.Tensor]:
        """Thoughts, and in the last one's pass the M tokens after it; states [B, K, 1 + M, D] of that pass."""
        thoughts = []
        for step in range(num_thoughts):
            embeds_BKMD = self.reasoner(state.hidden_BKD)[:, :, None]
            if step < num_thoughts - 1:
                state, hidden_BKMD = self.extend(state, embeds_BKMD)
            else:
                state, hidden_BKMD = self.extend(state, torch.cat([embeds_BKMD, riders_BKMD], dim=2), own_MM)
            thoughts.append(hidden_BKMD[:, :, 0])
        return replace(state, thoughts_BKND=torch.stack(thoughts, dim=2)), hidden_BKMD

    def branch(self, state: ThoughtState, answers_BGT: torch.Tensor) -> torch.Tensor:
        """
        Runs G answers of each prompt as branches, teacher-forced: one pass over all answers of all prompts.

        Args:
            state (`ThoughtState`): ready to answer, with one branch that all answers start from, or one per answer.
            answers_BGT (`torch.LongTensor`): answer tokens; -100 is padding.

        Returns:
            `torch.Tensor` [B, G, T, D]: the hidden states that predict each answer token.
        """
        if state.hidden_BKD.shape[1] == 1:
            state = state.expand(answers_BGT.shape[1])
        first_BG1D = state.hidden_BKD[:, :, None]
        if answers_BGT.shape[-1] == 1:
            return first_BG1D
        _, rest = self.extend(state, self.token_embeddings(answers_BGT[..., :-1].clamp(min=0)))
        return torch.cat([first_BG1D, rest], dim=2)

    def answer(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        branch_starts: torch.Tensor | None,
        answers_BGT: torch.Tensor,
    ) -> tuple[torch.Tensor, ThoughtState]:
        """
        [`encode`], [`think`] and [`branch`] of answers that are known beforehand, in fewer passes: the marker that
        opens the thoughts rides with the prompt, the answers ride with the last thought.

        Args:
            input_ids, attention_mask, branch_starts: as in [`encode`].
            answers_BGT (`torch.LongTensor`): answer tokens; -100 is padding.

        Returns:
            `tuple`: the hidden states [B, G, T, D] that predict each answer token, and the state after the thoughts.
        """
        B, G, T = answers_BGT.shape
        K = 1 if branch_starts is None else G
        given_BGR = answers_BGT[..., :-1].clamp(min=0)
        num_thoughts = self.config.num_thoughts
        if num_thoughts == 0 and K < G:
            state = self.encode(input_ids, attention_mask)
            return self.branch(state, answers_BGT), state
        if num_thoughts == 0:
            prompt_BLD, given_BGRD = self._embed(input_ids, given_BGR)
            state, hidden_BGTD = self._encode(prompt_BLD, attention_mask, branch_starts, given_BGRD)
            return hidden_BGTD, state
        start_BK1, end_BK1 = (self._marker(which).expand(B, K, 1) for which in ("start", "end"))
        prompt_BLD, start_BK1D, riders_BKMD = self._embed(
            input_ids, start_BK1, torch.cat([end_BK1, given_BGR.reshape(B, K, G // K * (T - 1))], dim=2)
        )
        state, _ = self._encode(prompt_BLD, attention_mask, branch_starts, start_BK1D)
        own_MM = causal_visibility(2, G // K, T - 1, device=input_ids.device)
        state, hidden_BKMD = self._think(state, num_thoughts, riders_BKMD, own_MM)
        first_BG1D = hidden_BKMD[:, :, 1:2].expand(-1, G, -1, -1)
        return torch.cat([first_BG1D, hidden_BKMD[:, :, 2:].reshape(B, G, T - 1, prompt_BLD.shape[-1])], dim=2), state

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

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        branch_starts: torch.Tensor | None = None,
        labels_follow_prompt: bool = False,
        item_trie: ItemTrie | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
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
        num_thoughts = self.config.num_thoughts
        labels_BGT = labels[:, None] if labels is not None and labels.dim() == 2 else labels
        if labels is None:
            state = self.think(self.encode(input_ids, attention_mask, branch_starts, open_thoughts=num_thoughts > 0))
        elif labels_follow_prompt and num_thoughts == 0:
            state = self.encode(input_ids, attention_mask, branch_starts)
            hidden_BGTD = _states_in_prompt(state.prompt_hidden_BLD, branch_starts, labels_BGT.shape[-1])
        else:
            hidden_BGTD, state = self.answer(input_ids, attention_mask, branch_starts, labels_BGT)
        output = LatentRecOutput(
            thoughts=state.thoughts_BKND if branch_starts is not None else state.thoughts_BKND[:, 0],
            num_thoughts=torch.full((len(input_ids),), num_thoughts, device=input_ids.device),
        )
        if labels is None:
            return output

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

    def _embed(self, *token_ids: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of several tensors of tokens in one lookup: each lookup has a gradient of the whole table."""
        flat = self.token_embeddings(torch.cat([ids.flatten() for ids in token_ids]))
        parts = flat.split([ids.numel() for ids in token_ids])
        return [part.view(*ids.shape, flat.shape[-1]) for part, ids in zip(parts, token_ids, strict=True)]

    def _trains_backbone(self) -> bool:
        """Whether anything that a prompt runs through is trained."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    def _marker(self, which: str) -> torch.Tensor:
        """Token id of the marker that opens (`start`) or closes (`end`) the thoughts."""
        token_id = getattr(self.config, f"{which}_thought_token_id")
        if token_id is None:
            raise ValueError(
                f"config.{which}_thought_token_id is not set, but the model is asked for thoughts; add the markers "
                "with add_item_tokens(tokenizer, ...) and set it to the id of the marker"
            )
        return torch.full((1,), token_id, dtype=torch.long, device=self.lm_head.weight.device)


def _pick_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of tokens [...] under logits [..., V], in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


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
