"""Two models on the same users: what differs, and whether it is more than chance.

Shapes: U users.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .metrics import metric_values, split_metric
from .ranks import USER_COLUMN, RankFile
from .significance import (
    bootstrap_interval,
    correct_p_values,
    differences_of_users,
    paired_t_test,
    wilcoxon_test,
)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricComparison:
    """
    One metric of models A and B.

    Args:
        metric (`str`): such as `"NDCG@10"`.
        a, b (`float`): its value for each model.
        difference (`float`): B less A.
        interval (`tuple[float, float]`): bootstrap interval of the difference.
        t_test, wilcoxon (`float`): p-values of each test.
        t_test_corrected, wilcoxon_corrected (`float`): the same, corrected for all metrics of the comparison.
        num_users, num_examples (`int`): users that both ranked, and their examples.
    """

    metric: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    t_test: float
    t_test_corrected: float
    wilcoxon: float
    wilcoxon_corrected: float
    num_users: int
    num_examples: int


def compare_ranks(
    a: Mapping[str, RankFile],
    b: Mapping[str, RankFile],
    metrics: Sequence[str] = ("HR@5", "NDCG@5", "HR@10", "NDCG@10"),
    correction: str = "holm",
    num_samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[MetricComparison]:
    """
    Tests, user by user, whether B's metrics differ from A's.

    A model that was trained with several seeds has several rank files; a user's value is then the mean over them. The
    tests tell whether these trained models differ on other users of the kind, not whether other seeds would. A user
    with several examples counts once (see [`differences_of_users`]), where the files tell whose each is, in `user`.

    Args:
        a, b (`Mapping[str, RankFile]`): rank files of each model, one per seed, by the name that errors call them.
        metrics (`Sequence[str]`, *optional*): what to compare, such as `"NDCG@10"` or `"MRR"`.
        correction (`str`, *optional*, defaults to `"holm"`): for several metrics, see [`correct_p_values`].
        num_samples (`int`, *optional*, defaults to 10,000): resamples of the bootstrap.
        confidence (`float`, *optional*, defaults to 0.95): of the interval.
        seed (`int`, *optional*, defaults to 0): of the bootstrap.

    Returns:
        `list[MetricComparison]`: in the order of `metrics`.

    Raises:
        ValueError: files of different splits, protocols or users; a metric that is unknown, or that looks at more
            ranks than one of the models has; or what the tests raise.

    Example:
        >>> about = {"split_fingerprint": "s1", "protocol": "nothing filtered", "num_beams": None}
        >>> a = RankFile(["u1", "u2", "u3"], np.array([1, 3, 0]), about)
        >>> b = RankFile(["u3", "u2", "u1"], np.array([2, 1, 1]), about)
        >>> (found,) = compare_ranks({"A": a}, {"B": b}, metrics=["HR@10"])
        >>> round(found.a, 2), round(found.b, 2), round(found.t_test, 2)
        (0.67, 1.0, 0.42)
    """
    if len(metrics) == 0 or len(set(metrics)) < len(metrics):
        raise ValueError(f"compare_ranks: metrics={list(metrics)}; name one at least, and each once")
    files = _named_apart(a, b)
    check_comparable(files)
    for metric in metrics:
        _check_depth(metric, files)
    first = next(iter(a.values()))
    users, owners = first.user_ids, first.columns.get(USER_COLUMN)
    values = {metric: (_mean_values(a, users, metric), _mean_values(b, users, metric)) for metric in metrics}
    # What is equal but for the rounding of a mean over seeds is no difference: Wilcoxon ranks any sign.
    differences = {
        metric: np.round(differences_of_users(b_U - a_U, owners), 12) for metric, (a_U, b_U) in values.items()
    }
    t_tests = {metric: paired_t_test(difference_U) for metric, difference_U in differences.items()}
    wilcoxons = {metric: wilcoxon_test(difference_U) for metric, difference_U in differences.items()}
    t_tests_corrected = dict(zip(metrics, correct_p_values(list(t_tests.values()), correction), strict=True))
    wilcoxons_corrected = dict(zip(metrics, correct_p_values(list(wilcoxons.values()), correction), strict=True))
    return [
        MetricComparison(
            metric,
            a=float(a_U.mean()),
            b=float(b_U.mean()),
            difference=float(b_U.mean() - a_U.mean()),
            interval=bootstrap_interval(differences[metric], num_samples, confidence, seed),
            t_test=t_tests[metric],
            t_test_corrected=t_tests_corrected[metric],
            wilcoxon=wilcoxons[metric],
            wilcoxon_corrected=wilcoxons_corrected[metric],
            num_users=len(differences[metric]),
            num_examples=len(users),
        )
        for metric, (a_U, b_U) in values.items()
    ]


def check_comparable(files: Mapping[str, RankFile]) -> None:
    """
    Raise where rank files are not of the same split, protocol, kind of match and users.

    The fingerprint of a split covers its training examples, too, which models may cut into windows differently. So
    where both files have an `examples_fingerprint`, of what was tested alone, that counts.

    Args:
        files (`Mapping[str, RankFile]`): two or more, by the name that errors call them.

    Raises:
        ValueError: naming both files and what differs.

    Example:
        >>> about = {"split_fingerprint": "s1", "protocol": "nothing filtered", "num_beams": None}
        >>> a, b = RankFile(["u1"], np.array([1]), about), RankFile(["u1"], np.array([2]), about)
        >>> check_comparable({"A": a, "B": b})
    """
    (first_name, first), *others = files.items()
    for name, file in others:
        told = all("examples_fingerprint" in ranks.metadata for ranks in (first, file))
        fingerprint = "examples_fingerprint" if told else "split_fingerprint"
        for what, default, remedy in (
            (fingerprint, None, "ranks on different splits cannot be compared; evaluate both on the same one"),
            ("protocol", None, "compare ranks of the same protocol"),
            ("match", "item", "a hit must mean the same for both; evaluate both with the same match"),
        ):
            expected, found = (ranks.metadata.get(what, default) for ranks in (first, file))
            if found != expected:
                raise ValueError(f"{first_name} has {what} {expected!r}, but {name} has {found!r}; {remedy}")
        missing, others_only = _lacking(file.user_ids, first.user_ids), _lacking(first.user_ids, file.user_ids)
        if missing or others_only:
            raise ValueError(
                f"{name} lacks {_some(missing)} of the {len(first.user_ids):,} users of {first_name} and has "
                f"{_some(others_only)} that {first_name} lacks; a paired test needs the same users, so evaluate both "
                "on all"
            )


def _named_apart(a: Mapping[str, RankFile], b: Mapping[str, RankFile]) -> dict[str, RankFile]:
    """Of both models; a file of the same name in both, as when a run is compared with itself, needs no second look."""
    if not a or not b:
        raise ValueError(f"compare_ranks: {len(a)} rank files of A and {len(b)} of B; give one of each at least")
    return {**a, **{name if name not in a else f"{name} (B)": file for name, file in b.items()}}


def _check_depth(metric: str, files: Mapping[str, RankFile]) -> None:
    """A target beyond the beams has no rank, so at deeper cutoffs fewer beams look like a worse model."""
    _, k = split_metric(metric)
    beams = {name: file.metadata.get("num_beams") for name, file in files.items()}
    short = {name: count for name, count in beams.items() if count is not None and (k is None or k > count)}
    if not short:
        return
    name, count = min(short.items(), key=lambda item: item[1])
    if len(set(beams.values())) > 1:
        raise ValueError(
            f"{metric} looks beyond the {count} items per user that {name} ranked, and not all models ranked as many "
            f"({beams}); lower the cutoff, or evaluate with the same num_beams"
        )
    if k is not None:
        logger.warning("All models ranked %d items per user; %s counts no more", count, metric)


def _mean_values(files: Mapping[str, RankFile], users: list[str], metric: str) -> np.ndarray:
    """Each user's value, the mean over files, in the order of `users`; shape [U]."""
    values = []
    for file in files.values():
        rows = pc.index_in(pa.array(users, pa.string()), pa.array(file.user_ids, pa.string())).to_numpy()
        values.append(metric_values(file.ranks, metric)[rows])
    return np.mean(values, axis=0)


def _lacking(have: list[str], want: list[str]) -> list[str]:
    """Those wanted that there are not, in order."""
    wanted = pa.array(want, pa.string())
    return wanted.filter(pc.invert(pc.is_in(wanted, pa.array(have, pa.string())))).to_pylist()


def _some(users: list[str]) -> str:
    examples = ", ".join(map(repr, users[:3]))
    return f"{len(users):,} ({examples}{', ...' if len(users) > 3 else ''})" if users else "none"


__all__ = ["MetricComparison", "check_comparable", "compare_ranks"]
