"""Item text -> embeddings -> semantic IDs, with collisions resolved, versions, and a quality report.

The report is in `semantic_ids.quality` and `semantic_ids.quality_report`, which import the evaluation's pages.
"""

from __future__ import annotations

from .building import add_items, build_semantic_ids
from .collisions import count_collisions, resolve_collisions
from .embedding_files import load_embeddings
from .embeddings import embed_texts
from .item_text import item_texts, report_texts
from .residual_kmeans import ResidualKMeans
from .semantic_ids import SemanticIds


__all__ = [
    "ResidualKMeans",
    "SemanticIds",
    "add_items",
    "build_semantic_ids",
    "count_collisions",
    "embed_texts",
    "item_texts",
    "load_embeddings",
    "report_texts",
    "resolve_collisions",
]
