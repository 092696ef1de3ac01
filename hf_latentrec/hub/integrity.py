"""Whether a model's folder is what was published: every file by its checksum, and no pickles."""

from __future__ import annotations

import hashlib
import json
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


CHECKSUMS_FILE = "checksums.json"
# What the Hub and people change without changing the model.
NOT_OF_THE_MODEL = (CHECKSUMS_FILE, "README.md", ".gitattributes")
PICKLE_NAMES = ("*.ckpt", "*.joblib", "*.pickle", "*.pkl", "*.pt", "*.pth")
PICKLE_NAMES += ("pytorch_model*.bin", "adapter_model*.bin", "training_args*.bin")
CODE_SUFFIXES = frozenset({".dll", ".dylib", ".py", ".pyc", ".pyd", ".pyz", ".so"})
BLOCK_SIZE = 1 << 20


def write_checksums(folder: str | Path) -> Path:
    """
    Writes `checksums.json`: size and SHA-256 of every file of a model. To be written last, after all other files.

    Not among them are the card (`README.md`), hidden files and folders, and what Python compiled (`__pycache__`).

    Args:
        folder (`str` or `Path`): the model's.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: for a folder that does not exist, without files, or with pickled files.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> write_checksums(folder).name
        'checksums.json'
        >>> check_files(folder)
        >>> _ = (folder / "config.json").write_text('{"a": 1}')
        >>> check_files(folder)
        Traceback (most recent call last):
        ...
        ValueError: ... is not the model that was saved: config.json has 8 bytes, not 2; ...
    """
    folder = Path(folder)
    files = _files(folder)
    _refuse(folder, _pickles(files))
    if not files:
        raise ValueError(f"{folder} holds no files of a model; save one there first")
    described = {name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}
    target = folder / CHECKSUMS_FILE
    target.write_text(json.dumps({"files": described}, indent=1) + "\n", encoding="utf-8")
    return target


def check_files(folder: str | Path) -> None:
    """
    Checks a model's folder against its `checksums.json`. Reads every file once, in blocks.

    Args:
        folder (`str` or `Path`): the model's: on this machine, or the snapshot of a download.

    Raises:
        ValueError: for files that are missing, changed, pickled, or code that is not in `checksums.json`, each named;
            and for a folder without `checksums.json`.
    """
    folder = Path(folder)
    files = _files(folder)
    problems = _pickles(files)
    if not problems or (folder / CHECKSUMS_FILE).is_file():
        problems += _differences(files, _read_checksums(folder))
    _refuse(folder, problems)


def _differences(files: dict[str, Path], expected: dict[str, dict[str, Any]]) -> list[str]:
    problems = []
    for name, values in expected.items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif (size := files[name].stat().st_size) != values["size"]:
            problems.append(f"{name} has {size} bytes, not {values['size']}")
        elif _sha256(files[name]) != values["sha256"]:
            problems.append(f"{name} has another content")
    unknown = [
        f"{name} is code that {CHECKSUMS_FILE} does not name"
        for name, path in files.items()
        if name not in expected and path.suffix.lower() in CODE_SUFFIXES
    ]
    return problems + unknown


def is_pickle(path: str | Path) -> bool:
    """
    Whether torch, joblib or `pickle` would unpickle a file: by its name (`*.pt`, `*.pkl`, `pytorch_model*.bin`, ...),
    and another `*.bin` by its first bytes.

    Args:
        path (`str` or `Path`): the file.

    Returns:
        `bool`

    Example:
        >>> is_pickle("pytorch_model.bin"), is_pickle("model.safetensors")
        (True, False)
    """
    path = Path(path)
    name = path.name.lower()
    if any(fnmatch(name, pattern) for pattern in PICKLE_NAMES):
        return True
    if path.suffix.lower() != ".bin":
        return False
    with open(path, "rb") as file:
        return file.read(1) == b"\x80" or zipfile.is_zipfile(file)  # a pickle, or what torch.save writes


def _files(folder: Path) -> dict[str, Path]:
    """Files of a model by their names below its folder, in order."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; pass that of a model, or download it first")
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in paths.items()
        if name.as_posix() not in NOT_OF_THE_MODEL
        and "__pycache__" not in name.parts
        and not any(part.startswith(".") for part in name.parts)
    }


def _pickles(files: dict[str, Path]) -> list[str]:
    return [
        f"{name} is a pickle, which can run any code when it is read"
        for name, path in files.items()
        if is_pickle(path)
    ]


def _read_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {CHECKSUMS_FILE}; write it with write_checksums where you trust the files")
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: {"size": values["size"], "sha256": values["sha256"]} for name, values in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is truncated or no list of checksums ({error!r}); write or download it again"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_SIZE):
            digest.update(block)
    return digest.hexdigest()


def _refuse(folder: Path, problems: list[str]) -> None:
    if problems:
        raise ValueError(
            f"{folder} is not the model that was saved: {'; '.join(problems)}; download it again, or save it again as "
            "safetensors"
        )


__all__ = ["CHECKSUMS_FILE", "check_files", "is_pickle", "write_checksums"]
