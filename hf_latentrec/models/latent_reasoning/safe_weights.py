"""Weights come from safetensors files alone.

LLM recommenders and LARES have this file each, the same: the code of both travels with checkpoints, and shares no
folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import has_file


SAFE_FILES, PICKLES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)


class SafeWeightsMixin:
    """Mixin of a model, before `PreTrainedModel`: it never unpickles weights, because a pickle can run any code."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None, *args: Any, **kwargs: Any):
        """
        As in transformers.

        Raises:
            ValueError: for weights that are pickled, and for broken files; both are named.
        """
        source = pretrained_model_name_or_path
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError(f"{cls.__name__}: use_safetensors is {kwargs['use_safetensors']}; leave it out")
        try:
            return super().from_pretrained(source, *args, **kwargs)
        except OSError as error:
            hub = {
                name: kwargs[name] for name in ("revision", "token", "cache_dir", "local_files_only") if name in kwargs
            }
            folder = f"{kwargs['subfolder']}/" if kwargs.get("subfolder") else ""
            has = {name: _has(source, folder + name, **hub) for name in (*SAFE_FILES, *PICKLES)}
            pickles = [name for name in PICKLES if has[name]]
            if pickles and not any(has[name] for name in SAFE_FILES):
                raise ValueError(
                    f"{cls.__name__}: the weights of {source} are in {pickles[0]} alone, a pickle, which can run any "
                    "code when it is read; use a revision with model.safetensors, or convert it where you trust it, "
                    "with transformers' own class: from_pretrained(...).save_pretrained(...)"
                ) from error
            raise
        except SafetensorError as error:
            files = sorted(Path(source, kwargs.get("subfolder") or "").glob("*.safetensors"))
            broken = ", ".join(file.name for file in files if not _opens(file)) or "a safetensors file"
            raise ValueError(
                f"{cls.__name__}: {broken} of {source} is truncated or no safetensors file ({error}); save the model "
                "again, or download it again"
            ) from error


def _has(source: str | Path | None, name: str, **hub: Any) -> bool:
    try:
        return has_file(source, name, **hub)
    except HFValidationError:  # neither a folder nor what a repository can be called
        return False


def _opens(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt"):
            return True
    except SafetensorError:
        return False


__all__ = ["SafeWeightsMixin"]
