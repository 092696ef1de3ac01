"""Both kinds of models as evaluate.py sees them: what they were trained on, how they are ranked and timed."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from evaluate_arguments import DEFAULT_BEAMS, EvaluationArguments
from training_setup import build_catalog

from hf_latentrec import ItemTable, LaresConfig, LatentRecProcessor, ReaRecConfig
from hf_latentrec.evaluation import (
    RankingEvaluator,
    RecEvaluator,
    SequentialEvaluator,
    measure_factors,
    measure_item_latency,
    measure_latency,
)


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_latentrec.data import RecData

PASSING = ("_name_or_path", "transformers_version", "architectures", "auto_map", "dtype")  # no part of what a model is


class Recommender(ABC):
    """
    A trained model.

    Args:
        model: in evaluation mode.
        args (`EvaluationArguments`): as parsed.
    """

    item_tokenization: str | None = None
    batch_size = 1024
    num_beams: int | None = None

    def __init__(self, model: Any, args: EvaluationArguments):
        self.model, self.args = model.eval(), args
        self.batch_size = args.eval_batch_size or self.batch_size
        self.check_arguments()
        self.top_k = args.kept_items(self.num_beams)

    @property
    def shared(self) -> dict[str, Any]:
        """What all evaluators are told."""
        return {"ks": tuple(self.args.cutoffs), "batch_size": self.batch_size, "match": self.args.match}

    def fingerprint(self) -> str:
        """SHA-256 of the weights and of what else decides a recommendation."""
        digest = hashlib.sha256(json.dumps(self.describe_files(), sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def describe_files(self) -> list[dict[str, Any]]:
        """The configuration, without what names places and versions."""
        return [{name: value for name, value in self.model.config.to_dict().items() if name not in PASSING}]

    def factors(self, histories: list[list[str]]) -> dict[str, Any] | None:
        """Statistics of a model's factors, if it has any."""
        return None

    @property
    @abstractmethod
    def trained_on(self) -> dict[str, str | None]:
        """Fingerprints of the split and the catalog."""

    @property
    @abstractmethod
    def max_history(self) -> int:
        """Items of a history that are read."""

    @property
    @abstractmethod
    def items(self) -> Any:
        """The catalog: `item_ids`, `titles` and `rows`."""

    @abstractmethod
    def check_arguments(self) -> None:
        """Raises where the arguments ask for what the model does not have."""

    @abstractmethod
    def catalog_fingerprint(self, data: RecData, splits: DatasetDict) -> str:
        """Of the catalog that the training recipes make of this data."""

    @abstractmethod
    def evaluator(self, examples: Dataset) -> RankingEvaluator:
        """The evaluator that keeps recommendations."""

    @abstractmethod
    def step_evaluators(self, examples: Dataset, number: int) -> list[RankingEvaluator]:
        """Those of a number of steps, one for each initial state."""

    @abstractmethod
    def latency(self, histories: list[list[str]]) -> list[dict[str, Any]]:
        """Rows of seconds per user."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """The system, its decoding, and how it treats items that it cannot tell apart."""


class LanguageRecommender(Recommender):
    """A language model and its processor."""

    batch_size = 64

    def __init__(self, model: Any, processor: LatentRecProcessor, args: EvaluationArguments):
        self.processor = processor
        self.settings = {"num_beams": DEFAULT_BEAMS, **args.language_model_settings()}
        self.num_beams = self.settings["num_beams"]
        super().__init__(model, args)

    @property
    def trained_on(self) -> dict[str, str | None]:
        return {"split": self.processor.split_fingerprint, "catalog": self.processor.catalog.fingerprint}

    @property
    def max_history(self) -> int:
        return self.processor.max_history

    @property
    def items(self) -> Any:
        return self.processor.catalog

    @property
    def item_tokenization(self) -> str:
        return self.processor.catalog.item_tokenization

    @property
    def reasoner(self) -> Any:
        return self.model.config.reasoner_config

    def describe_files(self) -> list[dict[str, Any]]:
        return [*super().describe_files(), self.processor.to_dict()]

    def check_arguments(self) -> None:
        steps, decoder = self.args.steps, self.settings.get("decoder", "constrained")
        if steps and self.reasoner.num_thoughts == 0:
            raise ValueError(f"steps are {steps}, but the model was not trained to think; leave them out")
        if steps and min(steps) < 0:
            raise ValueError(f"steps holds {min(steps)}; pass numbers of thoughts from 0 on")
        if steps:
            self.reasoner.num_steps(max(steps))
        if "max_cot_tokens" in self.settings and decoder != "explicit_cot":
            raise ValueError(f"max_cot_tokens is given, but the decoder is {decoder!r}; only 'explicit_cot' writes")
        if decoder == "grounding" and self.args.latency_users:
            raise ValueError("decoder is 'grounding', but what is timed is beam search; pass --latency_users 0")

    def catalog_fingerprint(self, data: RecData, splits: DatasetDict) -> str:
        return build_catalog(data, splits, self.processor.tokenizer, self.item_tokenization, "share").fingerprint

    def evaluator(self, examples: Dataset) -> RecEvaluator:
        return RecEvaluator(self.processor, examples, top_k=self.top_k, **self.settings, **self.shared)

    def step_evaluators(self, examples: Dataset, number: int) -> list[RankingEvaluator]:
        return [RecEvaluator(self.processor, examples, num_thoughts=number, **self.settings, **self.shared)]

    def factors(self, histories: list[list[str]]) -> dict[str, Any] | None:
        if self.reasoner.num_factors is None or self.reasoner.num_thoughts == 0:
            return None
        return measure_factors(self.model, self.processor, histories, self.batch_size).to_dict()

    def latency(self, histories: list[list[str]]) -> list[dict[str, Any]]:
        settings = {name: self.settings[name] for name in ("num_beams", "normalize") if name in self.settings}
        if self.settings.get("decoder") == "explicit_cot":
            settings["max_cot_tokens"] = self.settings.get("max_cot_tokens", 256)
        return measure_latency(
            self.model,
            self.processor,
            histories,
            batch_sizes=self.args.latency_batch_sizes,
            num_users=len(histories),
            **settings,
        )

    def details(self) -> dict[str, Any]:
        number, reasoner = self.reasoner.num_thoughts, self.reasoner.reasoner
        depth = f"1 to {number} thoughts" if self.reasoner.adaptive_depth else f"{number} thought(s)"
        decoding = {"decoder": "constrained", "normalize": "catalog", "length_penalty": 0.0, **self.settings}
        if decoding["decoder"] == "explicit_cot":
            decoding.setdefault("max_cot_tokens", 256)
        return {
            "system": f"{self.model.config.model_type}, {f'{reasoner}, {depth}' if number else 'no thoughts'}",
            "decoding": ", ".join(f"{name} {value}" for name, value in decoding.items()),
            "collision_policy": self.items.describe_collisions(),
        }


class ItemRecommender(Recommender):
    """A model of item ids."""

    def __init__(self, model: Any, args: EvaluationArguments):
        if model.items is None:
            raise ValueError(f"{args.model} has no item table, so its items cannot be named; save it with its items")
        super().__init__(model, args)

    @property
    def trained_on(self) -> dict[str, str | None]:
        return {"split": self.model.config.split_fingerprint, "catalog": self.items.fingerprint}

    @property
    def max_history(self) -> int:
        return self.model.config.max_history

    @property
    def items(self) -> ItemTable:
        return self.model.items

    @property
    def own_steps(self) -> int | None:
        """Reasoning steps of the model itself, if their number can be chosen."""
        return self.model.config.mean_steps if isinstance(self.model.config, LaresConfig) else None

    def check_arguments(self) -> None:
        kind = self.model.config.model_type
        if given := self.args.language_model_settings():
            raise ValueError(
                f"{next(iter(given))} is given, but the model is a {kind!r}, which scores every item; it is a setting "
                "of language models, leave it out"
            )
        if self.args.steps and self.own_steps is None:
            raise ValueError(
                f"steps are {self.args.steps}, but the model is a {kind!r}, which has none; leave them out"
            )
        if self.args.steps and min(self.args.steps) < 1:
            raise ValueError(f"steps holds {min(self.args.steps)}; pass numbers of reasoning steps from 1 on")

    def catalog_fingerprint(self, data: RecData, splits: DatasetDict) -> str:
        return ItemTable(data.items["item_id"][:]).fingerprint

    def evaluator(self, examples: Dataset) -> SequentialEvaluator:
        own = {"num_steps": self.own_steps, "seed": 0} if self.own_steps else {}
        return SequentialEvaluator(examples, top_k=self.top_k, **own, **self.shared)

    def step_evaluators(self, examples: Dataset, number: int) -> list[RankingEvaluator]:
        seeds = range(self.args.eval_seeds)
        return [SequentialEvaluator(examples, num_steps=number, seed=seed, **self.shared) for seed in seeds]

    def latency(self, histories: list[list[str]]) -> list[dict[str, Any]]:
        return measure_item_latency(
            self.model,
            histories,
            thinks=isinstance(self.model.config, LaresConfig | ReaRecConfig),
            num_steps=sorted(set(self.args.steps) - {self.own_steps}),
            batch_sizes=self.args.latency_batch_sizes,
            num_users=len(histories),
        )

    def details(self) -> dict[str, Any]:
        config = self.model.config
        if self.own_steps is None:
            system, decoding = config.model_type, "every item is scored"
        else:
            system = f"{config.model_type}, {config.backbone}, {self.own_steps} steps"
            decoding = "every item is scored, from initial state 0"
        distinct = (
            f"The {len(self.items):,} items are told apart by their ids; of equal scores the first in the table."
        )
        return {"system": system, "decoding": decoding, "collision_policy": distinct}


__all__ = ["ItemRecommender", "LanguageRecommender", "Recommender"]
