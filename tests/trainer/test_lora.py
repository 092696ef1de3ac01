"""LoRA through PEFT: what moves, that gradients are those of full fine-tuning, and that models and runs come back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModel
from trl import ModelConfig, get_peft_config

from hf_latentrec.data import PackedHistoryCollator
from hf_latentrec.evaluation import RecEvaluator
from hf_latentrec.trainer import LatentConfig, LatentSFTConfig, LatentSFTTrainer, LatentTrainer
from hf_latentrec.trainer.lora import add_lora, added_token_ids, merge_lora, unwrap_lora
from tests.tiny import make_tiny_recommender


# PEFT 0.21 asks transformers by a name that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

NEW_IDS = [4, 5, 6, 7, 8, 9, 10, 11, 14, 15]  # the toy's codes and markers
OLD_IDS = [0, 1, 2, 3, 12, 13]


@pytest.fixture(params=["feedback", "latent_attention"])
def reasoner(request):
    """A reasoner without, and one with, weights."""
    return request.param


@pytest.fixture
def make_lora_model(make_model, reasoner):
    def make(**kwargs):
        settings = {"reasoner": reasoner, "num_thoughts": 2, "thought_markers": True}
        return make_model(reasoner_config=settings, **kwargs)

    return make


@pytest.fixture
def make_trainer(tmp_path, toy, make_lora_model):
    def make(peft_config=None, new_token_ids=NEW_IDS, evaluator=None, tied=False, **args):
        settings = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 0.1, "logging_steps": 1, **args}
        settings = {"save_strategy": "no", **settings}
        model = make_lora_model(tie_word_embeddings=tied, initializer_range=0.2)
        return LatentTrainer(
            model,
            LatentConfig(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=toy.collate,
            train_dataset=toy.dataset,
            item_trie=toy.trie,
            evaluator=evaluator,
            peft_config=LoraConfig(r=2) if peft_config is None else peft_config,
            new_token_ids=new_token_ids,
        )

    return make


def batch_of(toy):
    return {name: tensor for name, tensor in toy.collate(toy.rows).items() if name != "user_ids"}


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("tied", [False, True])
def test_lora_reasoner_and_new_rows_move_and_nothing_else(make_trainer, reasoner, tied):
    trainer = make_trainer(tied=tied)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trained = trained_names(trainer.model)
    assert sum("lora_A" in name for name in trained) == sum("lora_B" in name for name in trained) == 4
    assert sum("trainable_tokens_delta" in name for name in trained) == (1 if tied else 2)
    assert sum("reasoner" in name for name in trained) == (6 if reasoner == "latent_attention" else 0)
    assert not any("reasoner" in name and "lora" in name for name in before)
    trainer.train()
    after = trainer.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # In a tied model the rows are one parameter under two names of the state.
    assert {name for name in moved if not (tied and "lm_head" in name)} == trained

    start = dict(merge_lora(make_trainer(tied=tied).model).named_parameters())
    merged = merge_lora(trainer.model)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        now, then = merged.get_parameter(name), start.get(name, start["model.embed_tokens.weight"])
        assert torch.equal(now[OLD_IDS], then[OLD_IDS]) and (now[NEW_IDS] != then[NEW_IDS]).any(-1).all()
    unmoved = {name for name, parameter in merged.named_parameters() if torch.equal(parameter, start[name])}
    adapted = {name for name in start if "q_proj" in name or "v_proj" in name or "reasoner" in name}
    assert set(start) - unmoved == adapted | {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})


def test_what_was_frozen_in_the_reasoner_is_not_trained(make_model):
    def trained_in_reasoner(model):
        return {name.rpartition("reasoner.")[2] for name in trained_names(model) if "reasoner." in name}

    model = make_model(1, reasoner_config={"reasoner": "factorized_attention"})
    before = trained_in_reasoner(model)
    assert "loss_log_variances" not in before and before
    after = trained_in_reasoner(add_lora(model, LoraConfig(r=2), NEW_IDS))
    assert after == {f"modules_to_save.default.{name}" for name in before}

    model = make_model(0, reasoner_config={"reasoner": "latent_attention"})
    model.reasoner.requires_grad_(False)
    assert trained_in_reasoner(add_lora(model, LoraConfig(r=2), NEW_IDS)) == set()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("catalog", [False, True])
def test_first_gradients_are_those_of_full_fine_tuning(make_lora_model, toy, reasoner, tied, catalog):
    """LoRA's B is 0 at first, so that the function is that of the model itself."""
    full = make_lora_model(tie_word_embeddings=tied)
    wrapped = add_lora(make_lora_model(tie_word_embeddings=tied), LoraConfig(r=2), NEW_IDS)
    trie = toy.trie if catalog else None
    losses = [model(**batch_of(toy), item_trie=trie).loss for model in (full, wrapped)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    base = unwrap_lora(wrapped)
    for wrapper, whole in [(base.model.embed_tokens, full.model.embed_tokens), (base.lm_head, full.lm_head)]:
        rows = wrapper.token_adapter.trainable_tokens_delta["default"].grad
        assert whole.weight.grad[NEW_IDS].abs().max() > 0
        torch.testing.assert_close(rows, whole.weight.grad[NEW_IDS], atol=1e-7, rtol=1e-4)
    if reasoner == "latent_attention":
        ours = base.reasoner.modules_to_save["default"].v_proj.weight.grad
        torch.testing.assert_close(ours, full.reasoner.v_proj.weight.grad, atol=1e-7, rtol=1e-4)


def test_the_wrapped_model_is_used_like_the_recommender(make_lora_model, toy, reasoner):
    full, wrapped = make_lora_model().eval(), add_lora(make_lora_model(), LoraConfig(r=2), NEW_IDS).eval()
    assert wrapped.config is unwrap_lora(wrapped).config and wrapped.config.num_thoughts == 2
    assert unwrap_lora(full) is full
    packed = {
        "input_ids": torch.tensor([[1, 4, 8, 5, 9, 7, 11]]),
        "labels": torch.tensor([[[5, 9], [7, 11]]]),
        "branch_starts": torch.tensor([[3, 5]]),
        "labels_follow_prompt": True,
        "item_trie": toy.trie,
        "num_items_in_batch": 3,
    }
    for batch in (packed, batch_of(toy)):
        ours, theirs = (model(**batch) for model in (wrapped, full))
        torch.testing.assert_close(ours.logps, theirs.logps)
        torch.testing.assert_close(ours.loss, theirs.loss)
    prompt = {name: batch_of(toy)[name] for name in ("input_ids", "attention_mask")}
    for model in (wrapped, unwrap_lora(wrapped)):
        ours, theirs = (m.generate(**prompt, item_trie=toy.trie, num_beams=5) for m in (model, full))
        assert torch.equal(ours.sequences, theirs.sequences)


@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_model_saves_and_loads_like_any_other(make_trainer, toy, reasoner, tied, tmp_path):
    trainer = make_trainer(tied=tied, learning_rate=0.01)
    trainer.train()
    wrapped = trainer.model.eval()
    expected = wrapped(**batch_of(toy)).logits
    merged = merge_lora(wrapped)
    assert not isinstance(merged, PeftModel) and all(p.requires_grad for p in merged.parameters())
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied
    merged.save_pretrained(tmp_path / "merged")
    loaded = AutoModel.from_pretrained(tmp_path / "merged").eval()
    assert set(loaded.state_dict()) == set(loaded.__class__(loaded.config).state_dict())
    torch.testing.assert_close(merged(**batch_of(toy)).logits, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(loaded(**batch_of(toy)).logits, merged(**batch_of(toy)).logits)


@pytest.mark.parametrize("tied", [False, True])
def test_resumed_run_equals_uninterrupted_run(make_trainer, reasoner, tied):
    settings = {"tied": tied, "max_steps": 5, "save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-2}
    whole = make_trainer(LoraConfig(r=2, lora_dropout=0.2), **settings)
    whole.train()
    torch.manual_seed(99)  # what a new process has drawn before must not matter
    resumed = make_trainer(LoraConfig(r=2, lora_dropout=0.2), **settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 5
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert trained_names(resumed.model) == trained_names(whole.model)


def test_first_weights_are_drawn_from_the_seed(make_trainer):
    states = []
    for seed in (1, 1, 2):
        states.append(make_trainer(seed=seed).model.state_dict())
        torch.manual_seed(99)
    name = next(name for name in states[0] if "lora_A" in name)
    assert torch.equal(states[0][name], states[1][name]) and not torch.equal(states[0][name], states[2][name])


class Scripted:
    """An evaluator that gives one value after the other and remembers the weights and answers that it saw."""

    def __init__(self, toy, *values):
        self.toy, self.values, self.weights, self.models = toy, list(values), [], []

    def evaluate(self, model):
        prompt = {name: batch_of(self.toy)[name] for name in ("input_ids", "attention_mask")}
        model.generate(**prompt, item_trie=self.toy.trie, num_beams=2)
        self.models.append(model)
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return SimpleNamespace(metrics={"NDCG@10": self.values.pop(0)})


@pytest.mark.parametrize("values", [(0.5, 0.4, 0.3), (0.1, 0.4, 0.3)])
def test_the_best_adapter_comes_back(make_trainer, toy, reasoner, values):
    evaluator = Scripted(toy, *values)
    trainer = make_trainer(
        evaluator=evaluator,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="NDCG@10",
        eval_on_start=True,
    )
    trainer.train()
    best = values.index(max(values))
    assert trainer.state.best_global_step == 2 * best and evaluator.values == []
    state = trainer.model.get_base_model().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in evaluator.weights[best].items())
    assert any(not torch.equal(state[name], tensor) for name, tensor in evaluator.weights[2].items())
    assert all(not isinstance(model, PeftModel) for model in evaluator.models)


@pytest.mark.parametrize("num_thoughts", [0, 2])
def test_packed_histories_train_the_tokens_of_the_processor(tmp_path, num_thoughts):
    """Everything by default, and the settings from TRL's command line."""
    model, processor, splits = make_tiny_recommender(num_thoughts)
    trainer = LatentSFTTrainer(
        model,
        LatentSFTConfig(
            tmp_path,
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            max_steps=12,
            per_device_train_batch_size=8,
            learning_rate=0.02,
            logging_steps=4,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=processor,
        evaluator=RecEvaluator(processor, splits["validation"], num_beams=10),
        peft_config=get_peft_config(ModelConfig(use_peft=True, lora_r=2)),
    )
    assert isinstance(trainer.data_collator, PackedHistoryCollator)
    rows = trainer.model.get_input_embeddings().token_adapter.token_indices["default"]
    assert rows == added_token_ids(processor)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.5
    assert {"eval_NDCG@10", "eval_HR@5"} <= set(after)


def test_added_tokens_are_codes_and_markers():
    _, processor, _ = make_tiny_recommender()
    tokenizer = processor.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(added_token_ids(processor))
    assert {"<|start_thought|>", "<|end_thought|>"} <= set(tokens) and "<|endoftext|>" not in tokens
    assert len(tokens) == len(tokenizer) - 258  # behind the bytes, padding and end of text
    with pytest.raises(ValueError, match="processing_class is NoneType.*or new_token_ids=.* to the trainer"):
        added_token_ids(None)


def test_settings_are_not_changed(make_model):
    config = LoraConfig(r=2, task_type="CAUSAL_LM", modules_to_save=["gate_proj"], target_modules=["o_proj"])
    before = config.to_dict()
    model = add_lora(make_model(), config, NEW_IDS)
    assert config.to_dict() == before
    lora = [name for name in trained_names(model) if "lora" in name]
    assert lora and all("o_proj" in name for name in lora)
    assert sum("gate_proj" in name for name in trained_names(model)) == 2  # one per layer


def test_what_cannot_be_meant_is_refused(make_model, make_trainer, tmp_path):
    with pytest.raises(ValueError, match="peft_config is a dict; pass a peft.LoraConfig"):
        add_lora(make_model(), {"r": 2})
    with pytest.raises(ValueError, match="wrapped by PEFT already"):
        add_lora(add_lora(make_model(), LoraConfig()), LoraConfig())
    with pytest.raises(ValueError, match="target_modules name lm_head, .*modules_to_save"):
        add_lora(make_model(), LoraConfig(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(ValueError, match="trainable_token_indices; name these tokens in new_token_ids"):
        add_lora(make_model(), LoraConfig(trainable_token_indices=[3]))
    with pytest.raises(ValueError, match="run from 3 to 16, but the model has 16 tokens; call model.resize_token_emb"):
        add_lora(make_model(), LoraConfig(), [16, 3])
    with pytest.raises(ValueError, match="new_token_ids are given without a peft_config"):
        LatentTrainer(make_model(), LatentConfig(tmp_path, use_cpu=True), new_token_ids=[3])
    with pytest.raises(ValueError, match="added_token_ids: processing_class is NoneType"):
        make_trainer(new_token_ids=None)
