"""A Space that lets visitors try a recommender of the Hub: the one that the variable MODEL_REPO names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


# In a Space demo.py and demo_app.py lie beside this file, in a checkout one folder above.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from demo import build, launch  # noqa: E402
from demo_app import DemoModel  # noqa: E402


if __name__ == "__main__":
    repo = os.environ.get("MODEL_REPO")
    if not repo:
        raise ValueError("MODEL_REPO is not set; set it to a model repository (or a folder) in the Space's settings")
    launch(build(DemoModel.load(repo)))
