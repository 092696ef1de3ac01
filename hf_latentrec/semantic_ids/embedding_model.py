"""Which sentence-transformers model it is, to the byte, and how it is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class ModelSource:
    """
    A model that cannot change behind its name.

    Args:
        path (`str`): id on the hub, or folder.
        revision (`str`): commit on the hub, 40 hex digits; for a folder, the sha256 of its files.
        on_hub (`bool`): whether `path` is an id.
    """

    path: str
    revision: str
    on_hub: bool

    @classmethod
    def find(cls, path: str, revision: str | None = None) -> ModelSource:
        """
        The model of that name: a folder if there is one, else a model on the hub at `revision`.

        Raises:
            ValueError: there is no such model, or a folder was asked for a revision.
        """
        if Path(path).is_dir():
            if revision is not None:
                raise ValueError(f"{path} is a folder, which has no revision {revision!r}; leave the revision out")
            return cls(path, folder_fingerprint(Path(path)), on_hub=False)
        return cls(path, _commit(path, revision), on_hub=True)

    @property
    def name(self) -> str:
        """The id on the hub, or the folder's own name, wherever it lies."""
        return self.path if self.on_hub else Path(self.path).resolve().name

    def load(self, max_length: int | None, dtype: str, device: str) -> SentenceTransformer:
        """
        The model in eval mode.

        Raises:
            ImportError: sentence-transformers is not installed.
            ValueError: the model cannot be loaded, or cannot read texts of `max_length` tokens.
        """
        from safetensors import SafetensorError

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError(
                'embeddings need sentence-transformers: pip install "hf_latentrec[semantic-ids]"'
            ) from error
        revision = self.revision if self.on_hub else None
        how = {"dtype": dtype, "use_safetensors": True}  # no pickle
        try:
            model = SentenceTransformer(self.path, revision=revision, device=device, model_kwargs=how)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"{self.path}: sentence-transformers cannot load this model in {dtype} ({error}); it needs complete "
                "files with the weights as safetensors"
            ) from error
        if max_length is not None:
            if model.max_seq_length is not None and max_length > model.max_seq_length:
                raise ValueError(
                    f"{self.path}: max_length={max_length}, but the model reads {model.max_seq_length} tokens at "
                    "most; pass no more than these"
                )
            model.max_seq_length = max_length
        return model.eval()


def folder_fingerprint(folder: Path) -> str:
    """
    A sha256 (64 hex digits) over the names and contents of a model's files; notes (`*.md`) and hidden files have no
    part in it.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if path.is_file() and path.suffix != ".md" and not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name.as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _commit(model_id: str, revision: str | None) -> str:
    """The commit that a revision is now (or, offline, was when the model was fetched)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    for name in ("modules.json", "config.json"):
        try:
            return Path(hf_hub_download(model_id, name, revision=revision)).parent.name
        except EntryNotFoundError:  # offline, too, where the file was not fetched
            continue
        except (HFValidationError, RepositoryNotFoundError) as error:
            problem = str(error)
            break
    else:
        problem = "neither modules.json nor config.json can be had" + (f" at {revision!r}" if revision else "")
    raise ValueError(
        f"{model_id!r} is neither a folder nor a sentence-transformers model on the hub ({problem}); check the name, "
        "or fetch the model while online"
    )


__all__ = ["ModelSource", "folder_fingerprint"]
