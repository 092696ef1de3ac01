"""Where a run that was cut can go on."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME


logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"checkpoint-(\d+)")


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """
    The newest `checkpoint-N` of a folder that was written to the end.

    The Trainer writes its state last, so a checkpoint without it was cut while it was saved and is passed over, with a
    warning.

    Args:
        output_dir (`str` or `Path`): the Trainer's `output_dir`; it need not exist.

    Returns:
        `str` or `None`: for `Trainer.train(resume_from_checkpoint=...)`; None where there is nothing to go on with.
    """
    folders = ((_FOLDER.fullmatch(path.name), path) for path in Path(output_dir).glob("checkpoint-*"))
    for _, path in sorted(((int(match[1]), path) for match, path in folders if match), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning(f"{path} was not written to the end; it is passed over, remove it")
            continue
        return str(path)
    return None


__all__ = ["last_complete_checkpoint"]
