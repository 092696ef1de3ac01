"""A plain sentence splitter: rules, no model."""

from __future__ import annotations

import re


# Words whose full stop ends no sentence. Units and "etc." are not among them: before a capital they mostly do end one.
ABBREVIATIONS = frozenset(
    "approx cf co corp dept dr est ex fig fl inc incl jr ltd mr mrs ms no nos prof sr st vs".split()
)
_END = re.compile(r"(?<=[.!?])[\"')\]”’]*\s+(?=[\"'(\[“‘]?[A-Z0-9<])")
_LAST_WORD = re.compile(r"(?:^|([\s(.]))(\w+)\.[\"')\]”’]*$")
_DECORATION = re.compile(r"^[\s#>•*\-–]+|\*\*")
_LIST_NUMBER = re.compile(r"^\(?\d{1,2}[.)]$")
_STEP = re.compile(r"^(step|stage)\s*\d+\b", re.IGNORECASE)
_MAX_HEADING_WORDS = 10


def split_sentences(text: str) -> list[str]:
    """
    Sentences of a text.

    A sentence ends at `.`, `!` or `?` before a capital, a digit or a code, but not after an abbreviation, an initial
    or the number of a list item; decimals are never cut. A line break ends it too, unless the next line goes on in
    lower case (hard-wrapped text). A heading (`Step 1: ...`, `## ...`, `**...**`, `...:` on a line of its own) opens
    the sentence that follows it. Markdown's marks for headings, lists and bold are removed.

    Args:
        text (`str`): any text.

    Returns:
        `list[str]`: sentences, none of them blank.

    Example:
        >>> split_sentences("Step 1: Evidence\\nBuys 1.5 oz. jars, e.g. Dr. Kim's. Likes <a_1><b_2>! Next:\\na lamp.")
        ["Step 1: Evidence Buys 1.5 oz. jars, e.g. Dr. Kim's.", 'Likes <a_1><b_2>!', 'Next: a lamp.']
    """
    sentences: list[str] = []
    heading = ""
    for line in _lines(text):
        plain = " ".join(_DECORATION.sub("", line).split())
        if not plain:
            continue
        if _is_heading(line, plain):
            heading = f"{heading} {plain}".strip()
            continue
        first, *others = _split_line(plain)
        sentences += [f"{heading} {first}".strip(), *others]
        heading = ""
    if heading:  # with nothing after it
        sentences[-1:] = [" ".join([*sentences[-1:], heading])]
    return sentences


def _lines(text: str) -> list[str]:
    """Lines, with the wrapped ones joined: those that go on in lower case after a line that ends no sentence."""
    lines: list[str] = []
    for line in text.splitlines():
        goes_on = line[:1].islower() and lines and lines[-1].strip() and lines[-1].rstrip()[-1] not in ".!?"
        if goes_on:
            lines[-1] = f"{lines[-1]} {line}"
        else:
            lines.append(line)
    return lines


def _is_heading(line: str, plain: str) -> bool:
    if len(plain.split()) > _MAX_HEADING_WORDS or plain[-1] in ".!?" or plain.endswith(">"):
        return False
    stripped = line.strip()
    bold = stripped.startswith("**") and stripped.endswith("**")
    return bold or stripped.startswith("#") or plain.endswith(":") or _STEP.match(plain) is not None


def _split_line(line: str) -> list[str]:
    parts, start = [], 0
    for end in _END.finditer(line):
        part = line[start : end.start()]
        if not _is_open(part):
            parts.append(line[start : end.end()].strip())
            start = end.end()
    return [*parts, line[start:].strip()]


def _is_open(part: str) -> bool:
    """Whether a full stop at the end of this is one of an abbreviation, an initial or a list number."""
    if _LIST_NUMBER.match(part):
        return True
    match = _LAST_WORD.search(part)
    if match is None:
        return False
    before, word = match.groups()
    # "e.g." and "J. Smith", but not the "C." of "vitamin C."
    is_initial = len(word) == 1 and word.isalpha() and before in (None, ".")
    return is_initial or word.lower() in ABBREVIATIONS


__all__ = ["split_sentences"]
