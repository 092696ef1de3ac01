"""What the demo does, without its page: functions from what a visitor chose to what is shown."""

from __future__ import annotations

import html
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import pipeline

from hf_latentrec.evaluation import explain


if TYPE_CHECKING:
    from PIL.Image import Image

    from hf_latentrec import NextItemRecommendationPipeline


MAX_MATCHES = 12
MAX_STEPS = 12
OWN_DEPTH = "the model's own"
PICTURES = ("attention", "correlation", "gates")


class Depth(NamedTuple):
    """How deep a visitor may let the model think: an option of the pipeline, its values, and the first choice."""

    option: str
    label: str
    values: list[int | str]
    default: int | str


class Answer(NamedTuple):
    """What is shown for a history: a table, a sentence, and a picture (or None) for each name of `PICTURES`."""

    table: str
    thoughts: str
    pictures: dict[str, Image | None]


@dataclass(frozen=True)
class DemoModel:
    """
    A recommender with what the page needs to know of it.

    Args:
        recommend (`NextItemRecommendationPipeline`): of the model.
        labels (`dict[str, str]`): what an item is called, by its id: the title, or the id where there is none.
    """

    recommend: NextItemRecommendationPipeline
    labels: dict[str, str] = field(repr=False)

    @classmethod
    def load(cls, model: str, **kwargs: Any) -> DemoModel:
        """The model of a folder or a Hub repository; `kwargs` are those of `pipeline`."""
        return cls.of(pipeline("next-item-recommendation", model=model, **kwargs))

    @classmethod
    def of(cls, recommend: NextItemRecommendationPipeline) -> DemoModel:
        """The model of a pipeline."""
        catalog = recommend.catalog
        names = zip(catalog.item_ids, catalog.titles, strict=True)
        return cls(recommend, {item_id: one_line(title) or item_id for item_id, title in names})

    @cached_property
    def search_texts(self) -> list[tuple[str, str]]:
        """Title and id of every item as it is searched, and its id."""
        return [(f"{label}\n{item_id}".casefold(), item_id) for item_id, label in self.labels.items()]

    @property
    def is_llm(self) -> bool:
        return not self.recommend.recommends_itself

    @property
    def depth(self) -> Depth | None:
        """What there is to choose; None where the depth is fixed."""
        config = self.recommend.model.config
        if self.is_llm and config.num_thoughts > 0:
            return Depth("num_thoughts", "Thoughts", [OWN_DEPTH, *range(config.num_thoughts + 1)], OWN_DEPTH)
        if config.model_type == "lares":
            steps = list(range(1, max(MAX_STEPS, config.mean_steps) + 1))
            return Depth("num_steps", "Reasoning steps", steps, config.mean_steps)
        return None


# The history, a list of item ids, oldest first


def search(model: DemoModel, query: str, limit: int = MAX_MATCHES) -> list[str]:
    """Ids of the first items whose title or id has every word of a query; the first of all for an empty one."""
    words = query.casefold().split()
    found = (item_id for text, item_id in model.search_texts if all(word in text for word in words))
    return list(islice(found, limit))


def choice(model: DemoModel, item_id: str) -> str:
    """How an item is listed: its title and its id."""
    label = model.labels[item_id]
    return label if label == item_id else f"{label}  ·  {item_id}"


def remove(history: list[str], place: int | None) -> list[str]:
    """The history without the item of a place."""
    return history if place is None else history[:place] + history[place + 1 :]


def move(history: list[str], place: int | None, by: int) -> tuple[list[str], int | None]:
    """The history with the item of a place moved, as far as it can be, and where that is now."""
    if place is None:
        return history, place
    rest, target = remove(history, place), min(max(place + by, 0), len(history) - 1)
    return [*rest[:target], history[place], *rest[target:]], target


# The answer


def answer(
    model: DemoModel, history: list[str], top_k: int = 10, exclude_seen: bool = False, depth: int | str | None = None
) -> Answer:
    """
    Recommendations for a history, and what the model thought.

    Args:
        model (`DemoModel`): the recommender.
        history (`list[str]`): item ids, oldest first.
        top_k (`int`, *optional*, defaults to 10): items; as many as there are where that is more.
        exclude_seen (`bool`, *optional*, defaults to `False`): leave out the history's items.
        depth (`int` or `str`, *optional*): one of the values of `model.depth`, its default if not given.
    """
    if not history:
        return Answer("", "Add an item to the history first.", dict.fromkeys(PICTURES))
    options = {"top_k": min(top_k, len(model.labels)), "exclude_seen": exclude_seen}
    if model.depth is not None:
        depth = model.depth.default if depth is None else depth
        if depth != OWN_DEPTH:
            options[model.depth.option] = depth
    items = model.recommend(history, **options)
    steps = None
    if model.depth is not None and not model.is_llm:
        steps = ranks_by_step(model, history, [item["item_id"] for item in items], depth, exclude_seen)
    pictures = draw(model, history) if model.depth is not None and model.is_llm and depth != 0 else {}
    return Answer(
        recommendation_table(model, items, steps),
        thoughts_of(model, history, depth),
        {name: pictures.get(name) for name in PICTURES},
    )


@torch.inference_mode()
def thoughts_of(model: DemoModel, history: list[str], depth: int | str | None) -> str:
    """A few sentences on how deep the model thought about a history, as plain text."""
    recommend, config = model.recommend, model.recommend.model.config
    read = recommend.processor.max_history if model.is_llm else config.max_history
    cut = f" It reads the newest {read} of the {len(history)} items." if len(history) > read else ""
    if model.depth is None:
        return f"This model answers in one pass, without thoughts.{cut}"
    if not model.is_llm:
        return f"The model took {_counted(depth, 'reasoning step')}; every item shows its rank after each.{cut}"
    own = int(recommend.model(**recommend.processor([history]).to(recommend.model.device)).num_thoughts[0])
    if depth == 0:
        return f"The model answered without thinking; by itself it thinks {_times(own)}.{cut}"
    if config.reasoner_config.adaptive_depth:
        chosen = f"chose to think {_times(own)}, out of 1 to {config.num_thoughts}"
    else:
        chosen = f"thinks {_times(own)}"
    if config.reasoner_config.refines_in_place:
        factors, passes = config.reasoner_config.num_factors, config.reasoner_config.num_iterations
        chosen += f", with {_counted(factors, 'factor')} and {_counted(passes, 'pass', 'passes')}"
    if depth in (OWN_DEPTH, own):
        return f"The model {chosen}.{cut}"
    return f"The model thought {_times(depth)}, as you asked. By itself it {chosen}, which the picture shows.{cut}"


@torch.inference_mode()
def ranks_by_step(
    model: DemoModel, history: list[str], item_ids: list[str], num_steps: int, exclude_seen: bool
) -> list[list[int]]:
    """LARES: the rank of items if the model had stopped after step 1, 2, ...: a list of `num_steps` for each item."""
    lares, items = model.recommend.model, model.recommend.catalog
    states_KD = lares.step_states([history], num_steps)[:, 0]
    scores_KI = lares.score(states_KD).float()
    if not lares.scores_cold_items:
        scores_KI[:, torch.from_numpy(items.is_cold)] = -torch.inf
    if exclude_seen:
        scores_KI[:, torch.from_numpy(items.rows(history))] = -torch.inf
    rows_T = torch.from_numpy(items.rows(item_ids))
    ranks_KT = 1 + (scores_KI[:, None, :] > scores_KI[:, rows_T, None]).sum(-1)
    return ranks_KT.T.tolist()


def draw(model: DemoModel, history: list[str]) -> dict[str, Image]:
    """Pictures of an LLM recommender's thoughts about a history, by name."""
    from PIL import Image

    from hf_latentrec.evaluation.plots import save_plots

    explanation = explain(model.recommend.model, model.recommend.processor, history)
    with tempfile.TemporaryDirectory() as folder:
        pictures = {path.stem: Image.open(path).convert("RGB") for path in save_plots(explanation, Path(folder))}
    return {name: pictures[name] for name in PICTURES if name in pictures}


def recommendation_table(model: DemoModel, items: list[dict[str, Any]], steps: list[list[int]] | None = None) -> str:
    """Items as an HTML table; what comes from the catalog can only be text in it."""
    if not items:
        return "<p>Nothing is left to recommend.</p>"
    heads = ["#", "Item", "Score"] + (["Rank by step"] if steps else [])
    lines = ["<table><tr>", *(f"<th>{head}</th>" for head in heads), "</tr>"]
    for place, item in enumerate(items):
        label = model.labels[item["item_id"]]
        code = "" if label == item["item_id"] else f"<small>{as_text(item['item_id'])}</small>"
        lines.append(f"<tr><td>{place + 1}</td><td>{as_text(label)}{code}</td><td>{item['score']:.3f}</td>")
        lines.append(f"<td>{' → '.join(map(str, steps[place]))}</td>" if steps else "")
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def as_text(text: str) -> str:
    """Text for a page whose templates also give a meaning to braces, dollars, backticks and at signs."""
    escaped = html.escape(text)
    return "".join(f"&#{ord(letter)};" if letter in "{}$`@" else letter for letter in escaped)


def one_line(title: str | None) -> str:
    """A title without line breaks and what else cannot be seen."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in title or "").split())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
