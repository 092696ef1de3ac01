"""What evaluate.py is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from protocol_arguments import ProtocolArguments
from training_setup import InteractionArguments

from hf_latentrec.evaluation import DECODERS, MATCHES


LANGUAGE_MODEL_SETTINGS = ("num_beams", "normalize", "length_penalty", "decoder", "max_cot_tokens")
NOT_COMPARED = ("model", "output_dir", "overwrite", "use_cpu", "eval_batch_size")  # they change no result
DEFAULT_TOP_K, DEFAULT_BEAMS = 20, 50
DEFAULT_LATENCY_BATCH_SIZES = (1, 4, 16, 64)


@dataclass
class EvaluationDataArguments(InteractionArguments):
    """The data and the split, which must be those of the model's training."""

    max_history: int | None = field(
        default=None, metadata={"help": "As in training; what the model says of itself if not given."}
    )


@dataclass(kw_only=True)
class EvaluationArguments(ProtocolArguments):
    """Which model is evaluated, how, and what is measured beside its ranks."""

    model: str = field(metadata={"help": "Folder of a trained model, or its repository on the Hub."})
    output_dir: str = field(metadata={"help": "Folder for the results: ranks, recommendations, metrics.json, ..."})
    label: str | None = field(
        default=None, metadata={"help": "What tables call the model; the name of its folder if not given."}
    )
    part: str = field(
        default="test", metadata={"help": "Whose next item is ranked.", "choices": ["test", "validation"]}
    )
    match: str = field(
        default="item",
        metadata={
            "help": "A hit is the target itself ('item'), or, as in the papers' code, any item with its 'title'.",
            "choices": list(MATCHES),
        },
    )
    cutoffs: list[int] = field(default_factory=lambda: [5, 10, 20], metadata={"help": "K of the metrics."})
    top_k: int | None = field(
        default=None,
        metadata={
            "help": f"Recommendations kept per user; default: {DEFAULT_TOP_K} or the largest of the cutoffs, or "
            "num_beams where that is less."
        },
    )
    eval_users: int | None = field(
        default=None, metadata={"help": "So many examples, drawn at random, always the same; default: all."}
    )
    eval_batch_size: int | None = field(
        default=None,
        metadata={"help": "Users per process and batch; default: 64 for a language model, else 1024."},
    )
    num_beams: int | None = field(
        default=None, metadata={"help": f"Language models: beams per user; default: {DEFAULT_BEAMS}."}
    )
    normalize: str | None = field(
        default=None,
        metadata={
            "help": "Language models: what beam search normalizes probabilities over; default: 'catalog'.",
            "choices": ["catalog", "vocabulary"],
        },
    )
    length_penalty: float | None = field(default=None, metadata={"help": "Language models; default: 0."})
    decoder: str | None = field(
        default=None,
        metadata={
            "help": "Language models: 'constrained' beam search (default), 'grounding', or 'explicit_cot'.",
            "choices": list(DECODERS),
        },
    )
    max_cot_tokens: int | None = field(
        default=None, metadata={"help": "Language models: tokens of a text of explicit_cot at most; default: 256."}
    )
    steps: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Also evaluate after these numbers of reasoning steps (LARES), or of thoughts (language models)."
        },
    )
    eval_seeds: int = field(
        default=3, metadata={"help": "LARES: initial states for each number of steps; ranks are of the first one."}
    )
    factor_users: int = field(
        default=1000, metadata={"help": "FLR: measure the factors of so many users; 0 leaves it out."}
    )
    latency_users: int = field(
        default=100, metadata={"help": "Time recommendations for so many users; 0 leaves it out."}
    )
    latency_batch_sizes: list[int] | None = field(
        default=None,
        metadata={
            "help": "Users at once, when timed; default: those of "
            f"{', '.join(map(str, DEFAULT_LATENCY_BATCH_SIZES))} that the users fill."
        },
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Evaluate anew where output_dir holds results of other settings."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Leave an accelerator alone."})

    def __post_init__(self):
        super().__post_init__()
        # What argparse does not see in a config file is checked, too.
        for name, known in (("part", ("test", "validation")), ("match", MATCHES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {known}")
        if not isinstance(self.cutoffs, list) or not self.cutoffs or min(self.cutoffs) < 1:
            raise ValueError(f"cutoffs is {self.cutoffs}; pass a list of at least one, all from 1 on, such as 5 10 20")
        for name, least in (("top_k", 1), ("eval_users", 1), ("eval_batch_size", 1), ("num_beams", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; pass {least} or more")
        for name, least in (("eval_seeds", 1), ("factor_users", 0), ("latency_users", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; pass {least} or more")
        if self.top_k is not None and self.top_k < max(self.cutoffs):
            raise ValueError(
                f"top_k is {self.top_k}, but cutoffs hold {max(self.cutoffs)}, and coverage and diversity are of the "
                "items that are kept; pass a larger top_k or smaller cutoffs"
            )

    def kept_items(self, num_beams: int | None) -> int:
        """Recommendations kept per user."""
        wanted = max(DEFAULT_TOP_K, *self.cutoffs) if self.top_k is None else self.top_k
        if num_beams is None:
            return wanted
        if max(self.cutoffs) > num_beams or (self.top_k or 0) > num_beams:
            raise ValueError(
                f"num_beams is {num_beams}, but cutoffs are {self.cutoffs} and top_k {self.top_k}; items beyond the "
                "beams are not ranked, so pass more beams, or smaller cutoffs and top_k"
            )
        return min(wanted, num_beams)

    def language_model_settings(self) -> dict[str, Any]:
        """Those that are given, of what belongs to language models alone."""
        given = {name: getattr(self, name) for name in LANGUAGE_MODEL_SETTINGS}
        return {name: value for name, value in given.items() if value is not None}

    def compared(self) -> dict[str, Any]:
        """What decides the results, by name."""
        return {name: value for name, value in asdict(self).items() if name not in NOT_COMPARED}


__all__ = ["DEFAULT_BEAMS", "DEFAULT_LATENCY_BATCH_SIZES", "EvaluationArguments", "EvaluationDataArguments"]
