"""What every test shares: no network, fixed seeds, and the way to data that is not part of the repository."""

from __future__ import annotations

import os


# Read at import time by huggingface_hub, datasets and trl, so set before anything imports them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which would fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import random  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


SHARED_FOLDER = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data_dir() -> Callable[[str], Path]:
    """`real_data_dir("amazon_beauty_2014")` is that data set's folder; the test is skipped where it is missing."""
    root = Path(os.environ.get("LATENTREC_DATA_DIR", SHARED_FOLDER / "data"))

    def folder_of(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"no data set {name!r} in {root}; set LATENTREC_DATA_DIR to the folder that holds it")
        return folder

    return folder_of


@pytest.fixture(scope="session")
def qwen3_tokenizer_dir() -> Path:
    """Folder of the real Qwen3 tokenizer; the test is skipped where it is missing."""
    folder = Path(os.environ.get("LATENTREC_TOKENIZER_DIR", SHARED_FOLDER / "tokenizers" / "qwen3"))
    if not (folder / "tokenizer_config.json").is_file():
        pytest.skip(f"no Qwen3 tokenizer in {folder}; set LATENTREC_TOKENIZER_DIR to the folder that holds it")
    return folder
