"""A model goes to the Hub whole or not at all, and comes back the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import ModelCard

from hf_latentrec.evaluation import EvaluationRun, ranking_metrics
from hf_latentrec.hub.publishing import (
    _belongs_to_model,
    check_complete,
    is_published,
    public_details,
    publish,
    staged,
)
from tests.hub.hub_job import make_run
from tests.hub.hub_server import TOKEN, Hub, running_hub
from tests.tiny import make_tiny_recommender
from tests.trainer.lares_toys import make_toy


ROOT = Path(__file__).resolve().parents[2]
JOB, STRANGER = (Path(__file__).with_name(name) for name in ("hub_job.py", "stranger_job.py"))
OF_THE_HUB = ".gitattributes"
LLM_FILES = {
    "README.md", "checksums.json", "config.json", "generation_config.json", "item_trie.safetensors",
    "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


class Seen(NamedTuple):
    hub: Hub
    found: dict[str, Any]
    by_strangers: dict[str, list[list[str]]]
    together: Hub
    processes: list[list]


def run_job(url: str, out: Path, *command: str, folder: Path = ROOT) -> None:
    """A client in a process of its own, which huggingface_hub takes to be online."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(out / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    run = subprocess.run([sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Iterator[Seen]:
    """The jobs, which import for longer than they run, at the same time."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    with running_hub() as one, running_hub() as other, ThreadPoolExecutor() as both:
        jobs = [
            both.submit(run_job, one.url, alone, str(JOB), str(alone)),
            both.submit(run_job, other.url, together, *launcher, str(JOB), str(together), "together"),
        ]
        for job in jobs:
            job.result()
        stranger = tmp_path_factory.mktemp("stranger")
        run_job(one.url, stranger, str(STRANGER), str(stranger), "user/llm", "user/lares", folder=stranger)
        processes = [json.loads((together / f"process_{rank}.json").read_text()) for rank in (0, 1)]
        found, printed = (json.loads(path.read_text()) for path in (alone / "found.json", stranger / "printed.json"))
        yield Seen(one.hub, found, printed, other.hub, processes)


def without_catalog(files: list[str]) -> set[str]:
    """File names without the item table or catalog, of which there must be one, and without code."""
    files = [name for name in files if not name.endswith(".py")]
    catalog = [name for name in files if name.startswith(("catalog.", "items."))]
    assert len(catalog) == 1
    return set(files) - set(catalog)


@pytest.mark.parametrize("part", ["language_model", "lares", "trainer"])
def test_a_published_model_recommends_the_same(seen, part):
    found = seen.found[part]
    assert len(found["here"]) == 8 and found["there"] == found["here"]


def test_the_snippets_of_a_card_say_the_same_to_who_has_no_library(seen):
    assert seen.by_strangers == seen.found["snippets"]
    for model, pipeline in seen.by_strangers.values():
        assert len(model) == 10
        assert [line.split()[0] for line in model] == [line.split()[0] for line in pipeline]


def test_push_to_hub_of_transformers_works(seen):
    assert seen.found["language_model"]["plain"] == seen.found["language_model"]["here"]
    assert len(seen.hub.commits("user/plain")) == 2


def test_exactly_a_recommender_is_published(seen):
    files = seen.found["language_model"]["files of the second"]
    assert without_catalog(files) == LLM_FILES | {OF_THE_HUB}
    assert without_catalog(seen.found["trainer"]["files"]) == LLM_FILES | {OF_THE_HUB}
    lares = without_catalog(seen.found["lares"]["files"])
    assert lares == {OF_THE_HUB, "README.md", "checksums.json", "config.json", "model.safetensors"}


def test_shards_and_an_evaluation_are_published(seen, tmp_path):
    files = set(seen.found["language_model"]["files"])
    assert {"model-00001-of-00003.safetensors", "model.safetensors.index.json"} <= files
    evaluation = {name for name in files if name.startswith("evaluation/")}
    commit = seen.hub.commits("user/llm")[0]
    for name in evaluation:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seen.hub.content(commit, name))
        assert b"secret" not in path.read_bytes()
    run = EvaluationRun.load(tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    for protocol, file in run.ranks.items():
        assert ranking_metrics(file.ranks).items() <= metrics[protocol]["all"].items()
    assert metrics["nothing filtered"]["all"]["HR@5"] == pytest.approx(2 / 3) and run.log_history is None


def test_the_card_has_the_results_and_the_repository(seen):
    card = ModelCard(seen.hub.content(seen.hub.commits("user/llm")[0], "README.md").decode())
    found = {(result.dataset_config, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert found["nothing filtered", "hr_at_5"] == pytest.approx(2 / 3)
    assert found["seen items excluded", "ndcg_at_10"] > found["nothing filtered", "ndcg_at_10"]
    assert 'from_pretrained("user/llm")' in card.text and "secret" not in card.content


def test_a_failure_leaves_nothing_and_can_be_repeated(seen):
    found = seen.found["language_model"]
    assert found["left"] == [OF_THE_HUB]
    for failure, why in {"upload": "the upload failed", "commit": "HTTP 500", "info": "HTTP 503"}.items():
        assert found[failure].startswith("user/llm: ") and "nothing was published" in found[failure]
        assert why in found[failure]
    # several files are uploaded at once, so any of them may be the first that fails
    assert any(f"'{name}'" in found["upload"] for name in found["files"])
    assert "HTTP 403" in found["forbidden"] and "write access" in found["forbidden"]
    assert "HTTP 401" in found["token"] and "hf auth login" in found["token"]
    assert found["url"] == found["again"] and found["url"].startswith("http")
    assert [commit.message for commit in seen.hub.commits("user/llm")] == ["Upload recommender", "Second"]


def test_a_lost_answer_is_no_failure(seen):
    first, second = seen.hub.commits("user/llm")
    assert f"went from {first.sha[:8]} to {second.sha[:8]}" in seen.found["language_model"]["answer lost"]


def test_branches_and_private_repositories(seen):
    repository = seen.hub.repositories["user/llm"]
    assert repository.branches["a branch"][-1].files.keys() == repository.branches["main"][-1].files.keys()
    assert seen.hub.repositories["user/private"].private and not repository.private


def test_a_trainer_publishes_checkpoints_and_a_refusal_does_not_stop_it(seen):
    messages = [commit.message for commit in seen.hub.commits("user/trained")]
    assert messages == ["Training in progress, step 2", "Training in progress, step 3", "End of training"]
    card = ModelCard(seen.hub.content(seen.hub.head("user/trained"), "README.md").decode())
    assert card.data.license == "mit" and "a tag" in card.data.tags and r"toys \| of \<mine\>" in card.text
    assert "| learning\\_rate | 0.01 |" in card.text


def test_the_recipe_tells_the_card_what_it_is_told(seen):
    card = ModelCard(seen.hub.content(seen.hub.head("user/lares"), "README.md").decode())
    assert card.data.license == "mit" and "# Mine" in card.text and "| licence of the data | CC0 |" in card.text
    assert 'from_pretrained("user/lares")' in card.text and "| data set | toys |" in card.text


def test_two_processes_publish_once(seen):
    (size, url), (_, nothing) = seen.processes
    assert size == 2 and nothing is None and url.endswith(seen.together.head("user/together").sha)
    assert [commit.message for commit in seen.together.commits("user/together")] == ["End of training"]
    assert seen.together.log.count("commit") == seen.together.log.count("create") == 1
    assert LLM_FILES <= seen.together.head("user/together").files.keys()


# Without a Hub


@pytest.fixture
def llm(tmp_path) -> Path:
    model, processor, _ = make_tiny_recommender()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_parts_of_a_recommender():
    for name in ("model-00001-of-00002.safetensors", "modeling_lares.py", "catalog.safetensors", "items.json",
                 "vocab.txt", "README.md", "LICENSE.txt"):  # fmt: skip
        assert is_published(name), name
    for name in ("training_args.bin", "training_args.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                 "trainer_state.json", "pytorch_model.bin", "test_metrics.json", "card_facts.json", "notes.txt",
                 "events.safetensors", "items.csv", "catalog.json", "vocab.parquet", ".env"):  # fmt: skip
        assert not is_published(name), name


def test_what_somebody_added_on_the_hub_is_not_an_older_models():
    assert all(map(_belongs_to_model, ("model-00001-of-00002.safetensors", "modeling_lares.py", "evaluation/a.json")))
    assert not any(map(_belongs_to_model, ("LICENSE", "LICENSE.txt", "space/app.py", "notes.txt")))


def test_an_incomplete_folder_is_named(llm, tmp_path_factory):
    with pytest.raises(ValueError, match="holds no config.json"):
        publish(tmp_path_factory.mktemp("empty"), "user/model")
    (llm / "item_trie.safetensors").unlink()
    (llm / "model.safetensors").rename(llm / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lacks model.safetensors, item_trie.safetensors"):
        publish(llm, "user/model")
    (llm / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"merge_lora"):
        check_complete(llm)


def test_an_item_table_belongs_to_a_recommender_of_ids(tmp_path):
    make_toy().model.save_pretrained(tmp_path)
    check_complete(tmp_path)
    (tmp_path / "items.json").rename(tmp_path / "items.csv")
    with pytest.raises(ValueError, match=r"lacks items\.json"):
        publish(tmp_path, "user/model")


def test_changed_files_are_not_published(llm):
    from hf_latentrec.hub.integrity import write_checksums

    write_checksums(llm)
    (llm / "config.json").write_text((llm / "config.json").read_text() + " ")
    with pytest.raises(ValueError, match=r"config\.json"):
        publish(llm, "user/model")


def test_an_evaluation_of_another_split_is_refused(llm):
    run = make_run(["i0000"], "another")
    with pytest.raises(ValueError, match="is of split another, but the model was trained on "):
        publish(llm, "user/model", run=run)


def test_a_card_written_by_hand_stays(llm):
    _, processor, _ = make_tiny_recommender()
    (llm / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n\nMy words.\n")
    run = make_run(list(processor.catalog.item_ids), processor.split_fingerprint)
    with staged(llm, "user/model", None) as files:
        assert (files / "README.md").read_text() == (llm / "README.md").read_text()
    with staged(llm, "user/model", run) as files:
        card = ModelCard.load(files / "README.md")
    assert "My words." in card.text and card.data.license == "mit" and len(card.data.eval_results) == 12


def test_a_run_may_be_its_folder(llm, tmp_path_factory):
    _, processor, _ = make_tiny_recommender()
    folder = tmp_path_factory.mktemp("run")
    make_run(list(processor.catalog.item_ids), processor.split_fingerprint).save(folder)
    with staged(llm, "user/model", folder) as files:
        assert (files / "evaluation" / "run.json").is_file() and (files / "model.safetensors").is_symlink()
    assert not files.exists()


def test_paths_of_the_machine_are_not_published():
    details = {"checkpoint": "/home/me/model", "num_beams": 20, "decoder": "constrained", "parts": ["a"]}
    public = public_details({**details, "split_fingerprint": "ab", "model": "outputs/mine"})
    assert public == {"num_beams": 20, "decoder": "constrained", "parts": ["a"], "split_fingerprint": "ab"}
