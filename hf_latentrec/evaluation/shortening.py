"""Titles that fit where they are shown."""

from __future__ import annotations

import unicodedata

import numpy as np


def shorten(title: str, width: int) -> str:
    """
    A title on one line, cut to a width in letters; letters of East Asian scripts count twice, as wide as they are.

    Example:
        >>> shorten("A rather  long title", 10), shorten("Soap", 10)
        ('A rather…', 'Soap')
    """
    title = "".join(letter if letter.isprintable() else " " for letter in title)
    title = " ".join(title.split())
    widths = np.cumsum([2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in title])
    if len(widths) == 0 or widths[-1] <= width:
        return title
    return title[: int((widths < width).sum())].rstrip(" ,;-") + "…"


__all__ = ["shorten"]
