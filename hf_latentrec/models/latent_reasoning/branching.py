"""Passes through the backbone: encode the prompt once, think, branch.

Shapes: B prompts, K branches of a prompt (G where they are answers), L prompt, T answer, R = T - 1 tokens of an answer
that are read, N thoughts, M new tokens per branch, S cache slots, D hidden.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from transformers import Cache, DynamicCache

from .argument_checks import check_depths, check_fixed_slot
from .depth_policy import draw_depths
from .thought_state import ThoughtState
from .tree_attention import (
    build_attention_mask,
    causal_visibility,
    extend_positions,
    extend_visibility,
    hide_first,
    prompt_visibility,
)


class LatentBranchingMixin:
    """`encode`, `think` and `branch` of the recommenders, and `answer`, which does all three in fewer passes."""

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
        Runs the prompt through the backbone, once. Where the backbone, embeddings included, is frozen, autograd keeps
        nothing of this pass: no module but the backbone takes part in it.

        Args:
            input_ids (`torch.LongTensor` [B, L]): prompts, padded on either side.
            attention_mask (`torch.Tensor` [B, L], *optional*): 1 for real tokens.
            branch_starts (`torch.LongTensor` [B, G], *optional*): for packed histories, the prompt index at which
                each branch starts; it sees the prompt before it. Without, one branch starts after the whole prompt.
            open_thoughts (`bool`, *optional*, defaults to `False`): let every branch read the marker that opens the
                thoughts, and the initial content of a slot that is refined, where there are such, in the same pass.
            cache (`Cache`, *optional*): empty cache to fill; a new `DynamicCache` by default.

        Returns:
            `ThoughtState`: with one branch, or G.
        """
        B, K = (len(input_ids), 1) if branch_starts is None else branch_starts.shape
        riders_BKM = self._marker("start", B, K) if open_thoughts else input_ids.new_empty(B, K, 0)
        prompt_BLD, riders_BKMD = self._embed(input_ids, riders_BKM)
        if open_thoughts:
            return self._encode_and_open(prompt_BLD, attention_mask, branch_starts, riders_BKMD, cache)
        return self._encode(prompt_BLD, attention_mask, branch_starts, riders_BKMD, cache)[0]

    def _encode_and_open(
        self,
        prompt_BLD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        branch_starts: torch.Tensor | None,
        start_BKMD: torch.Tensor,
        cache: Cache | None = None,
    ) -> ThoughtState:
        """The prompt, the marker that opens the thoughts, and the initial content of a slot that is refined, in one
        pass; where the backbone is frozen and that content is not, it has a pass of its own, so that autograd keeps
        nothing of the prompt's."""
        slot_BKMD = self._initial_thought(*start_BKMD.shape[:2])
        rides = prompt_BLD.requires_grad or not slot_BKMD.requires_grad
        riders_BKMD = torch.cat([start_BKMD, slot_BKMD], dim=2) if rides else start_BKMD
        state, _ = self._encode(prompt_BLD, attention_mask, branch_starts, riders_BKMD, cache)
        if not rides:
            state, _ = self.extend(state, slot_BKMD)
        return replace(state, opened=True)

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
        positions_BS = torch.cat([positions, extend_positions(visible_BKL, own_MM).flatten(1)], dim=1)
        output = self.model(
            inputs_embeds=torch.cat([prompt_BLD, riders_BKMD.flatten(1, 2)], dim=1),
            attention_mask=mask,
            position_ids=positions_BS,
            past_key_values=DynamicCache(config=self.config) if cache is None else cache,
            use_cache=True,
        )
        prompt_hidden_BLD, riders_hidden = output.last_hidden_state.split([L, K * M], dim=1)
        newest_BK = (visible_BKL * slot_L).amax(-1)
        before_BKD = prompt_hidden_BLD.gather(1, newest_BK[..., None].expand(-1, -1, D))
        hidden_BKMD = torch.cat([before_BKD[:, :, None], riders_hidden.view(B, K, M, D)], dim=2)
        no_thoughts_BK0D = hidden_BKMD.new_empty(B, K, 0, D)
        state = ThoughtState(
            output.past_key_values,
            visible_BKMS[:, :, -1] if M else visible_BKL,
            hidden_BKMD[:, :, -1],
            hidden_parts=(output.last_hidden_state,),
            position_parts=(positions_BS,),
            thoughts_BKND=no_thoughts_BK0D,
            thought_embeds_BKND=no_thoughts_BK0D,
        )
        return state, hidden_BKMD

    def extend(
        self,
        state: ThoughtState,
        embeds_BKMD: torch.Tensor,
        own_MM: torch.Tensor | None = None,
        idle_BK: torch.Tensor | None = None,
    ) -> tuple[ThoughtState, torch.Tensor]:
        """
        Appends M tokens to every branch: one pass over the new tokens, never over the prompt.

        Args:
            state (`ThoughtState`): with K branches. Its cache grows in place.
            embeds_BKMD (`torch.Tensor`): input embeddings.
            own_MM (`torch.BoolTensor`, *optional*): what the new tokens of a branch see of each other; by default each
                sees those before it. The branch goes on from the last token.
            idle_BK (`torch.BoolTensor`, *optional*): branches for which the first new token is none: it only fills up
                the batch, nothing sees it, and in its place the branch's newest hidden state so far is returned.

        Returns:
            `tuple`: the grown state and the new hidden states [B, K, M, D].
        """
        B, K, M, D = embeds_BKMD.shape
        own = causal_visibility(M, device=embeds_BKMD.device) if own_MM is None else own_MM
        if idle_BK is not None:
            own = hide_first(own, idle_BK)
        visible_BKMS = extend_visibility(state.visible_BKS, own)
        positions_BQ = extend_positions(state.visible_BKS, own).flatten(1)
        output = self.model(
            inputs_embeds=embeds_BKMD.reshape(B, K * M, D),
            attention_mask=build_attention_mask(
                visible_BKMS.flatten(1, 2), self.config._attn_implementation, embeds_BKMD.dtype
            ),
            position_ids=positions_BQ,
            past_key_values=state.past_key_values,
            use_cache=True,
        )
        hidden_BKMD = output.last_hidden_state.view(B, K, M, D)
        visible_BKS = visible_BKMS[:, :, -1]
        if idle_BK is not None:
            idle_BK1 = idle_BK[..., None]
            first_BKD = torch.where(idle_BK1, state.hidden_BKD, hidden_BKMD[:, :, 0])
            hidden_BKMD = torch.cat([first_BKD[:, :, None], hidden_BKMD[:, :, 1:]], dim=2)
            if M == 1:  # no token after it whose row would leave it out
                visible_BKS = torch.where(idle_BK1, nn.functional.pad(state.visible_BKS, (0, K)), visible_BKS)
        state = replace(
            state,
            visible_BKS=visible_BKS,
            hidden_BKD=hidden_BKMD[:, :, -1],
            hidden_parts=(*state.hidden_parts, output.last_hidden_state),
            position_parts=(*state.position_parts, positions_BQ),
        )
        return state, hidden_BKMD

    def think(
        self,
        state: ThoughtState,
        num_thoughts: int | torch.Tensor | None = None,
        thought_noise: torch.Tensor | None = None,
        relative_noise: bool = False,
        depth_noise: torch.Tensor | None = None,
    ) -> ThoughtState:
        """
        Lets every branch think; each step costs one token per branch. The closing marker, if there is one, rides along
        with the last thought.

        Args:
            state (`ThoughtState`): from [`encode`].
            num_thoughts (`int` or `torch.LongTensor` [B, K], *optional*): N of all branches, or of each; by default
                the configuration's, or with adaptive depth what the depth policy finds most probable. 0 returns the
                state as it is.
            thought_noise (`torch.Tensor` [B, K, D], *optional*): K samples of the last thought `r` (LatentR³ Eq. 5):
                the one branch of the state becomes K, which go on after `r + thought_noise[:, k]`.
            relative_noise (`bool`, *optional*, defaults to `False`): the noise is in units of the thought's root mean
                square.
            depth_noise (`torch.Tensor` [B, K], *optional*): numbers in [0, 1); draws the depths from the policy.

        Returns:
            `ThoughtState`: ready to answer.
        """
        if not self.thinks(num_thoughts):
            return state
        B, K, _ = state.visible_BKS.shape
        if not state.opened:
            start_BKMD = self.token_embeddings(self._marker("start", B, K))
            opening_BKMD = torch.cat([start_BKMD, self._initial_thought(B, K)], dim=2)
            state = self.extend(state, opening_BKMD)[0] if opening_BKMD.shape[2] else state
        end_BKM = self._marker("end", B, K if thought_noise is None else thought_noise.shape[1])
        noise = (thought_noise, relative_noise)
        state, deepest = self._choose_depth(state, num_thoughts, depth_noise)
        return self._think(state, deepest, self.token_embeddings(end_BKM), None, *noise)[0]

    def thinks(self, num_thoughts: int | torch.Tensor | None = None) -> bool:
        """Whether there is anything to think, with what was asked for or else with the configuration's number."""
        num_thoughts = self.config.num_thoughts if num_thoughts is None else num_thoughts
        return not isinstance(num_thoughts, int) or num_thoughts > 0

    def _choose_depth(
        self,
        state: ThoughtState,
        num_thoughts: int | torch.Tensor | None,
        depth_noise_BK: torch.Tensor | None = None,
    ) -> tuple[ThoughtState, int]:
        """The number of thoughts of every branch, where branches may differ, and the largest of them."""
        if self.depth_policy is not None:
            state = replace(state, depth_logits_BKC=self.depth_policy(state.hidden_BKD))
        if isinstance(num_thoughts, int):
            return state, num_thoughts
        if num_thoughts is not None:
            check_fixed_slot(self.config.reasoner_config.refines_in_place)
            depths_BK = num_thoughts
        elif self.depth_policy is None:
            return state, self.config.num_thoughts
        elif depth_noise_BK is not None:
            depths_BK = draw_depths(state.depth_logits_BKC, depth_noise_BK)
        else:
            depths_BK = state.depth_logits_BKC.argmax(-1) + 1
        # The one time that thinking waits for the device: it saves the steps that no branch of the batch takes.
        shallowest, deepest = torch.stack(depths_BK.aminmax()).tolist()
        check_depths(depths_BK, state.visible_BKS, shallowest)
        return replace(state, depths_BK=depths_BK), deepest

    def _think(
        self,
        state: ThoughtState,
        num_thoughts: int,
        riders_BKMD: torch.Tensor,
        own_MM: torch.Tensor | None = None,
        noise_BKD: torch.Tensor | None = None,
        relative_noise: bool = False,
    ) -> tuple[ThoughtState, torch.Tensor]:
        """Thoughts, and in the last one's pass the M tokens after it; states [B, K, 1 + M, D] of that pass. A branch
        that is through idles until the deepest is (LASAR App. E.1), and has zeros for thoughts."""
        settings = self.config.reasoner_config
        num_steps = settings.num_steps(num_thoughts)
        steps, hidden_BKD = [], []
        for step in range(num_steps):
            steps.append(self.reasoner(state))
            state = replace(state, read_parts=steps[-1].read_parts)
            if settings.refines_in_place:
                state = state.forget_newest()
            thought_BKMD = steps[-1].embeds_BKD[:, :, None]
            idle_BK = None if state.depths_BK is None or step == 0 else state.depths_BK <= step
            if step < num_steps - 1:
                state, hidden_BKMD = self.extend(state, thought_BKMD, idle_BK=idle_BK)
            else:
                if noise_BKD is not None:
                    state = state.expand(noise_BKD.shape[1])
                    thought_BKMD = _perturb(thought_BKMD, noise_BKD[:, :, None], relative_noise)
                state, hidden_BKMD = self.extend(state, torch.cat([thought_BKMD, riders_BKMD], dim=2), own_MM, idle_BK)
            hidden_BKD.append(hidden_BKMD[:, :, 0])
        thoughts_BKND = torch.stack([hidden.expand_as(hidden_BKD[-1]) for hidden in hidden_BKD[-num_thoughts:]], dim=2)
        embeds_BKND = torch.stack([step.embeds_BKD for step in steps[-num_thoughts:]], dim=2)
        if state.depths_BK is not None:
            step_N1 = torch.arange(num_steps, device=thoughts_BKND.device)[:, None]
            beyond_BKN1 = state.depths_BK[..., None, None] <= step_N1
            thoughts_BKND = thoughts_BKND.masked_fill(beyond_BKN1, 0.0)
            embeds_BKND = embeds_BKND.masked_fill(beyond_BKN1, 0.0)
        state = replace(state, thoughts_BKND=thoughts_BKND, thought_embeds_BKND=embeds_BKND, steps=tuple(steps))
        return state, hidden_BKMD

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
        thought_noise: torch.Tensor | None = None,
        relative_noise: bool = False,
        num_thoughts: int | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ThoughtState]:
        """
        [`encode`], [`think`] and [`branch`] of answers that are known beforehand, in fewer passes: the marker that
        opens the thoughts rides with the prompt, the answers ride with the last thought.

        Args:
            input_ids, attention_mask, branch_starts: as in [`encode`].
            answers_BGT (`torch.LongTensor`): answer tokens; -100 is padding.
            thought_noise, relative_noise: as in [`think`]; the k-th answer then follows the k-th sample, K = G.
            num_thoughts: as in [`think`].

        Returns:
            `tuple`: the hidden states [B, G, T, D] that predict each answer token, and the state after the thoughts.
        """
        B, G, T = answers_BGT.shape
        K = 1 if branch_starts is None and thought_noise is None else G
        given_BGR = answers_BGT[..., :-1].clamp(min=0)
        thinks = self.thinks(num_thoughts)
        if not thinks and K < G:
            state = self.encode(input_ids, attention_mask)
            return self.branch(state, answers_BGT), state
        if not thinks:
            prompt_BLD, given_BGRD = self._embed(input_ids, given_BGR)
            state, hidden_BGTD = self._encode(prompt_BLD, attention_mask, branch_starts, given_BGRD)
            return hidden_BGTD, state
        end_BKM = self._marker("end", B, K)
        prompt_BLD, start_BKMD, riders_BKMD = self._embed(
            input_ids,
            self._marker("start", B, 1 if branch_starts is None else K),
            torch.cat([end_BKM, given_BGR.reshape(B, K, G // K * (T - 1))], dim=2),
        )
        state = self._encode_and_open(prompt_BLD, attention_mask, branch_starts, start_BKMD)
        state, deepest = self._choose_depth(state, num_thoughts)
        num_shared = 1 + end_BKM.shape[2]  # the last thought and the marker, before the answers of a branch part
        own_MM = causal_visibility(num_shared, G // K, T - 1, device=input_ids.device)
        state, hidden_BKMD = self._think(state, deepest, riders_BKMD, own_MM, thought_noise, relative_noise)
        first_BG1D = hidden_BKMD[:, :, num_shared - 1 : num_shared].expand(-1, G, -1, -1)
        rest_BGRD = hidden_BKMD[:, :, num_shared:].reshape(B, G, T - 1, prompt_BLD.shape[-1])
        return torch.cat([first_BG1D, rest_BGRD], dim=2), state

    def _embed(self, *token_ids: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of several tensors of tokens in one lookup: each lookup has a gradient of the whole table."""
        flat = self.token_embeddings(torch.cat([ids.flatten() for ids in token_ids]))
        parts = flat.split([ids.numel() for ids in token_ids])
        return [part.view(*ids.shape, flat.shape[-1]) for part, ids in zip(parts, token_ids, strict=True)]

    def _initial_thought(self, num_prompts: int, num_branches: int) -> torch.Tensor:
        """What a slot that is refined starts from [B, K, 1, D]; [B, K, 0, D] where thoughts follow each other."""
        weight_VD = self.lm_head.weight
        if not self.config.reasoner_config.refines_in_place:
            return weight_VD.new_empty(num_prompts, num_branches, 0, weight_VD.shape[-1])
        return self.reasoner.initial_thought.expand(num_prompts, num_branches, 1, -1)

    def _marker(self, which: str, num_prompts: int, num_branches: int) -> torch.Tensor:
        """Token [B, K, 1] that opens (`start`) or closes (`end`) the thoughts; [B, K, 0] without markers."""
        shape = (num_prompts, num_branches)
        if not self.config.reasoner_config.thought_markers:
            return torch.empty(*shape, 0, dtype=torch.long, device=self.lm_head.weight.device)
        token_id = getattr(self.config, f"{which}_thought_token_id")
        if token_id is None:
            raise ValueError(
                f"config.{which}_thought_token_id is not set, but the model is asked for thoughts; add the markers "
                "with add_item_tokens(tokenizer, ...) and set it to the id of the marker, or think without markers "
                "(thought_markers=False in the reasoner's configuration)"
            )
        return torch.full((1, 1, 1), token_id, dtype=torch.long, device=self.lm_head.weight.device).expand(*shape, 1)


def _perturb(thought: torch.Tensor, noise: torch.Tensor, relative_noise: bool) -> torch.Tensor:
    """Samples of a thought: `thought + noise`, or with the noise in units of the thought's root mean square."""
    noise = noise.to(thought.dtype)
    return thought + (noise * _root_mean_square(thought) if relative_noise else noise)


def _root_mean_square(x: torch.Tensor) -> torch.Tensor:
    """`||x|| / sqrt(D)` of vectors [..., D] as [..., 1], without gradient."""
    return x.detach().float().square().mean(-1, keepdim=True).sqrt().to(x.dtype)


__all__ = ["LatentBranchingMixin"]
