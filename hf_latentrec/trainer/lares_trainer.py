"""LARES's self-supervised pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..data.sequence_collator import View, same_target_view
from ..models.lares.recurrent_depth import draw_num_steps
from .contrastive_losses import GlobalSamples, info_nce
from .sequential_config import SequentialTrainingConfig
from .sequential_trainer import SequentialTrainer


@dataclass
class LaresTrainingConfig(SequentialTrainingConfig):
    """
    Settings of [`LaresTrainer`]; see [`SequentialTrainingConfig`].

    Args:
        tla_weight (`float`, *optional*, defaults to 0.1):
            Weight alpha of the trajectory-level alignment (Eq. 8); 0 leaves its two passes out.
        sla_weight (`float`, *optional*, defaults to 0.5): Weight gamma of the step-level alignment (Eq. 9).
        same_target (`bool`, *optional*, defaults to `True`):
            Whether the second trajectory is that of another history with the same target, where there is one; else it
            is the same history under another dropout and another initial state.
        depth_sigma (`float`, *optional*, defaults to 0.5):
            Spread of the number of steps (Eq. 6).
        fixed_depth (`bool`, *optional*, defaults to `False`):
            Train with the model's `mean_steps` in every step.

    Raises:
        ValueError: as [`SequentialTrainingConfig`]; for a negative weight, or a contrastive loss beside these.
    """

    contrastive: str = field(
        default="none",
        metadata={
            "help": "Leave it: LARES has alignments of its own, tla_weight and sla_weight.",
            "choices": ["none"],
        },
    )
    contrastive_weight: float = field(default=0.0, metadata={"help": "Leave it, too."})
    tla_weight: float = field(default=0.1, metadata={"help": "Weight of the trajectory-level alignment."})
    sla_weight: float = field(default=0.5, metadata={"help": "Weight of the step-level alignment."})
    same_target: bool = field(
        default=True, metadata={"help": "Compare with another history that has the same target, where there is one."}
    )
    depth_sigma: float = field(default=0.5, metadata={"help": "Spread of the number of steps in training."})
    fixed_depth: bool = field(default=False, metadata={"help": "Train with the model's mean_steps always."})

    def __post_init__(self):
        super().__post_init__()
        for setting in ("tla_weight", "sla_weight", "depth_sigma"):
            if getattr(self, setting) < 0:
                raise ValueError(f"{type(self).__name__}: {setting} is {getattr(self, setting)}; pass 0 or more")
        for setting, left in (("contrastive", "none"), ("contrastive_weight", 0)):
            if getattr(self, setting) != left:
                raise ValueError(
                    f"{type(self).__name__}: {setting} is {getattr(self, setting)!r}, but LARES has alignments of its "
                    f"own; leave it {left!r} and set tla_weight"
                )


class LaresTrainer(SequentialTrainer):
    """
    Learns to recommend after any number of steps: `L_rec + alpha L_TLA + gamma L_SLA` (Eq. 10).

    The recommendation loss and the step-level alignment share a pass; the two trajectories of the trajectory-level
    alignment are one batch of a second pass with a depth of their own. The depths belong to the training step: all
    processes and all micro-batches of a step have the same, also after a restart.

    Args:
        model (`LaresForSequentialRecommendation`): what is trained.
        args (`LaresTrainingConfig`): settings.
        kwargs: as for [`SequentialTrainer`].
    """

    config_class = LaresTrainingConfig

    def views(self, args: LaresTrainingConfig) -> Sequence[View | None]:
        if args.tla_weight == 0:
            return ()
        return None, same_target_view if args.same_target else None

    def compare(self, first: torch.Tensor, second: torch.Tensor, samples: GlobalSamples) -> torch.Tensor:
        """Eq. 8 or 9 of each sample between states [G, D]."""
        return info_nce(first, second, self.args.temperature, self.args.similarity, samples)

    def draw_depths(self) -> dict[str, int]:
        """Steps of the recommendation pass and of the views, and the intermediate step of Eq. 9, if there is one."""
        generator = torch.Generator().manual_seed(1_000_003 * self.args.seed + self.state.global_step)
        mean_steps = self.accelerator.unwrap_model(self.model).config.mean_steps
        if self.args.fixed_depth:
            num_steps = view_num_steps = mean_steps
        else:
            num_steps = draw_num_steps(mean_steps, self.args.depth_sigma, generator)
            view_num_steps = draw_num_steps(mean_steps, self.args.depth_sigma, generator)
        depths = {"num_steps": num_steps, "view_num_steps": view_num_steps}
        if self.args.sla_weight > 0 and num_steps > 1:
            depths["intermediate_step"] = int(torch.randint(1, num_steps, (), generator=generator))
        return depths

    def compute_terms(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """The three terms of Eq. 10; a pass of one step has no intermediate one to align."""
        samples = self.take_samples(inputs)
        depths = self.draw_depths() if model.training else {}
        outputs = model(**inputs, **depths, num_items_in_batch=num_items_in_batch)
        terms = {"recommendation": outputs.loss}
        if outputs.view_states is not None:
            aligned = self.compare(*outputs.view_states.chunk(2), samples).sum() / num_items_in_batch
            terms["trajectory_alignment"] = self.args.tla_weight * aligned
        if outputs.step_states is not None:
            aligned = self.compare(outputs.step_states, outputs.user_states, samples).sum() / num_items_in_batch
            terms["step_alignment"] = self.args.sla_weight * aligned
        return terms, outputs


__all__ = ["LaresTrainer", "LaresTrainingConfig"]
