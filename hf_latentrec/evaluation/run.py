"""An evaluated model on disk: all that tables, comparisons and a report are made of, with no model at hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .ranks import RankFile, load_ranks, save_ranks
from .recommendation_files import Recommendations, load_recommendations, save_recommendations


RUN_FILE, ITEMS_FILE = "run.json", "items.parquet"
EXTRAS = ("latency", "steps", "factors", "log_history")


@dataclass(frozen=True)
class EvaluatedItems:
    """
    The catalog that was ranked.

    Args:
        item_ids (`list[str]`, length I): in catalog order.
        titles (`list[str | None]`, length I): None where an item has none.
        popularity (`np.ndarray` of `int64`, shape `[I]`): interactions of each item in training; 0 is a cold item.
    """

    item_ids: list[str]
    titles: list[str | None]
    popularity: np.ndarray


@dataclass(frozen=True)
class EvaluationRun:
    """
    What evaluating one model on one split left, a folder:

        run.json                            label and details
        items.parquet                       item_id, title, popularity
        ranks/{protocol}.parquet            user_id, user, rank, target, target_popularity, ...[, num_thoughts]
        recommendations/{protocol}.parquet  user_id, item_ids
        latency.json, steps.json, factors.json, log_history.json    where there are any

    Args:
        label (`str`): what tables call the model.
        details (`dict`): what JSON can hold: how the model and its tests came about. At least `split_fingerprint`.
        items ([`EvaluatedItems`]): the catalog.
        ranks (`dict[str, RankFile]`): by protocol.
        recommendations (`dict[str, Recommendations]`): by protocol; rows of `items`.
        latency (`list[dict]`, *optional*): one row per stage and batch size.
        steps (`dict`, *optional*): by protocol, by number of reasoning steps (as text), metrics by name, each a list
            with the value of each seed.
        factors (`dict`, *optional*): correlations and gates of a model with factors.
        log_history (`list[dict]`, *optional*): what the training logged, as in `trainer_state.json`.
    """

    label: str
    details: dict[str, Any]
    items: EvaluatedItems
    ranks: dict[str, RankFile]
    recommendations: dict[str, Recommendations] = field(default_factory=dict)
    latency: list[dict[str, Any]] | None = None
    steps: dict[str, dict[str, dict[str, list[float]]]] | None = None
    factors: dict[str, Any] | None = None
    log_history: list[dict[str, Any]] | None = None

    @property
    def split_fingerprint(self) -> str:
        """Of the split; only runs on the same one are compared."""
        return self.details["split_fingerprint"]

    def save(self, folder: str | Path) -> None:
        """Writes the folder; what it already holds of an older run is replaced."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).unlink(missing_ok=True)  # a save that is cut leaves no complete run
        items = self.items
        columns = {
            "item_id": pa.array(items.item_ids, pa.string()),
            "title": pa.array(items.titles, pa.string()),
            "popularity": items.popularity,
        }
        pq.write_table(pa.table(columns), folder / ITEMS_FILE)
        for protocol, ranks in self.ranks.items():
            save_ranks(
                _file(folder, "ranks", protocol),
                ranks.user_ids,
                ranks.ranks,
                num_thoughts=ranks.num_thoughts,
                columns=ranks.columns,
                **ranks.metadata,
            )
        for protocol, recommendations in self.recommendations.items():
            save_recommendations(_file(folder, "recommendations", protocol), recommendations, items.item_ids)
        for name in EXTRAS:
            path, value = folder / f"{name}.json", getattr(self, name)
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_text(json.dumps(value, indent=1))
        protocols = {"ranks": list(self.ranks), "recommendations": list(self.recommendations)}
        written_last = {"label": self.label, "protocols": protocols, "details": self.details}
        (folder / RUN_FILE).write_text(json.dumps(written_last, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> EvaluationRun:
        """
        Reads what [`EvaluationRun.save`] wrote.

        Raises:
            ValueError: the folder is not that of a complete run, or its files do not belong together.
        """
        folder = Path(folder)
        if not (folder / RUN_FILE).is_file():
            raise ValueError(f"{folder} holds no {RUN_FILE}, so it is no complete evaluation; run recipes/evaluate.py")
        described = json.loads((folder / RUN_FILE).read_text())
        protocols, details = described["protocols"], described["details"]
        table = pq.read_table(folder / ITEMS_FILE)
        items = EvaluatedItems(
            table["item_id"].to_pylist(), table["title"].to_pylist(), table["popularity"].to_numpy()
        )
        ranks = {protocol: load_ranks(_file(folder, "ranks", protocol)) for protocol in protocols["ranks"]}
        for protocol, file in ranks.items():
            found = file.metadata["split_fingerprint"]
            if found != details["split_fingerprint"]:
                raise ValueError(
                    f"{_file(folder, 'ranks', protocol)} is of split {found}, but {RUN_FILE} names "
                    f"{details['split_fingerprint']}; the folder is mixed of two runs, evaluate again"
                )
        recommendations = {
            protocol: load_recommendations(_file(folder, "recommendations", protocol), items.item_ids)
            for protocol in protocols["recommendations"]
        }
        return cls(
            described["label"],
            details,
            items,
            ranks,
            recommendations,
            **{name: _read(folder, name) for name in EXTRAS},
        )


def run_files(protocols: Iterable[str]) -> list[Path]:
    """What [`EvaluationRun.save`] writes or deletes in a folder, beside `run.json`."""
    kinds = [_file(Path(), kind, protocol) for kind in ("ranks", "recommendations") for protocol in protocols]
    return [Path(ITEMS_FILE), *(Path(f"{name}.json") for name in EXTRAS), *kinds]


def _file(folder: Path, kind: str, protocol: str) -> Path:
    return folder / kind / f"{protocol.replace(' ', '_')}.parquet"


def _read(folder: Path, name: str) -> Any:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


__all__ = ["EvaluatedItems", "EvaluationRun", "run_files"]
