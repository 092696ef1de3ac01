"""The lines of Python that a card shows, which run as they stand."""

from __future__ import annotations

from .card_facts import ITEM_IDS, CardFacts


_WITH_PROCESSOR = """\
{first}from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained({source}).eval()
processor = AutoProcessor.from_pretrained({source})
inputs = processor([{history}])
output = model.generate(**inputs, item_trie=processor.item_trie, num_beams=20)
for item in processor.post_process_recommendations(output, top_k=10)[0]:
    print(item["item_id"], item["title"], item["score"])"""
_WITH_ITEMS = """\
{first}from transformers import AutoModel

model = AutoModel.from_pretrained({source}).eval()
for item in model.recommend([{history}], k=10)[0]:
    print(item["item_id"], item["title"], item["score"])"""

_PIPELINE = """\
import hf_latentrec  # registers the pipeline
from transformers import pipeline

recommend = pipeline("next-item-recommendation", model={source})
for item in recommend([[{history}]], top_k=10)[0]:
    print(item["item_id"], item["title"], item["score"])"""


def snippet(facts: CardFacts, location: str, remote_code: bool) -> str:
    """
    How a model is loaded and asked.

    Args:
        facts ([`CardFacts`]): of the model; its example history may hold any text.
        location (`str`): a folder, or a repository of the Hub.
        remote_code (`bool`): with the code that travels with the model, or with the library.

    Example:
        >>> print(snippet(CardFacts(kind="item_ids", example_history=["B1"]), "user/model", True).splitlines()[2])
        model = AutoModel.from_pretrained("user/model", trust_remote_code=True).eval()
    """
    template = _WITH_ITEMS if facts.kind == ITEM_IDS else _WITH_PROCESSOR
    return template.format(
        first="" if remote_code else "import hf_latentrec  # registers the Auto classes\n",
        source=literal(location) + (", trust_remote_code=True" if remote_code else ""),
        history=f"[{_literals(facts)}]",
    )


def pipeline_snippet(facts: CardFacts, location: str) -> str:
    """
    The same by a pipeline; arguments as for [`snippet`].

    Example:
        >>> print(pipeline_snippet(CardFacts(example_history=["B1"]), "user/model").splitlines()[3])
        recommend = pipeline("next-item-recommendation", model="user/model")
    """
    return _PIPELINE.format(source=literal(location), history=_literals(facts))


def _literals(facts: CardFacts) -> str:
    return ", ".join(map(literal, facts.example_history))


def literal(text: str) -> str:
    """Any text as a string in ASCII, in double quotes where it has none itself."""
    quoted = ascii(text)
    return quoted if '"' in text else f'"{quoted[1:-1]}"'


__all__ = ["pipeline_snippet", "snippet"]
