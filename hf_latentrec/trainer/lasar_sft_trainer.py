"""LASAR's second stage of supervised fine-tuning: thoughts that follow a reasoning text, and how many there should be.

Shapes: B rows, G targets of a packed history, N thoughts, S segments of a text, D hidden, C depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..cot.collator import AnchoredCollator
from ..models.latent_reasoning.modeling_outputs import LatentRecOutput
from .cot_coverage import check_anchors, check_coverage
from .lasar_sft_config import LASARSFTConfig
from .sft_trainer import LatentSFTTrainer, has_answer
from .thought_losses import thought_alignment


if TYPE_CHECKING:
    from ..cot.anchors import AnchorStore


class LASARSFTTrainer(LatentSFTTrainer):
    """
    [`LatentSFTTrainer`] with LASAR's terms of stage 2 (section 2.3):
    `L = L_CE + align_weight L_align + policy_weight L_policy`.

    `L_align` (Eq. 4) compares each of the N thoughts with the anchor of the segment of its number, `L_policy` is the
    cross entropy of the depth policy with the number of segments as its label, N_max where there are more. Both are
    means over the answers of the global batch that have a reasoning text; the others are trained by `L_CE` alone. An
    answer with more thoughts than segments stays out of the alignment: it adds 0 to that mean.

    Logged besides the terms themselves: `alignment` (without its weight), `depth/mean`, `depth/accuracy` (the share
    of depths that are the labels), `cot/missing` (of all answers, those without a text) and `cot/too_deep` (of those
    with one, the share with more thoughts than segments).

    Args:
        model (`PreTrainedModel`): a recommender that thinks, with adaptive depth where `policy_weight` is not 0.
        args (`LASARSFTConfig`): settings.
        anchors (`AnchorStore`, *optional*): of the training examples' reasoning texts; needed unless both
            `alignment` and `policy_weight` are off.
        kwargs: as for [`LatentSFTTrainer`].

    Raises:
        ValueError: as [`LatentSFTTrainer`]; for a part without what it needs, anchors that do not fit the model, too
            many examples without a text, or adaptive depth of a model that is sharded.

    Example:
        >>> trainer = LASARSFTTrainer(
        ...     model,
        ...     LASARSFTConfig("out", alignment="kl"),
        ...     anchors=AnchorStore.open("anchors"),
        ...     train_dataset=splits["train"],
        ...     processing_class=processor,
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    config_class = LASARSFTConfig

    def __init__(self, model: nn.Module, args: LASARSFTConfig, *, anchors: AnchorStore | None = None, **kwargs):
        super().__init__(model, args, **kwargs)
        self.aligns = args.alignment != "none" and args.align_weight > 0
        self.check_parts(anchors)
        if self.aligns or self.trains_depth_policy:
            name = type(self).__name__
            check_anchors(name, anchors, self.accelerator.unwrap_model(self.model))
            if self.train_dataset is not None:
                check_coverage(name, anchors, self.train_dataset, args.max_missing_cot)
            self.data_collator = AnchoredCollator(self.data_collator, anchors)

    @property
    def trains_depth_policy(self) -> bool:
        """With a weight for it."""
        return self.args.policy_weight > 0

    def check_parts(self, anchors: AnchorStore | None) -> None:
        """Raises a `ValueError` where a part of the loss lacks what it needs, or processes would not keep in step."""
        name, model = type(self).__name__, self.accelerator.unwrap_model(self.model)
        is_adaptive = model.depth_policy is not None
        if self.trains_depth_policy and not is_adaptive:
            raise ValueError(
                f"{name}: policy_weight is {self.args.policy_weight}, but the model has no depth policy; pass "
                'policy_weight=0, or load the model with reasoner_config={"num_thoughts": 8, "adaptive_depth": True}'
            )
        if anchors is None and (self.aligns or self.trains_depth_policy):
            raise ValueError(
                f"{name}: alignment is {self.args.alignment!r} with align_weight {self.args.align_weight} and "
                f"policy_weight is {self.args.policy_weight}, which need anchors; pass anchors=AnchorStore.open(...), "
                'or alignment="none" and policy_weight=0'
            )
        if is_adaptive and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                f"{name}: processes that share a sharded model would think for different numbers of steps and wait "
                "for each other for ever; use DDP, or a model without adaptive depth"
            )

    def count_others(self, batch):
        """Also the answers with a reasoning text, over which alignment and policy loss are means."""
        return {"with_cot": (batch["num_segments"] > 0).sum()} if "num_segments" in batch else {}

    def compute_terms(self, model, inputs, num_items_in_batch):
        """The answers' cross entropy, the alignment, and the cross entropy of the depth policy."""
        anchors, num_segments = inputs.pop("anchors", None), inputs.pop("num_segments", None)
        terms, output = super().compute_terms(model, inputs, num_items_in_batch)
        is_answer = has_answer(inputs["labels"])
        if output.depth_logits is not None:
            self.means.add("depth/mean", (output.num_thoughts * is_answer).sum(), is_answer.sum())
        if num_segments is None:
            return terms, output
        has_cot = num_segments > 0
        self.means.add("cot/missing", (is_answer & ~has_cot).sum(), is_answer.sum())
        num_with_cot = self.global_counts["with_cot"].clamp(min=1)
        if self.aligns:
            alignment = self.sum_of_alignments(output, anchors, num_segments)
            terms["alignment"] = self.args.align_weight * alignment / num_with_cot
        if self.trains_depth_policy:
            terms["policy"] = self.args.policy_weight * self.sum_of_policy_losses(output, num_segments) / num_with_cot
        return terms, output

    def sum_of_alignments(
        self, output: LatentRecOutput, anchors: torch.Tensor, num_segments: torch.Tensor
    ) -> torch.Tensor:
        """
        `L_align` of Eq. 4, summed over the answers of a batch.

        Args:
            output (`LatentRecOutput`): with `thoughts` [B, N, D] and `num_thoughts` [B]; packed [B, G, N, D], [B, G].
            anchors (`torch.Tensor` [B, S, D] or [B, G, S, D]): of the texts' segments.
            num_segments (`torch.LongTensor` [B] or [B, G]): how many there are; 0 where there is no text.

        Returns:
            `torch.Tensor`: scalar.
        """
        depth, has_cot = output.num_thoughts, num_segments > 0
        fits = has_cot & (depth <= num_segments)
        num_steps = min(output.thoughts.shape[-2], anchors.shape[-2])  # all that an answer which fits can have
        step_N = torch.arange(num_steps, device=depth.device)
        is_compared = fits[..., None] & (step_N < depth[..., None])
        distance = thought_alignment(
            output.thoughts[..., :num_steps, :], anchors[..., :num_steps, :], self.args.alignment
        )
        per_answer = distance.masked_fill(~is_compared, 0.0).sum(-1) / depth
        self.means.add("alignment", per_answer.sum(), has_cot.sum())
        self.means.add("cot/too_deep", (has_cot & ~fits).sum(), has_cot.sum())
        return per_answer.sum()

    def sum_of_policy_losses(self, output: LatentRecOutput, num_segments: torch.Tensor) -> torch.Tensor:
        """Cross entropy of `depth_logits` [B, C] or [B, G, C] with the numbers of segments, over a batch's answers."""
        has_cot = num_segments > 0
        depth = num_segments.clamp(1, output.depth_logits.shape[-1])
        nll = -output.depth_logits.log_softmax(-1).gather(-1, depth[..., None] - 1).squeeze(-1)
        self.means.add("depth/accuracy", (has_cot & (output.num_thoughts == depth)).sum(), has_cot.sum())
        return nll.masked_fill(~has_cot, 0.0).sum()


__all__ = ["LASARSFTTrainer"]
