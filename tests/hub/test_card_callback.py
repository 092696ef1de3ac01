"""Every saved model has its card, from what the trainer knows at that step."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard
from peft import LoraConfig

from hf_latentrec.evaluation import RecEvaluator, SequentialEvaluator
from hf_latentrec.hub import CardFacts
from hf_latentrec.trainer import LaresTrainer, LaresTrainingConfig, LatentSFTConfig, LatentSFTTrainer
from tests.tiny import make_tiny_recommender
from tests.trainer.lares_toys import make_toy


def make_trainer(out, num_thoughts: int = 0, peft_config=None, **settings) -> LatentSFTTrainer:
    model, processor, splits = make_tiny_recommender(num_thoughts=num_thoughts)
    settings = {"max_steps": 2, "learning_rate": 0.05, "use_cpu": True, "disable_tqdm": True, **settings}
    return LatentSFTTrainer(
        model,
        LatentSFTConfig(out, **settings),
        train_dataset=splits["train"],
        evaluator=RecEvaluator(processor, splits["validation"], num_beams=10),
        processing_class=processor,
        peft_config=peft_config,
    )


def test_a_run_that_keeps_its_best_step(tmp_path):
    trainer = make_trainer(
        tmp_path, max_steps=3, save_steps=1, eval_steps=1, eval_strategy="steps", save_strategy="steps",
        load_best_model_at_end=True, metric_for_best_model="NDCG@10", greater_is_better=False, eval_on_start=True,
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    logged = {entry["step"]: entry["eval_NDCG@10"] for entry in trainer.state.log_history if "eval_NDCG@10" in entry}
    assert len(logged) == 4
    for step in logged:
        facts = CardFacts.load(tmp_path / f"checkpoint-{step}")
        assert facts.training["steps"] == step and facts.validation["NDCG@10"] == logged[step]
        assert ModelCard.load(tmp_path / f"checkpoint-{step}" / "README.md").data.library_name == "hf_latentrec"
    best = CardFacts.load(tmp_path)
    assert best.training["steps"] == trainer.state.best_global_step != 3
    assert best.validation["NDCG@10"] == min(logged.values())
    assert best.hyperparameters["max_steps"] == 3 and "output_dir" not in best.hyperparameters
    assert (best.system, best.trainer) == ("minionerec", "LatentSFTTrainer")
    assert best.training["examples"] == 143 and best.training["rows per step"] == 8  # in 24 packed rows
    assert not list(tmp_path.glob("*.bin"))


def test_what_only_the_user_knows_is_told(tmp_path):
    trainer = make_trainer(tmp_path, save_strategy="no")
    trainer.model_card.update({"name": "Beauty", "license": "CC0"}, title="Mine")
    trainer.create_model_card(license="mit", tags="a tag", dataset_tags="org/data", language="en")
    card = ModelCard.load(tmp_path / "README.md")
    assert (
        "# Mine" in card.text and "| data set | Beauty |" in card.text and "| licence of the data | CC0 |" in card.text
    )
    assert card.data.license == "mit" and "a tag" in card.data.tags and card.data.datasets == ["org/data"]
    with pytest.raises(TypeError, match="tasks"):
        trainer.create_model_card(tasks="ranking")


def test_a_card_written_by_hand_is_not_written_over(tmp_path):
    (tmp_path / "README.md").write_text("# My words")
    trainer = make_trainer(tmp_path, save_strategy="no")
    trainer.save_model()
    assert (tmp_path / "README.md").read_text() == "# My words"
    assert CardFacts.load(tmp_path).trainer == "LatentSFTTrainer"


def test_the_card_of_an_item_id_model(tmp_path):
    toy = make_toy()
    settings = LaresTrainingConfig(tmp_path, max_steps=1, save_steps=1, use_cpu=True, disable_tqdm=True)
    trainer = LaresTrainer(
        toy.model, settings, train_dataset=toy.dataset, evaluator=SequentialEvaluator(toy.splits["validation"])
    )
    trainer.train()
    facts = CardFacts.load(tmp_path / "checkpoint-1")
    assert (facts.system, facts.kind, facts.data.num_items) == ("lares", "item_ids", 60)
    assert "recommend([[" in (tmp_path / "checkpoint-1" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_a_model_with_lora_is_described_as_itself(tmp_path):
    trainer = make_trainer(tmp_path, peft_config=LoraConfig(r=2), save_steps=1)
    trainer.train()
    facts = CardFacts.load(tmp_path / "checkpoint-2")
    assert (facts.model_class, facts.system) == ("Qwen3ForLatentReasoningRec", "minionerec")


def test_optimizer_states_are_not_for_the_hub(tmp_path):
    with pytest.raises(ValueError, match="hub_strategy 'all_checkpoints' would publish optimizer states"):
        make_trainer(tmp_path, push_to_hub=True, hub_strategy="all_checkpoints", hub_token="none")
