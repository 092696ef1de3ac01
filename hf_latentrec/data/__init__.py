"""Interactions -> examples -> batches: loading, filtering, splitting, packing, a synthetic data set, collators.

Only the collators need torch, and nothing here needs a model.
"""

from __future__ import annotations

from .collators import NextItemCollator, PackedHistoryCollator
from .filtering import k_core, min_rating
from .loading import load_data, load_events, load_indexed_json, load_recbole, load_sequences
from .packing import pack_examples
from .schema import RecData
from .sequence_collator import NumberedCollator, SequenceCollator, same_target_view
from .sequences import SequenceDataset, training_popularity
from .splitting import split_fingerprint, split_leave_one_out, split_published, split_temporal
from .synthetic import make_synthetic
from .validation import validate


__all__ = [
    "NextItemCollator",
    "NumberedCollator",
    "PackedHistoryCollator",
    "RecData",
    "SequenceCollator",
    "SequenceDataset",
    "k_core",
    "load_data",
    "load_events",
    "load_indexed_json",
    "load_recbole",
    "load_sequences",
    "make_synthetic",
    "min_rating",
    "pack_examples",
    "same_target_view",
    "split_fingerprint",
    "split_leave_one_out",
    "split_published",
    "split_temporal",
    "training_popularity",
    "validate",
]
