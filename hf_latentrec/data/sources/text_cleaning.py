"""Text of web pages -> plain text."""

from __future__ import annotations

import html
import re
from html.entities import html5

import polars as pl


# Entities end with ';'. Browsers also read some without (`&LT`), but that would make `AT<D` of the company AT&LTD.
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
MAX_ENCODINGS = 4  # `&amp;amp;amp;lt;` has been encoded four times

# Only what HTML knows, bare or with attributes: `a <b and c> d`, `<3` and `<Untitled>` are text.
_WITHIN = "a abbr acronym b bdi bdo big cite code em font i ins kbd mark q s small span strike strong sub sup tt u var"
_BETWEEN = (
    "address area article aside audio blockquote body br button caption center col colgroup dd del details "
    "dir div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html "
    "iframe img input label legend li link main map menu meta nav noscript object ol optgroup option p param picture "
    "pre script section select source style summary svg table tbody td textarea tfoot th thead title tr ul video wbr"
)
_TAG = r"(?i)</?(?:{})(?:\s+[a-z][\w:-]*\s*=[^<>]*|\s+/|/)?\s*>"
TAG_WITHIN_TEXT = _TAG.format("|".join(_WITHIN.split()))
TAG_BETWEEN_TEXT = _TAG.format("|".join(_BETWEEN.split()))
NO_TEXT = r"(?is)<!--.*?-->|<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>"

# Invisible characters: controls that are no white space, soft hyphens, zero-width spaces, direction marks.
INVISIBLE = r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u{ad}\u{200b}\u{200e}\u{200f}\u{202a}-\u{202e}\u{2060}\u{feff}]"


def clean_text(text: pl.Expr) -> pl.Expr:
    """
    Plain text: without HTML tags, entities, control characters and repeated white space; null stays null.

    Entities are decoded first, repeatedly where they were encoded more than once (`&amp;amp;`), so that encoded tags
    go, too. Tags within text (`<b>`, `<span ...>`) leave nothing, others (`<br>`, `<p>`) and what is no text
    (comments, scripts) a blank.

    Args:
        text (`polars.Expr`):
            Text (str). For a list of texts: `pl.col("categories").list.eval(clean_text(pl.element()))`.

    Returns:
        `polars.Expr`: The text (str).

    Example:

    ```python
    >>> import polars as pl
    >>> from hf_latentrec.data.sources.text_cleaning import clean_text
    >>> titles = pl.DataFrame({"title": ["R&amp;amp;B <b>Hits</b><br/>  Vol.&nbsp;2\\t", "AT&T <3"]})
    >>> titles.select(clean_text(pl.col("title")))["title"].to_list()
    ['R&B Hits Vol. 2', 'AT&T <3']

    ```
    """
    text = text.map_batches(_decode_entities, return_dtype=pl.String, is_elementwise=True)
    text = text.str.replace_all(NO_TEXT, " ")
    text = text.str.replace_all(TAG_WITHIN_TEXT, "").str.replace_all(TAG_BETWEEN_TEXT, " ")
    return text.str.replace_all(INVISIBLE, "").str.replace_all(r"\s+", " ").str.strip_chars()


def _decode_entities(text: pl.Series) -> pl.Series:
    encoded = text.filter(text.str.contains(ENTITY.pattern)).unique()
    return text.replace(encoded, pl.Series([_decode(value) for value in encoded], dtype=pl.String))


def _decode(text: str) -> str:
    for _ in range(MAX_ENCODINGS):
        text, before = ENTITY.sub(_character, text), text
        if text == before:
            break
    return text


def _character(entity: re.Match) -> str:
    text = entity[0]
    return html.unescape(text) if text[1] == "#" else html5.get(text[1:], text)


__all__ = ["clean_text"]
