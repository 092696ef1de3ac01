"""To the Hub: a complete recommender in one commit, or nothing."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from .card_facts import cutoffs_of, load_facts, public_details
from .model_card import CARD_FILE, add_results, carries_code, render_card, was_edited


if TYPE_CHECKING:
    from ..evaluation import EvaluationRun

logger = logging.getLogger(__name__)

EVALUATION_FOLDER, METRICS_FILE = "evaluation", "metrics.json"
# All that a recommender is made of. Checkpoints, optimizer states, logs and pickles have other names.
MODEL_FILES = (
    "config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json", "*.py",
    "processor_config.json", "catalog.safetensors", "items.json", "item_trie.safetensors",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.*", CARD_FILE, "LICENSE*", "checksums.json",
)  # fmt: skip
_LOST = (HTTPError, OSError)  # what breaks a connection, and what the Hub answers


class PublishError(RuntimeError):
    """Nothing was published, or it is not known: the message says which, of what repository, and why."""


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    run: EvaluationRun | str | Path | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> CommitInfo:
    """
    Publishes a saved recommender: weights, configuration, tokenizer, catalog, trie, prompt and split fingerprint or
    item table, its code where it travels, its card, and the ranks and metrics of an evaluation. Nothing else of the
    folder, such as checkpoints, is published.

    All of it is one commit, so that a failure leaves the repository as it was; publishing the same again changes
    nothing and uploads nothing.

    Args:
        folder (`str` or `Path`): what `save_pretrained` or a trainer wrote.
        repo_id (`str`): of the Hub; made where there is none.
        run (`EvaluationRun`, `str` or `Path`, *optional*): an evaluation of this model, or its folder.
        private (`bool`, *optional*): whether a new repository is private; the account's default if not given.
        token (`str`, *optional*): with write access; that of `hf auth login` if not given.
        revision (`str`, *optional*): branch; made from the main one where there is none.
        commit_message (`str`, *optional*): by default, that a model is uploaded.

    Returns:
        `CommitInfo`: a `str`, the address of the commit.

    Raises:
        ValueError: the folder is not complete, has files that were changed, or the evaluation is of another split.
        PublishError: the Hub refused, or was lost on the way.
    """
    with staged(folder, repo_id, run) as files:
        api = HfApi(token=token)
        name = open_repository(repo_id, private=private, token=token)
        return _commit(api, name, files, revision, commit_message or "Upload recommender")


def open_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """The full name of a repository of the Hub, which is made where there is none; see [`publish`] for arguments."""
    try:
        return HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id
    except _LOST as error:
        raise PublishError(
            f"{repo_id}: the repository was not opened, so nothing was published: {_why(error)}"
        ) from error


@contextmanager
def staged(folder: str | Path, repo_id: str, run: EvaluationRun | str | Path | None) -> Iterator[Path]:
    """A temporary folder with exactly what is published, checked; big files are links."""
    from ..evaluation import EvaluationRun
    from .integrity import check_files, write_checksums

    folder = Path(folder).resolve()
    check_complete(folder)
    if (folder / "checksums.json").is_file():
        check_files(folder)
    if isinstance(run, str | Path):
        run = EvaluationRun.load(run)
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        for path in sorted(folder.iterdir()):
            if path.is_file() and is_published(path.name) and path.name not in (CARD_FILE, "checksums.json"):
                (stage / path.name).symlink_to(path)
        if carries_code(stage):
            _add_pipeline(stage)
        (stage / CARD_FILE).write_text(card_of(folder, repo_id, run), encoding="utf-8")
        if run is not None:
            save_evaluation(run, stage / EVALUATION_FOLDER)
        write_checksums(stage)
        check_files(stage)
        yield stage


def _add_pipeline(stage: Path) -> None:
    """Its code and its entry in the configuration, which becomes a copy: the model's own folder stays as it is."""
    from .pipeline import add_pipeline_files

    config = stage / "config.json"
    text = config.read_text(encoding="utf-8")
    config.unlink()
    config.write_text(text, encoding="utf-8")
    add_pipeline_files(stage)


def is_published(name: str) -> bool:
    """Whether a file of a model's folder is a part of the recommender."""
    return any(fnmatch(name, pattern) for pattern in MODEL_FILES)


def check_complete(folder: str | Path) -> None:
    """Raises where the folder of a recommender lacks a file."""
    folder = Path(folder)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds the weights of LoRA alone; save merge_lora(model), and publish that")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json, so it is no saved model; pass the folder of a trained one")
    needed = ["model.safetensors"]
    if (index := folder / "model.safetensors.index.json").is_file():
        needed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    if (folder / "processor_config.json").is_file():
        needed += ["tokenizer_config.json", "item_trie.safetensors", "catalog.safetensors"]
    else:
        needed += ["items.json"]
    if missing := [name for name in needed if not any(folder.glob(name))]:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}, so what would be published could not recommend; save the model "
            "(and, of a language model, its processor) with save_pretrained, as safetensors"
        )


def card_of(folder: Path, repo_id: str, run: EvaluationRun | None) -> str:
    """The card as it is published: with the repository's name and the run's results; one written by hand stays."""
    if was_edited(folder):
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        return text if run is None else add_results(text, load_facts(folder).with_run(run))
    facts = load_facts(folder)
    return render_card(facts if run is None else facts.with_run(run), repo_id, carries_code(folder))


def save_evaluation(run: EvaluationRun, folder: Path) -> None:
    """The ranks of a run, from which every metric can be computed again, and its metrics; again a run to load."""
    from ..evaluation.summary import summarize

    extras = {"latency": None, "steps": None, "factors": None, "log_history": None}
    replace(run, details=public_details(run.details), recommendations={}, **extras).save(folder)
    metrics = {protocol: summarize(run, protocol, cutoffs_of(run)) for protocol in run.ranks}
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=1), encoding="utf-8")


def _commit(api: HfApi, repo_id: str, stage: Path, revision: str | None, message: str) -> CommitInfo:
    """One commit with what the folder holds, and without what an older model had and this one has not."""
    head, doing = None, "the repository was not read"
    try:
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        info = api.repo_info(repo_id, revision=revision, files_metadata=False)
        head = info.sha
        names = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
        older = sorted(file.rfilename for file in info.siblings or [])
        stale = [name for name in older if name not in names and _belongs_to_model(name)]
        operations = [CommitOperationDelete(name) for name in stale]
        operations += [CommitOperationAdd(name, stage / name) for name in names]
        doing = "the upload failed"
        with warnings.catch_warnings():  # tables of ranks are no data set
            warnings.filterwarnings("ignore", ".*commit a data file.*")
            return api.create_commit(
                repo_id, operations, commit_message=message, revision=revision, parent_commit=head
            )
    except (*_LOST, ValueError, RuntimeError) as error:
        outcome = "nothing was published" if head is None else _outcome(api, repo_id, revision, head)
        raise PublishError(f"{repo_id}: {doing}: {_why(error)}; {outcome}") from error


def _belongs_to_model(name: str) -> bool:
    """Whether a file that is on the Hub alone is an older model's; a license and other folders are somebody's own."""
    is_own = "/" in name or name.startswith("LICENSE")
    return (is_published(name) and not is_own) or name.startswith(f"{EVALUATION_FOLDER}/")


def _outcome(api: HfApi, repo_id: str, revision: str | None, head: str) -> str:
    """After an error: whether a commit arrived although its answer was lost."""
    branch = revision or "main"
    try:
        now = api.repo_info(repo_id, revision=revision).sha
    except _LOST:
        return f"the Hub cannot be asked whether {branch!r} was changed; publish again, which is safe"
    if now == head:
        return f"nothing was published: {branch!r} is still at {head[:8]}; publish again when that is mended"
    return f"but {branch!r} went from {head[:8]} to {now[:8]} meanwhile; look at it, then publish again, which is safe"


def _why(error: Exception) -> str:
    """What the Hub said, or how it was lost."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        remedy = {401: "log in with `hf auth login`, or pass a token; ", 403: "use a token with write access; "}
        said = error.server_message or " ".join(str(error).split())
        return f"HTTP {status} at {error.response.url}: {remedy.get(status, '')}{said}"
    said = " ".join(str(error).split()) or type(error).__name__
    return said if error.__cause__ is None else f"{said} ({_why(error.__cause__)})"


__all__ = ["MODEL_FILES", "PublishError", "open_repository", "publish"]
