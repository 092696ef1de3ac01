"""
A stranger without the library runs the second snippet of cards, and the pipeline: `stranger_job.py OUT NAME ...`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

from huggingface_hub import hf_hub_download


def main(out: Path, names: list[str]) -> None:
    sys.modules["hf_latentrec"] = None  # type: ignore[assignment]  # importing it fails
    printed = {}
    for name in names:
        card = Path(hf_hub_download(name, "README.md")).read_text()
        _, model, pipeline = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
        pipeline = pipeline.replace("import hf_latentrec", "").replace('model="', 'trust_remote_code=True, model="')
        printed[name] = []
        for code in (model, pipeline):
            with contextlib.redirect_stdout(io.StringIO()) as lines:
                exec(code, {})
            printed[name].append(lines.getvalue().splitlines())
    (out / "printed.json").write_text(json.dumps(printed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
