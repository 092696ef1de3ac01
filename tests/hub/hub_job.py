"""What a user does with a Hub, in a process of its own, since huggingface_hub reads `HF_ENDPOINT` when it is imported.

Run as `hub_job.py OUT`; what was seen is written to `OUT/found.json`. The repositories are looked at by the test.
Run as `hub_job.py OUT together`, on several processes, it trains and publishes once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModel, AutoProcessor

from hf_latentrec.data import split_fingerprint
from hf_latentrec.evaluation import EvaluatedItems, EvaluationRun, RankFile
from hf_latentrec.hub import PublishError, publish
from hf_latentrec.trainer import LatentSFTConfig, LatentSFTTrainer
from tests.hub.hub_server import TOKEN
from tests.tiny import make_tiny_recommender
from tests.trainer.lares_toys import make_toy


LLM, LARES = "user/llm", "user/lares"
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


def give_trouble(route: str, kind: int | str, times: int = 99) -> None:
    """The Hub fails at a route; `times=0` ends that."""
    body = json.dumps({"route": route, "kind": kind, "times": times}).encode()
    request = urllib.request.Request(f"{os.environ['HF_ENDPOINT']}/_faults", data=body, method="POST")
    urllib.request.urlopen(request).close()


def message(call: Any, *args: Any, **kwargs: Any) -> str:
    """Of the PublishError that a call ends in."""
    try:
        call(*args, **kwargs)
    except PublishError as error:
        return str(error)
    return "no error"


def recommend(model: Any, processor: Any, history: list[str]) -> list:
    output = model.eval().generate(**processor([history]), item_trie=processor.item_trie, num_beams=8)
    return [[item["item_id"], round(item["score"], 5)] for item in processor.post_process_recommendations(output)[0]]


def recommend_ids(model: Any, history: list[str]) -> list:
    return [[item["item_id"], round(item["score"], 5)] for item in model.eval().recommend([history], k=8)[0]]


def make_run(ids: list[str], fingerprint: str) -> EvaluationRun:
    """Three users under both protocols."""
    ranks = {
        protocol: RankFile(
            ["u1", "u2", "u3"],
            np.array([1, rank, 0]),
            {"split_fingerprint": fingerprint, "protocol": protocol, "num_beams": 20},
        )
        for protocol, rank in (("nothing filtered", 4), ("seen items excluded", 2))
    }
    items = EvaluatedItems(ids, [None] * len(ids), np.ones(len(ids), dtype=np.int64))
    details = {"split_fingerprint": fingerprint, "num_beams": 20, "checkpoint": "/home/somebody/secret"}
    return EvaluationRun("tiny", details, items, ranks, log_history=[{"loss": 1.0}])


def language_model(out: Path) -> dict[str, Any]:
    """Published, with all that can go wrong on the way, and downloaded again."""
    model, processor, splits = make_tiny_recommender(num_thoughts=2)
    folder, history = out / "llm", list(processor.catalog.item_ids[:2])
    model.save_pretrained(folder, max_shard_size="60KB")
    processor.save_pretrained(folder)
    (folder / "checkpoint-1").mkdir()
    for junk in ("training_args.bin", "optimizer.pt", "trainer_state.json", "notes.txt", "checkpoint-1/config.json"):
        (folder / junk).write_bytes(b"{}")
    run = make_run(list(processor.catalog.item_ids), split_fingerprint(splits))
    found: dict[str, Any] = {"here": recommend(model, processor, history)}

    found["token"] = message(publish, folder, LLM, token="hf_wrong")
    give_trouble("lfs_upload", "drop")
    found["upload"] = message(publish, folder, LLM, run=run)
    give_trouble("commit", 500)
    found["commit"] = message(publish, folder, LLM, run=run)
    give_trouble("info", 503)
    found["info"] = message(publish, folder, LLM, run=run)
    give_trouble("commit", 403)
    found["forbidden"] = message(publish, folder, LLM, run=run)
    found["left"] = remote_files(LLM)
    give_trouble("commit", 0, times=0)
    found["url"] = publish(folder, LLM, run=run)
    found["again"] = publish(folder, LLM, run=run)
    found["files"] = remote_files(LLM)
    cache = out / "cache"
    there = AutoProcessor.from_pretrained(LLM, cache_dir=cache)
    found["there"] = recommend(AutoModel.from_pretrained(LLM, cache_dir=cache), there, history)

    # Another model of the same name: its files take the place of those of the first, whole.
    for old in folder.glob("model*"):
        old.unlink()
    model.save_pretrained(folder)
    give_trouble("commit", "drop_answer")
    found["answer lost"] = message(publish, folder, LLM, commit_message="Second")
    give_trouble("commit", 0, times=0)
    publish(folder, LLM, commit_message="Second")
    found["files of the second"] = remote_files(LLM)
    publish(folder, LLM, revision="a branch", private=True)
    publish(folder, "user/private", private=True)

    model.push_to_hub("user/plain")
    processor.push_to_hub("user/plain")
    plain = AutoProcessor.from_pretrained("user/plain", cache_dir=cache)
    found["plain"] = recommend(AutoModel.from_pretrained("user/plain", cache_dir=cache), plain, history)
    return found


def lares(out: Path) -> dict[str, Any]:
    """A recommender of item ids."""
    model, history = make_toy().model, ["i0000", "i0001"]
    model.save_pretrained(out / "lares")
    sys.path.append(str(Path(__file__).parents[2] / "recipes"))
    import publish as recipe

    told = {"title": "Mine", "license": "mit", "data_name": "toys", "data_license": "CC0"}
    recipe.main(recipe.PublishArguments(str(out / "lares"), LARES, **told))
    there = AutoModel.from_pretrained(LARES, cache_dir=out / "cache")
    found = {"here": recommend_ids(model, history), "there": recommend_ids(there, history)}
    return {**found, "files": remote_files(LARES)}


def trainer(out: Path) -> dict[str, Any]:
    """A training run that publishes each checkpoint, one of which the Hub refuses, and then what it ends with."""
    model, processor, splits = make_tiny_recommender(num_thoughts=2)
    settings = LatentSFTConfig(
        out / "trained", max_steps=3, save_steps=1, save_strategy="steps", learning_rate=0.01, use_cpu=True,
        push_to_hub=True, hub_model_id="user/trained", disable_tqdm=True,
    )  # fmt: skip
    running = LatentSFTTrainer(model, settings, train_dataset=splits["train"], processing_class=processor)
    give_trouble("commit", 500, times=1)
    running.train()
    running.push_to_hub(license="mit", dataset="toys | of <mine>", tags="a tag")
    history, cache = list(processor.catalog.item_ids[:2]), out / "cache"
    there = AutoProcessor.from_pretrained("user/trained", cache_dir=cache)
    return {
        "here": recommend(model, processor, history),
        "there": recommend(AutoModel.from_pretrained("user/trained", cache_dir=cache), there, history),
        "files": remote_files("user/trained"),
    }


def run_snippets() -> dict[str, list[list[str]]]:
    """What the first and the last snippet of each card print, in the words of the card on the Hub."""
    from huggingface_hub import hf_hub_download

    printed = {}
    for name in (LLM, LARES):
        snippets = CODE.findall(Path(hf_hub_download(name, "README.md")).read_text())
        printed[name] = []
        for code in (snippets[0], snippets[-1]):
            with contextlib.redirect_stdout(io.StringIO()) as lines:
                exec(code, {})
            printed[name].append(lines.getvalue().splitlines())
    return printed


def remote_files(name: str) -> list[str]:
    from huggingface_hub import HfApi

    return sorted(HfApi().list_repo_files(name))


def train_together(out: Path) -> None:
    """Every process calls `push_to_hub`, to a repository that is made then and named after the folder."""
    model, processor, splits = make_tiny_recommender(num_thoughts=2)
    settings = LatentSFTConfig(out / "together", max_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True)
    running = LatentSFTTrainer(model, settings, train_dataset=splits["train"], processing_class=processor)
    running.train()
    url = running.push_to_hub()
    (out / f"process_{settings.process_index}.json").write_text(json.dumps([settings.world_size, url]))
    running.accelerator.wait_for_everyone()
    running.accelerator.end_training()
    # Background threads of the backends now and then abort the interpreter's teardown, after the result is written.
    os._exit(0)


def main(out: Path) -> None:
    time.sleep = lambda seconds: None  # the client waits between two attempts
    os.environ["HF_TOKEN"] = TOKEN
    found = {part.__name__: part(out) for part in (language_model, lares, trainer)}
    found["snippets"] = run_snippets()
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    train_together(Path(sys.argv[1])) if sys.argv[2:] else main(Path(sys.argv[1]))
