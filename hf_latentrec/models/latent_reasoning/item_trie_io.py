"""The file of an ItemTrie: safetensors with a version and a digest of the content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


_VERSION = "2"


def save_trie_tensors(tensors: dict[str, torch.Tensor], catalog_fingerprint: str, path: str | Path) -> None:
    """Writes the tensors of a trie; see [`ItemTrie.save`]."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "catalog_fingerprint": catalog_fingerprint,
        "digest": _digest(tensors, catalog_fingerprint),
        "format": "pt",
        "trie_version": _VERSION,
    }
    save_file(tensors, path, metadata)


def load_trie_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors and catalog fingerprint of a trie's file. Args and errors are those of [`ItemTrie.load`]."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"ItemTrie: {path} is truncated or is no trie ({error}); save the processor again") from error
    if "digest" not in metadata:
        raise ValueError(f"ItemTrie: {path} is no trie, it has no digest; save the processor again")
    version = metadata.get("trie_version", "1")
    if version != _VERSION:
        raise ValueError(
            f"ItemTrie: {path} has version {version}, but version {_VERSION} is read; build the trie again with "
            "ItemCatalog.load(...).build_trie().save(...)"
        )
    fingerprint = metadata.get("catalog_fingerprint", "")
    if metadata["digest"] != _digest(tensors, fingerprint):
        raise ValueError(f"ItemTrie: the content of {path} does not match its digest; save the processor again")
    return tensors, fingerprint


def _digest(tensors: dict[str, torch.Tensor], fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for name in sorted(tensors):
        digest.update(f"{name}:{tensors[name].dtype}:{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()


__all__ = ["load_trie_tensors", "save_trie_tensors"]
