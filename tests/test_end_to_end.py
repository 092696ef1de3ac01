"""The whole path: examples, training, checkpoint, a new process, recommendations."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from hf_latentrec import LatentRecProcessor
from hf_latentrec.data import NextItemCollator
from hf_latentrec.evaluation import RecEvaluator
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie
from hf_latentrec.trainer import LatentSFTConfig, LatentSFTTrainer
from tests.tiny import make_tiny_recommender


@pytest.mark.parametrize("num_thoughts", [0, 3])
def test_eight_examples_are_learned_by_heart(tmp_path, num_thoughts):
    model, processor, splits = make_tiny_recommender(num_thoughts)
    examples = splits["test"].select(range(8))
    config = LatentSFTConfig(
        str(tmp_path), max_steps=60, learning_rate=1e-2, per_device_train_batch_size=8, use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    LatentSFTTrainer(
        model, config, train_dataset=examples, data_collator=NextItemCollator(processor), processing_class=processor
    ).train()
    evaluator = RecEvaluator(processor, examples, num_beams=5, ks=(1,))
    assert evaluator.evaluate(model).metrics["HR@1"] == 1.0


LOAD_AND_RECOMMEND = """
import json, sys
import hf_latentrec
from transformers import AutoModel, AutoProcessor
folder, histories = sys.argv[1], json.loads(sys.argv[2])
model = AutoModel.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)
output = model.generate(**processor(histories), item_trie=processor.item_trie, num_beams=10)
print(json.dumps([type(model).__name__, processor.split_fingerprint, processor.post_process_recommendations(output)]))
"""


def test_a_new_process_gives_identical_recommendations(tmp_path):
    model, processor, splits = make_tiny_recommender(num_thoughts=2, initializer_range=0.2)
    model.eval().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    histories = splits["test"]["history"][:3]
    output = model.generate(**processor(histories), item_trie=processor.item_trie, num_beams=10)
    expected = processor.post_process_recommendations(output)
    command = [sys.executable, "-c", LOAD_AND_RECOMMEND, str(tmp_path), json.dumps(histories)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    name, fingerprint, recommendations = json.loads(run.stdout.splitlines()[-1])
    assert name == "Qwen3ForLatentReasoningRec"
    assert fingerprint == processor.split_fingerprint
    for mine, theirs in zip(expected, recommendations, strict=True):
        assert [item["item_id"] for item in mine] == [item["item_id"] for item in theirs]
        assert [item["title"] for item in mine] == [item["title"] for item in theirs]
        assert [item["score"] for item in mine] == pytest.approx([item["score"] for item in theirs], abs=1e-6)
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".pth")]


def test_a_trie_of_another_catalog_is_refused(tmp_path):
    _, processor, _ = make_tiny_recommender()
    processor.save_pretrained(tmp_path)
    ItemTrie.from_sequences([[1, 2], [3, 4]], catalog_fingerprint="another").save(tmp_path / "item_trie.safetensors")
    with pytest.raises(ValueError, match="another"):
        LatentRecProcessor.from_pretrained(tmp_path)


def test_more_beams_than_items_gives_each_item_once():
    model, processor, splits = make_tiny_recommender()
    inputs = processor(splits["test"]["history"][:2])
    output = model.eval().generate(**inputs, item_trie=processor.item_trie, num_beams=500)
    for items in processor.post_process_recommendations(output):
        assert len(items) == len({item["item_id"] for item in items}) == len(processor.catalog)
        assert all(torch.tensor(item["score"]).isfinite() for item in items)
