"""Loads model folders in a process of its own and writes what they recommend.

Run as `fresh_process.py JOB`, a JSON file: `folders` (by name), `histories`, `out` (a folder), and `hidden`: the names
of modules that cannot be imported. Where some are hidden, the code that came with the models is trusted; where none
are, the library is imported.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


class HidingFinder:
    """Finds what another finder finds, but for hidden modules."""

    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def found(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def error_of(call) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def recommend(model, processor, histories: list[list[str]]) -> list[list[dict]]:
    if processor is None:
        return model.recommend(histories, k=5, exclude_seen=True)
    inputs = processor(histories, exclude_seen=True)
    return processor.post_process_recommendations(
        model.generate(**inputs, item_trie=processor.item_trie, num_beams=5), top_k=5
    )


def look_at(folder: Path, job: dict, **loading) -> dict:
    """What a model folder gives, and what it gives when it was loaded, saved and loaded again."""
    from transformers import AutoModel, AutoProcessor

    model, processor, answers = None, None, []
    for source in (folder, Path(job["out"], f"{folder.name} again")):
        if model is not None:
            model.save_pretrained(source)
            if processor is not None:
                processor.save_pretrained(source)
        model = AutoModel.from_pretrained(source, **loading)
        if (folder / "processor_config.json").exists():
            processor = AutoProcessor.from_pretrained(source, **loading)
        answers.append(recommend(model, processor, job["histories"]))
    return {
        "modules": [type(part).__module__ for part in (model, model.config, processor or model)],
        "recommended": answers[0],
        "after saving again": answers[1],
    }


def main(job: dict) -> None:
    hidden = set(job["hidden"])
    if hidden:
        sys.meta_path[:] = [HidingFinder(finder, hidden) for finder in sys.meta_path]
    else:
        importlib.import_module("hf_latentrec")
    from transformers import AutoModel, AutoProcessor

    folders = {name: Path(folder) for name, folder in job["folders"].items()}
    loading = {"trust_remote_code": True} if hidden else {}
    hub_model = AutoModel.from_pretrained("me/qwen3", **loading)
    hub_processor = AutoProcessor.from_pretrained("me/qwen3", **loading)
    result = {
        "from the Hub": {
            "qwen3": recommend(hub_model, hub_processor, job["histories"]),
            "lares": recommend(AutoModel.from_pretrained("me/lares", **loading), None, job["histories"]),
        },
        "found": [name for name in ("hf_latentrec", "pyarrow", "datasets", "polars", "trl") if found(name)],
        "models": {name: look_at(folder, job, **loading) for name, folder in folders.items()},
        "baseline": error_of(lambda: AutoModel.from_pretrained(job["baseline"], **loading)),
        "distrusted": error_of(lambda: AutoModel.from_pretrained(folders["lares"], trust_remote_code=False)),
    }
    if not hidden:
        trusted = {"pretrained_model_name_or_path": folders["qwen3"], "trust_remote_code": True}
        parts = (AutoModel.from_pretrained(**trusted), AutoProcessor.from_pretrained(**trusted))
        result["modules where trusted"] = [type(part).__module__ for part in parts]
    Path(job["out"], "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
