"""The figures of a catalog's semantic IDs as rows of text, for a page and for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.shortening import shorten
from .quality import IdQuality
from .quality_categories import CategoryQuality
from .quality_codes import BigPrefix


NOTHING = "–"
TITLE_WIDTH = 90  # letters of an example


@dataclass(frozen=True)
class Rows:
    """
    A table.

    Args:
        caption (`str`): what it shows.
        header (`list[str]`): of all columns.
        rows (`list[list[str]]`): cells; the first of a row is its name.
        notes (`list[str]`): what to know of it.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def collision_rows(quality: IdQuality) -> Rows:
    """Items that share their code, before and after the policy."""
    measured = {"before the policy": quality.before, "codes as they are": quality.after}
    rows = [
        [name, f"{found.num_colliding:,}", f"{found.rate:.2%}", f"{found.num_codes:,}", f"{found.biggest:,}"]
        for name, found in measured.items()
        if found is not None
    ]
    header = ["", "items that share their code", "of all items", "different codes", "most items of a code"]
    return Rows("Collisions", header, rows)


def use_rows(quality: IdQuality) -> Rows:
    """How each level uses its codebook."""
    rows = [
        [
            level.name,
            f"{level.size:,}",
            f"{level.used:,}",
            f"{level.used / level.reachable:.1%}",
            f"{level.entropy:.2f}",
            f"{level.entropy / level.max_entropy:.1%}" if level.max_entropy else NOTHING,
            f"{level.perplexity:.1f}",
            f"{level.counts[0]:,}",
        ]
        for level in quality.levels
    ]
    header = [
        "level",
        "codes",
        "used",
        "share used",
        "entropy (bits)",
        "of the most",
        "perplexity",
        "most items of a code",
    ]
    notes = []
    if not quality.sizes_are_known:
        notes.append("Sizes of the codebooks are not known: the largest numbers found, plus one.")
    if any(level.reachable < level.size for level in quality.levels):
        notes.append("There are fewer items than codes; shares are of the codes that could be in use.")
    if quality.has_extra_level:
        notes.append(
            f"One more level, with {quality.level_sizes[-1]:,} codes, only tells items apart that share all others."
        )
    return Rows("Use of the codes by level", header, rows, tuple(notes))


def error_rows(quality: IdQuality) -> Rows:
    """What is left of the embeddings after each level."""
    rows = [[str(e.length), f"{e.mean_squared:.4g}", f"{e.relative:.4f}"] for e in quality.errors]
    header = ["codes added up", "mean squared error", "over the variance"]
    if quality.errors_before not in ((), quality.errors):
        header.append("over it before the policy")
        for row, before in zip(rows, quality.errors_before, strict=True):
            row.append(f"{before.relative:.4f}")
    return Rows("Reconstruction of the embeddings", header, rows)


def category_rows(categories: CategoryQuality) -> Rows:
    """How often items that share a prefix share a category."""
    rows = []
    baseline = categories.agreements[0].share if categories.agreements else 0.0
    for found in categories.agreements:
        error = f" ± {found.standard_error:.2%}" if found.standard_error else ""
        times = f"{found.share / baseline:,.1f}" if baseline else NOTHING
        rows.append(
            [
                prefix_name(found.length),
                f"{found.num_pairs:,}",
                f"{found.num_judged:,}",
                f"{found.share:.2%}{error}",
                times,
            ]
        )
    notes = [
        f"{categories.num_items:,} items have one of {categories.num_categories:,} to judge by. ± is the standard "
        "error of a sample; without it, all pairs were judged."
    ]
    if categories.left_out:
        notes.append(f"Left out, because more than half of the items have them: {', '.join(categories.left_out)}.")
    header = ["codes in common", "pairs", "judged", "same", "× any two items"]
    return Rows(f"Pairs with the same {categories.column}", header, rows, tuple(notes))


def co_purchase_rows(quality: IdQuality) -> Rows:
    """How often the same users buy items that share a prefix."""
    bought = quality.co_purchases
    rows = [
        [
            prefix_name(found.length),
            f"{found.num_pairs:,}",
            f"{found.num_co_purchases:,}",
            f"{found.per_pair:.3g}",
            times(found.lift, found.relative_error),
            times(found.lift_same_popularity, found.relative_error),
        ]
        for found in bought.co_purchases
    ]
    users = f"{bought.num_users:,} of {bought.num_users_in_data:,} users, sampled"
    if bought.num_users == bought.num_users_in_data:
        users = f"{bought.num_users:,} users"
    notes = (
        f"Histories of {users}; nothing else is sampled. ± is the standard error over users. Equally popular: as many "
        "as there would be if pairs were bought in proportion to the product of their items' numbers of users.",
    )
    header = [
        "codes in common", "pairs", "co-purchases", "users per pair", "× any two items",
        "× equally popular",
    ]  # fmt: skip
    return Rows("Bought by the same users", header, rows, notes)


def prefix_rows(quality: IdQuality) -> Rows:
    """How the first codes part the catalog."""
    rows = [
        [str(found.length), f"{found.num_prefixes:,}", f"{quality.num_items / found.num_prefixes:,.1f}",
         f"{found.biggest:,}", f"{found.biggest / quality.num_items:.2%}"]
        for found in quality.prefixes
    ]  # fmt: skip
    header = ["length", "prefixes in use", "items on average", "items of the biggest", "of all items"]
    return Rows("Sizes of prefixes", header, rows)


def biggest_rows(prefixes: Sequence[BigPrefix], length: int) -> Rows:
    """The biggest prefixes of a length with example titles."""
    rows = [
        [
            "".join(found.tokens),
            f"{found.num_items:,}",
            f"{found.share:.2%}",
            " · ".join(shorten(title, TITLE_WIDTH) for title in found.titles),
        ]
        for found in prefixes
    ]
    return Rows(f"Biggest prefixes of {prefix_name(length)}", ["prefix", "items", "of all items", "examples"], rows)


def prefix_name(length: int) -> str:
    """
    Example:
        >>> prefix_name(0), prefix_name(1), prefix_name(2)
        ('any two items', '1 code', '2 codes')
    """
    return f"{length} code{'s' * (length > 1)}" if length else "any two items"


def times(lift: float, relative_error: float) -> str:
    """
    Example:
        >>> times(5.6855, 0.028), times(1539.0, 0.064), times(float("nan"), 0.1)
        ('5.69 ± 0.16', '1,539 ± 98', '–')
    """
    if lift != lift:
        return NOTHING
    digits = 0 if lift >= 100 else 1 if lift >= 10 else 2
    error = f" ± {lift * relative_error:,.{digits}f}" if relative_error == relative_error and relative_error else ""
    return f"{lift:,.{digits}f}{error}"


__all__ = [
    "Rows",
    "biggest_rows",
    "category_rows",
    "co_purchase_rows",
    "collision_rows",
    "error_rows",
    "prefix_name",
    "prefix_rows",
    "use_rows",
]
