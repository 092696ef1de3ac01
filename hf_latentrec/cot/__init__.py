"""A teacher's reasoning as supervision of thoughts (LASAR): teacher text -> segments -> anchors."""

from __future__ import annotations

from .anchor_building import build_anchors
from .anchors import AnchorStore
from .collator import AnchoredCollator
from .explicit_collator import ExplicitCoTCollator
from .fingerprints import model_fingerprint, text_fingerprint, tokenizer_fingerprint
from .segments import SENTENCE_ENCODER, load_sentence_encoder, segment_cot
from .sentences import split_sentences
from .teacher_text import match_examples, read_teacher_text
from .template_teacher import write_template_text


__all__ = [
    "SENTENCE_ENCODER",
    "AnchorStore",
    "AnchoredCollator",
    "ExplicitCoTCollator",
    "build_anchors",
    "load_sentence_encoder",
    "match_examples",
    "model_fingerprint",
    "read_teacher_text",
    "segment_cot",
    "split_sentences",
    "text_fingerprint",
    "tokenizer_fingerprint",
    "write_template_text",
]
