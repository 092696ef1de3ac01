"""What a teacher is asked, and what is taken for an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .sentences import split_sentences


INSTRUCTION = """\
You explain purchases. You see what a customer bought, oldest first, and what they bought next. Write the reasoning \
that leads from the history to that item, as if you did not know it yet, in five short steps:
Step 1: Extraction of Behavioral Evidence. What kinds of products, brands and concerns recur.
Step 2: Modeling of Latent Preferences. What the customer cares about beyond the single items.
Step 3: Inference of User Intent. What they are after now.
Step 4: Recommendation. The item, named as it is given.
Step 5: Denoised Sequence. The items of the history that matter for it, in order; leave this step out where all do.
One to three plain sentences per step, no introduction, no closing words. A simple history needs few sentences, a \
varied one more. Write codes like <a_12><b_7> exactly as they are given."""

_THINKING = re.compile(r"^.*?</think>", re.DOTALL)  # its opening may have stood in the prompt
MIN_LETTERS = 0.5  # share of letters among what is no space, codes left out
MIN_DISTINCT = 0.2  # share of different words; less is a loop


def build_messages(history: Sequence[str], target: str) -> list[dict[str, str]]:
    """
    The chat that asks for one example's reasoning.

    Args:
        history (`list[str]`): names of the items, oldest first.
        target (`str`): name of the item that came next.

    Returns:
        `list[dict]`: messages in the chat format of OpenAI.
    """
    items = "\n".join(f"{place}. {name}" for place, name in enumerate(history, start=1))
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": f"History:\n{items}\nNext item: {target}"},
    ]


def read_answer(content: str | None, finish_reason: str | None) -> tuple[str, str | None]:
    """
    The text of an answer, and why it is of no use.

    Args:
        content (`str`, *optional*): what the teacher wrote. Thinking before it, up to `</think>`, is left out.
        finish_reason (`str`, *optional*): `"length"` where it was cut at the largest number of tokens.

    Returns:
        `tuple[str, str | None]`: the text; the reason to reject it (`"empty"`, `"endless"`: cut before its end,
        `"garbage"`: fewer than two sentences, few letters, or a few words over and over), or None.

    Example:
        >>> read_answer("<think>Hm.</think>Step 1: Evidence. Lamps.\\nStep 2: A lamp for a desk.", "stop")
        ('Step 1: Evidence. Lamps.\\nStep 2: A lamp for a desk.', None)
        >>> read_answer("### 0 ###", "stop")
        ('### 0 ###', 'garbage')
    """
    text = _THINKING.sub("", content or "").strip()
    if not text:
        return text, "endless" if finish_reason == "length" else "empty"
    if finish_reason == "length":
        return text, "endless"
    return text, "garbage" if _is_garbage(text) else None


def _is_garbage(text: str) -> bool:
    plain = re.sub(r"<\w+>", " ", text)
    words = plain.lower().split()
    visible = "".join(words)
    if len(split_sentences(text)) < 2 or not visible:
        return True
    letters = sum(letter.isalpha() for letter in visible)
    return letters < MIN_LETTERS * len(visible) or len(set(words)) < MIN_DISTINCT * len(words)


__all__ = ["build_messages", "read_answer"]
