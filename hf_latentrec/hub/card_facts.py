"""What a model card says, as data: gathered from a model and its training, kept beside the card as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import numpy as np

from .systems import system_of


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..evaluation import EvaluationRun

FACTS_FILE = "card_facts.json"
PACKAGES = ("transformers", "trl", "torch", "datasets", "accelerate")
LLM, ITEM_IDS = "llm", "item_ids"
# Details of an evaluation that a card tells, and its words for them.
TOLD_OF_TESTS = {
    "num_examples": "examples",
    "max_history": "newest items of a history that are read",
    "decoding": "decoding",
    "num_beams": "beams",
    "seed": "seed of training",
}


@dataclass(frozen=True)
class DataFacts:
    """
    What a model was trained on.

    Args:
        name (`str`, *optional*): of the data set.
        num_users, num_items, num_interactions (`int`, *optional*): how much there is.
        split (`str`, *optional*): how test and validation were split off.
        split_fingerprint (`str`, *optional*): of that split.
        license (`str`, *optional*): of the data, in the words of its owner.
    """

    name: str | None = None
    num_users: int | None = None
    num_items: int | None = None
    num_interactions: int | None = None
    split: str | None = None
    split_fingerprint: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """
    What a card says of a model; a field that is not known is left out of the card.

    Args:
        title (`str`, *optional*): heading of the card.
        kind (`str`, *optional*): `"llm"` or `"item_ids"`: how the model is called.
        model_class (`str`, *optional*): its class.
        num_parameters (`int`, *optional*): how many weights it has.
        thoughts (`str`, *optional*): how it thinks, in words.
        system (`str`, *optional*): a key of `SYSTEMS`.
        data ([`DataFacts`]): what it was trained on.
        collisions (`str`, *optional*): which items cannot be told apart, and how they are ranked.
        example_history (`list[str]`, *optional*): item ids for the snippet.
        license (`str`, *optional*): of the model.
        base_model (`str`, *optional*): on the Hub, that training started from.
        language (`str`, *optional*): of the items' texts.
        tags, datasets (`list[str]`, *optional*): for the Hub, beside those of the system.
        trainer (`str`, *optional*): the class that trained it.
        training (`dict[str, Any]`, *optional*): how long and on how much, by what a card calls it.
        hyperparameters (`dict[str, Any]`, *optional*): settings of the trainer that differ from their defaults.
        validation (`dict[str, float]`, *optional*): metrics of the validation users.
        test (`dict[str, Any]`, *optional*): how the model was tested, by what a card calls it.
        results (`dict[str, dict[str, float]]`, *optional*): test metrics by setting, whose last part names the
            protocol. A value may be text, such as a mean with its spread.
        notes (`list[str]`, *optional*): what else is to be said, such as what differs from the paper.
        versions (`dict[str, str]`, *optional*): of the packages.
    """

    title: str | None = None
    kind: str | None = None
    model_class: str | None = None
    num_parameters: int | None = None
    thoughts: str | None = None
    system: str | None = None
    data: DataFacts = field(default_factory=DataFacts)
    collisions: str | None = None
    example_history: list[str] = field(default_factory=list)
    license: str | None = None
    base_model: str | None = None
    language: str | None = None
    tags: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    trainer: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def with_data(self, **known: Any) -> CardFacts:
        """The same facts with what is known of the data; `None` changes nothing."""
        return replace(self, data=replace(self.data, **{name: value for name, value in known.items() if value}))

    def with_run(self, run: EvaluationRun) -> CardFacts:
        """
        The same facts with the results of an evaluation in the place of older ones.

        Raises:
            ValueError: the run is of another split than the model, or not of its test part.
        """
        from ..evaluation import ranking_metrics

        own, found, details = self.data.split_fingerprint, run.split_fingerprint, run.details
        if own is not None and own != found:
            raise ValueError(
                f"the evaluation {run.label!r} is of split {found}, but the model was trained on {own}; evaluate this "
                "model on its own split"
            )
        if details.get("part", "test") != "test":
            raise ValueError(
                f"the evaluation {run.label!r} is of the {details['part']} examples, and a card shows those of test; "
                "evaluate them with --part test"
            )
        match = "matched by title, " if details.get("match") == "title" else ""
        results = {}
        for protocol, file in run.ranks.items():
            metrics = results[match + protocol] = ranking_metrics(file.ranks, cutoffs_of(run))
            if file.num_thoughts is not None:
                metrics["mean thoughts"] = float(np.mean(file.num_thoughts))
        test = {name: details[key] for key, name in TOLD_OF_TESTS.items() if details.get(key) is not None}
        facts = replace(self, results=results, test=test)
        unknown = {"name": details.get("data"), "split": details.get("split", "").replace("_", " ")}
        facts = facts.with_data(**{key: value for key, value in unknown.items() if getattr(self.data, key) is None})
        return facts.with_data(split_fingerprint=found, num_items=len(run.items.item_ids))

    def save(self, folder: str | Path) -> None:
        """Writes `card_facts.json`, which is not published."""
        text = json.dumps(asdict(self), indent=1, default=str)
        Path(folder, FACTS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CardFacts:
        """Reads what [`CardFacts.save`] wrote: its folder, or the file itself."""
        path = Path(path, FACTS_FILE) if Path(path).is_dir() else Path(path)
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**known, "data": DataFacts(**known["data"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} was not written by CardFacts.save ({error}); remove it") from error


def public_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """What of an evaluation's details can be published: all but the paths of the machine that ran it."""
    return {
        name: value
        for name, value in details.items()
        if name != "model" and not (isinstance(value, str) and Path(value).is_absolute())
    }


def describe_model(model: PreTrainedModel, processor: Any = None) -> CardFacts:
    """
    What a model and its processor tell of themselves.

    Args:
        model (`PreTrainedModel`): a recommender.
        processor (`LatentRecProcessor`, *optional*): of a language model.

    Example:
        >>> from hf_latentrec import ItemTable, SASRecConfig, SASRecForSequentialRecommendation
        >>> items = ItemTable(["a", "b"])
        >>> facts = describe_model(SASRecForSequentialRecommendation(SASRecConfig(num_items=2), items=items))
        >>> facts.kind, facts.system, facts.data.num_items
        ('item_ids', 'sasrec', 2)
    """
    from ..models.lares.sequential_recommender import SequentialRecommender
    from ..models.latent_reasoning.processing_latentrec import LatentRecProcessor

    config = model.config
    shared = {
        "model_class": type(model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "thoughts": describe_thoughts(config),
        "versions": versions(),
    }
    if isinstance(model, SequentialRecommender):
        facts = CardFacts(kind=ITEM_IDS, system=system_of(config), **shared)
        facts = facts.with_data(num_items=config.num_items, split_fingerprint=config.split_fingerprint)
        if model.items is None:
            return facts
        history = example_history(model.items.item_ids, model.items.popularity)
        return replace(facts, example_history=history, collisions="Every item has an id of its own; none is shared.")
    if not isinstance(processor, LatentRecProcessor):
        return CardFacts(kind=LLM, system=system_of(config), **shared)
    catalog = processor.catalog
    facts = CardFacts(
        kind=LLM,
        system=system_of(config, catalog.item_tokenization),
        collisions=catalog.describe_collisions(),
        example_history=example_history(catalog.item_ids, catalog.popularity),
        **shared,
    )
    return facts.with_data(num_items=len(catalog), split_fingerprint=processor.split_fingerprint)


def versions() -> dict[str, str]:
    """Of this library, of what it stands on, and of Python."""
    from .. import __version__

    return {"hf_latentrec": __version__, **{name: version(name) for name in PACKAGES}, "Python": python_version()}


def describe_thoughts(config: Any) -> str:
    """How a model thinks, in words."""
    if config.model_type == "lares":
        return f"{config.mean_steps} steps of a recurrent block, or as many as `num_steps` asks for"
    reasoner = getattr(config, "reasoner_config", None)
    if reasoner is None or reasoner.num_thoughts == 0:
        return "none"
    if reasoner.refines_in_place:
        return f"1 of {reasoner.num_factors} factors, refined {reasoner.num_iterations} times"
    if reasoner.adaptive_depth:
        return f"1 to {reasoner.num_thoughts}, as a policy says for each user"
    return str(reasoner.num_thoughts)


def example_history(item_ids: list[str], popularity: np.ndarray | None, size: int = 2) -> list[str]:
    """The items that occur most often in training, or the first ones."""
    if popularity is None:
        return list(item_ids[:size])
    return [item_ids[row] for row in np.argsort(-np.asarray(popularity), kind="stable")[:size]]


def load_facts(folder: str | Path) -> CardFacts:
    """What is known of a saved model: what its training wrote, or else what the model itself tells."""
    from transformers import AutoModel, AutoProcessor

    import hf_latentrec  # noqa: F401 - registers the Auto classes

    if Path(folder, FACTS_FILE).is_file():
        return CardFacts.load(folder)
    model = AutoModel.from_pretrained(folder)
    has_processor = Path(folder, "processor_config.json").is_file()
    return describe_model(model, AutoProcessor.from_pretrained(folder) if has_processor else None)


_UNTOLD = {
    "output_dir", "run_name", "report_to", "project", "resume_from_checkpoint", "disable_tqdm", "use_cpu",
    "local_rank", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "log_level",
    "log_level_replica", "do_train", "do_eval", "do_predict", "accelerator_config", "length_column_name", "debug",
}  # fmt: skip
_UNTOLD_PREFIXES = ("hub_", "push_to_hub", "logging_", "save_", "dataloader_", "ddp_", "log_", "fsdp", "deepspeed")


def changed_settings(args: Any) -> dict[str, Any]:
    """
    Settings of a trainer that differ from the defaults of their class, without those that only say where files go,
    what is logged, and on what machine it ran.

    Example:
        >>> from hf_latentrec.trainer import LatentSFTConfig
        >>> changed_settings(LatentSFTConfig("out", learning_rate=0.01, seed=1, use_cpu=True, hub_token="secret"))
        {'learning_rate': 0.01, 'seed': 1}
    """
    # A second instance would set up the devices again; what `__post_init__` makes of a default is the same for None.
    values = args.to_dict()
    changed = {}
    for setting in fields(args):
        name = setting.name
        if not setting.init or name in _UNTOLD or name.startswith(_UNTOLD_PREFIXES):
            continue
        default = setting.default_factory() if callable(setting.default_factory) else setting.default
        default = getattr(default, "value", default)
        value = values[name]
        is_unset = default is None and (value is False or value in ({}, []))  # a 0 is set: it switches a part off
        if value != default and not is_unset:
            changed[name] = value
    return changed


def cutoffs_of(run: EvaluationRun) -> tuple[int, ...]:
    """Cutoffs of a run's metrics; items beyond the beams have no rank."""
    from ..evaluation.metrics import DEFAULT_CUTOFFS, default_cutoffs

    num_beams = run.details.get("num_beams")
    return DEFAULT_CUTOFFS if num_beams is None else default_cutoffs(num_beams)


__all__ = [
    "FACTS_FILE",
    "CardFacts",
    "DataFacts",
    "changed_settings",
    "cutoffs_of",
    "describe_model",
    "load_facts",
    "public_details",
]
