"""The base trainer: named terms, metrics, the items of a global batch, checkpoints, and the order after a restart."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from torch.utils.data import BatchSampler
from transformers import Trainer
from transformers.modeling_outputs import ModelOutput

from hf_latentrec.trainer import LatentConfig, LatentSFTTrainer, LatentTrainer
from hf_latentrec.trainer.latent_trainer import check_reasoner_is_used
from hf_latentrec.trainer.running_means import RunningMeans


class TwoTerms(LatentTrainer):
    """A loss of two terms; the second becomes `value` in the third step, and is half as large in evaluation."""

    value = 0.5

    def compute_terms(self, model, inputs, num_items_in_batch):
        terms, outputs = super().compute_terms(model, inputs, num_items_in_batch)
        extra = 0.25 if not model.training else self.value if self.state.global_step == 2 else 0.5
        terms["extra"] = extra * self.count_items(inputs) / num_items_in_batch
        return terms, outputs


@pytest.fixture
def make_trainer(tmp_path, toy, make_model):
    def make(
        trainer_class=LatentTrainer, dataset=toy.dataset, model=None, processing_class=None, item_trie=None, **args
    ):
        settings = {
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "max_steps": 4,
            **args,
        }
        return trainer_class(
            make_model() if model is None else model,
            trainer_class.config_class(tmp_path / "run", use_cpu=True, disable_tqdm=True, **settings),
            data_collator=toy.collate,
            train_dataset=dataset,
            eval_dataset=dataset,
            processing_class=processing_class,
            item_trie=item_trie,
        )

    return make


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_running_means():
    means = RunningMeans()
    means.add("a", torch.tensor(3.0), 2)
    means.add("a", torch.tensor(5.0), torch.tensor(6))
    means.add("b", torch.tensor(True), 4)
    assert means.pop(lambda sums: 2 * sums) == {"a": 1.0, "b": 0.25}
    assert means.pop() == {}


def test_terms_are_summed_and_logged(make_trainer):
    trainer = make_trainer(TwoTerms, gradient_accumulation_steps=2, logging_steps=2)
    trainer.train()
    losses, crosses, extras = (history(trainer, key) for key in ("loss", "loss/cross_entropy", "loss/extra"))
    assert extras == pytest.approx([0.5, 0.5]) and len(losses) == 2
    assert losses == pytest.approx([cross + 0.5 for cross in crosses], abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_training(make_trainer, value, toy):
    trainer = make_trainer(TwoTerms, train_sampling_strategy="sequential")
    trainer.value = value
    with pytest.raises(ValueError, match=rf"TwoTerms: loss term 'extra' is {value} in step 3, .* 2 users.*'u4', 'u5'"):
        trainer.train()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_only_five_users_are_named(make_trainer):
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"for 900 users, the first: 'u0', 'u1', 'u2', 'u3', 'u4';"):
        trainer.check_finite({"loss": torch.tensor(torch.nan)}, [f"u{user}" for user in range(900)])


def test_items_count_every_label_of_every_answer(make_trainer):
    """The Trainer's own count leaves out the first label of models with a causal loss."""
    trainer = make_trainer()
    trainer.model.loss_type = "ForCausalLM"
    labels = torch.tensor([[[4, 8], [5, -100]], [[6, 8], [-100, -100]]])
    batches = [{"labels": labels}, {"labels": labels[:1, 0]}]
    assert trainer._get_num_items_in_batch(batches, torch.device("cpu")).item() == 7


def test_hooks_that_the_base_overrides_still_exist():
    assert list(inspect.signature(Trainer._get_num_items_in_batch).parameters) == ["self", "batch_samples", "device"]
    assert list(inspect.signature(Trainer._get_train_sampler).parameters) == ["self", "train_dataset"]
    assert list(inspect.signature(Trainer._save).parameters) == ["self", "output_dir", "state_dict"]
    assert "self.model_accepts_loss_kwargs" in inspect.getsource(Trainer.training_step)


def test_accumulated_gradient_equals_that_of_one_batch(make_trainer, toy, make_model):
    """Four batches of one example with different numbers of labels weigh as one batch of four."""

    class Recorder(LatentSFTTrainer):
        def _clip_grad_norm(self, model):
            self.gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
            return super()._clip_grad_norm(model)

    rows = [dict(row) for row in toy.rows[:4]]
    rows[1]["labels"] = [rows[1]["labels"][0], -100]
    rows[2]["labels"] = [rows[2]["labels"][0], -100]
    results = []
    for batch_size, accumulation in [(4, 1), (1, 4), (2, 2)]:
        trainer = make_trainer(
            Recorder,
            dataset=rows,
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        results.append((trainer.gradients, history(trainer, "loss")[0]))
    for gradients, loss in results[1:]:
        assert loss == pytest.approx(results[0][1], abs=1e-4)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][0][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize("stop", [3, 4, 6])  # inside the first epoch, at its end, inside the second
def test_resumed_run_equals_uninterrupted_run(make_trainer, make_model, strategy, stop):
    settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": stop, "learning_rate": 1e-2}
    settings["train_sampling_strategy"] = strategy
    whole = make_trainer(model=make_model(embedding_dropout=0.3, attention_dropout=0.2), **settings)
    whole.train()
    torch.manual_seed(99)  # what a new process has drawn before must not matter
    resumed = make_trainer(model=make_model(embedding_dropout=0.3, attention_dropout=0.2), **settings)
    resumed.train(resume_from_checkpoint=str(whole.args.output_dir) + f"/checkpoint-{stop}")
    assert history(resumed, "loss") == history(whole, "loss") and len(history(whole, "loss")) == 8
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_epochs_differ_in_order(make_trainer):
    seen = []

    class Watch(LatentTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.extend(inputs["user_ids"])
            return super().compute_loss(model, inputs, *args, **kwargs)

    make_trainer(Watch, max_steps=8).train()
    assert sorted(seen[:8]) == sorted(seen[8:]) and seen[:8] != seen[8:]


def test_the_sampler_learns_the_epoch_of_a_restart_on_several_processes(make_trainer):
    """accelerate does not reach it behind skipped batches; once it does, `SetEpochCallback` can go."""
    trainer = make_trainer()
    sampler = trainer._get_train_sampler()
    shard = BatchSamplerShard(BatchSampler(sampler, 2, drop_last=False), num_processes=2, process_index=0)
    loader = DataLoaderShard(trainer.train_dataset, batch_sampler=shard)
    skip_first_batches(loader, 1).set_epoch(1)
    assert sampler.epoch == 0
    trainer.state.epoch = 1.5
    trainer.callback_handler.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert sampler.epoch == 1


def test_every_process_draws_its_own_random_numbers(make_trainer):
    trainer = make_trainer()

    def first_number(**args):
        torch.manual_seed(7)
        settings = SimpleNamespace(**{"seed": 3, "world_size": 2, "process_index": 0, **args})
        trainer.callback_handler.on_train_begin(settings, trainer.state, trainer.control)
        return torch.rand(()).item()

    numbers = [first_number(process_index=process) for process in (0, 1)]
    assert numbers[0] != numbers[1] and numbers[0] != first_number(seed=4)
    torch.manual_seed(7)
    assert first_number(world_size=1) == torch.rand(torch.Size(()), generator=torch.Generator().manual_seed(7)).item()


def test_evaluation_keeps_its_means_apart(make_trainer):
    trainer = make_trainer(TwoTerms, eval_strategy="steps", eval_steps=2, logging_steps=4)
    trainer.train()
    assert history(trainer, "eval_loss/extra") == [0.25, 0.25]
    assert history(trainer, "loss/extra") == [0.5]
    assert len(history(trainer, "eval_loss")) == 2
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss/cross_entropy"] + 0.25, abs=1e-5)


def test_checkpoint_holds_processor_and_no_pickled_settings(make_trainer, tmp_path):
    class Processor:
        def save_pretrained(self, folder):
            (tmp_path / folder / "processor.json").write_text("{}")

    trainer = make_trainer(processing_class=Processor(), save_strategy="steps", save_steps=4)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-4"):
        assert (folder / "processor.json").is_file() and (folder / "model.safetensors").is_file()
        assert not (folder / "training_args.bin").exists()
        assert json.loads((folder / "training_args.json").read_text())["max_steps"] == 4
    assert trainer.model.config.use_cache is True


def test_trie_comes_from_the_processor(make_trainer, toy):
    class Processor:
        item_trie = toy.trie

    assert make_trainer(normalize="catalog", processing_class=Processor()).item_trie.num_leaves == 10
    with pytest.raises(ValueError, match="LatentTrainer: no item trie; pass item_trie=..."):
        make_trainer(normalize="catalog")


def test_wrong_settings_are_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match="LatentSFTTrainer: args is a LatentConfig; pass a LatentSFTConfig"):
        LatentSFTTrainer(make_model(), LatentConfig(tmp_path, use_cpu=True))


def test_grouping_wants_a_length_column(make_trainer, toy):
    trainer = make_trainer(dataset=toy.dataset.remove_columns("length"), train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="no column 'length'"):
        trainer.train()


def test_users_never_reach_the_model(make_trainer):
    class Strict(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, input_ids, attention_mask, labels, item_trie, num_items_in_batch):
            assert item_trie is None
            return ModelOutput(loss=self.weight * labels.ne(-100).sum() / num_items_in_batch)

    trainer = make_trainer(model=Strict(), gradient_accumulation_steps=2)
    trainer.train()
    assert history(trainer, "loss")[0] == pytest.approx(1.0)


def test_processes_that_do_not_know_each_other_are_refused(make_trainer, monkeypatch):
    trainer = make_trainer()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched.*a world of 1"):
        type(trainer)(trainer.model, trainer.args)


def test_a_reasoner_that_is_not_asked_is_refused_where_processes_wait_for_it(make_model):
    model = make_model(num_thoughts=0, reasoner_config={"reasoner": "latent_attention"})
    several = SimpleNamespace(world_size=2, ddp_find_unused_parameters=False)
    with pytest.raises(ValueError, match="num_thoughts is 0, so no loss reaches the weights of its reasoner"):
        check_reasoner_is_used(model, several)
    check_reasoner_is_used(model, SimpleNamespace(world_size=1, ddp_find_unused_parameters=False))
    check_reasoner_is_used(model.requires_grad_(False), several)
    check_reasoner_is_used(make_model(num_thoughts=0), several)
    check_reasoner_is_used(make_model(reasoner_config={"reasoner": "latent_attention"}), several)
