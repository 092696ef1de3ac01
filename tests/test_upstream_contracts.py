"""
Behaviours of transformers and TRL that the code leans on, or that explain why it does not lean on them.

A failure here after an upgrade says what changed before anything else fails in a less readable way.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Trainer,
    TrainingArguments,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer


VOCAB_SIZE = 40
PREFIX = [[3, 14, 15, 9, 26, 5]]


class ContractConfig(Qwen3Config):
    model_type = "qwen3_latentrec_contract"


class ContractModel(Qwen3Model):
    config: ContractConfig
    config_class = ContractConfig


class Qwen3ForLatentReasoningContract(Qwen3ForCausalLM):
    """A head whose name transformers does not know and whose labels are answers, not a shifted copy of the input."""

    def forward(self, input_ids, labels=None, **kwargs):
        self.seen_num_items = kwargs.get("num_items_in_batch")
        return {"loss": self.model(input_ids).last_hidden_state.sum()}


class AllowOnly(LogitsProcessor):
    """Allows, in the first generated position, `tokens` only, and remembers the scores it was given."""

    def __init__(self, tokens: list[int], prompt_length: int):
        self.tokens, self.prompt_length, self.seen = tokens, prompt_length, []

    def __call__(self, input_ids, scores):
        self.seen.append((input_ids.shape, scores.clone()))
        if input_ids.shape[1] > self.prompt_length:
            return scores
        masked = torch.full_like(scores, -torch.inf)
        masked[:, self.tokens] = scores[:, self.tokens]
        return masked


def tiny_config(cls=Qwen3Config, **kwargs):
    return cls(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        pad_token_id=0,
        **kwargs,
    )


def tiny_model(attn_implementation: str = "sdpa") -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM._from_config(tiny_config(), attn_implementation=attn_implementation).eval()


def additive(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


# Masks: tree attention


def test_a_4d_mask_passes_through_create_causal_mask():
    """Tree attention hands its own mask to the stock backbones."""
    mask = torch.ones(1, 1, 2, 5, dtype=torch.bool)
    made = create_causal_mask(
        config=tiny_model().config, inputs_embeds=torch.zeros(1, 2, 32), attention_mask=mask, past_key_values=None
    )
    assert made is mask


def branch_logits(model, as_mask):
    """Logits of K=3 branches of T=2 tokens behind one cached prefix: as one row of branches and as three rows."""
    prefix, branches = torch.tensor(PREFIX), torch.tensor([[7, 8], [9, 10], [7, 11]])
    K, T, P = 3, 2, prefix.shape[1]
    own = torch.kron(torch.eye(K), torch.ones(T, T).tril()).bool()
    mask = torch.cat([torch.ones(K * T, P, dtype=torch.bool), own], dim=1)[None, None]  # [1, 1, K*T, P+K*T]
    with torch.no_grad():
        cache = model(prefix, use_cache=True).past_key_values
        tree = model(
            branches.reshape(1, -1),
            attention_mask=as_mask(mask),
            position_ids=torch.arange(P, P + T).repeat(K)[None],
            past_key_values=cache,
        ).logits.reshape(K, T, -1)
        rows = model(torch.cat([prefix.expand(K, -1), branches], dim=1)).logits[:, P:]
    return tree, rows


@pytest.mark.parametrize(("attn_implementation", "as_mask"), [("sdpa", torch.Tensor.bool), ("eager", additive)])
def test_branches_behind_one_cached_prefix_equal_separate_rows(attn_implementation, as_mask):
    """The whole decoder and both trainers: a boolean mask for sdpa, an additive one for eager."""
    tree, rows = branch_logits(tiny_model(attn_implementation), as_mask)
    torch.testing.assert_close(tree, rows, atol=1e-5, rtol=0)


def test_eager_attention_adds_a_boolean_mask():
    """Why tree attention builds its mask per implementation."""
    tree, rows = branch_logits(tiny_model("eager"), torch.Tensor.bool)
    assert (tree - rows).abs().max() > 1e-4


def test_restarting_positions_without_mask_mean_packed_sequences():
    """Why branches never go through a backbone without an explicit mask."""
    model, ids = tiny_model(), torch.tensor(PREFIX)
    restarting = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        unmasked = model(ids, position_ids=restarting, use_cache=False).logits
        alone = model(ids[:, 3:], use_cache=False).logits
    torch.testing.assert_close(unmasked[:, 3:], alone, atol=1e-5, rtol=0)


# Cache


def test_gradients_flow_through_the_cached_prompt():
    """SFT and GRPO encode the prompt once and backpropagate through its cache."""
    prompt, answer = torch.tensor(PREFIX), torch.tensor([[7, 8, 9]])

    def gradients(logits_of):
        torch.manual_seed(0)
        model = tiny_model()
        logits_of(model).square().mean().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    def cached(model):
        return model(answer, past_key_values=model(prompt, use_cache=True).past_key_values).logits

    def concatenated(model):
        return model(torch.cat([prompt, answer], dim=1), use_cache=False).logits[:, prompt.shape[1] :]

    expected, found = gradients(concatenated), gradients(cached)
    assert "model.layers.0.self_attn.k_proj.weight" in found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def prefix_cache(batch_size: int = 2) -> DynamicCache:
    ids = torch.randint(1, VOCAB_SIZE, (batch_size, 6))
    with torch.no_grad():
        return tiny_model()(ids, past_key_values=DynamicCache(config=tiny_config()), use_cache=True).past_key_values


def test_cache_layers_hold_keys_and_values_by_batch_head_and_position():
    """`ThoughtState` reads the shared prompt's keys and values."""
    cache = prefix_cache()
    assert [layer.keys.shape for layer in cache.layers] == [(2, 2, 6, 8)] * 2
    assert cache.layers[0].values.shape == (2, 2, 6, 8) and cache.get_seq_length() == 6


def test_crop_takes_the_number_of_tokens_to_remove_as_a_negative():
    """Decoding drops finished branches from the cache; a positive length, as of old, is an error."""
    cache = prefix_cache()
    kept = cache.layers[0].keys[:, :, :4].clone()
    cache.crop(-2)
    assert cache.get_seq_length() == 4 and torch.equal(cache.layers[0].keys, kept)
    with pytest.raises(ValueError, match="negative"):
        cache.crop(4)


def test_cache_rows_can_be_reordered_repeated_and_selected():
    """The plain computation that tree results are compared with repeats and reorders rows."""
    cache = prefix_cache()
    first, second = cache.layers[0].keys.clone()
    cache.batch_repeat_interleave(2)
    assert torch.equal(cache.layers[0].keys, torch.stack([first, first, second, second]))
    cache.reorder_cache(torch.tensor([2, 0, 0, 1]))
    assert torch.equal(cache.layers[0].keys, torch.stack([second, first, first, first]))
    cache.batch_select_indices(torch.tensor([0]))
    assert torch.equal(cache.layers[0].keys, second[None])


def test_gradient_checkpointing_drops_the_cache():
    """Why the models refuse gradient checkpointing: the answer would no longer see the prompt."""
    model, cache = tiny_model(), DynamicCache(config=tiny_config())
    prompt, answer = torch.tensor(PREFIX), torch.tensor([[7, 8]])
    own = {"position_ids": torch.tensor([[6, 7]]), "attention_mask": torch.ones(1, 1, 2, 2, dtype=torch.bool).tril()}
    with torch.no_grad():
        model(prompt, past_key_values=cache)
        alone = model(answer, **own).logits
    # By hand: the method that switches it on has had two names.
    for layer in model.model.layers:
        assert isinstance(layer, GradientCheckpointingLayer)
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    dropped = model.train()(answer, past_key_values=cache, **own).logits
    assert cache.get_seq_length() == prompt.shape[1]
    torch.testing.assert_close(dropped, alone, atol=1e-5, rtol=0)


# Beam search


def beam_search(model, ids, processor, **kwargs):
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=LogitsProcessorList([processor]),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **kwargs,
    )


def test_beam_search_normalizes_before_the_processors():
    """`normalize="vocabulary"` equals plain `generate`: masked beams keep full-vocabulary log-probabilities."""
    model, ids, allowed = tiny_model(), torch.tensor(PREFIX), [4, 8, 12]
    processor = AllowOnly(allowed, prompt_length=6)
    found = beam_search(
        model, ids, processor, num_beams=3, num_return_sequences=3, max_new_tokens=1, length_penalty=0.0
    )
    with torch.no_grad():
        log_probs_V = model(ids).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(processor.seen[0][1][0], log_probs_V, atol=1e-5, rtol=0)
    expected = log_probs_V[allowed].sort(descending=True).values
    torch.testing.assert_close(found.sequences_scores, expected, atol=1e-5, rtol=0)


def test_processors_see_every_beam_as_a_row_of_the_whole_sequence():
    """`ItemTrieLogitsProcessor` finds its trie node from `input_ids`, prompt included."""
    processor = AllowOnly([4, 8], prompt_length=6)
    beam_search(tiny_model(), torch.tensor(PREFIX * 2), processor, num_beams=2, max_new_tokens=2)
    assert [tuple(shape) for shape, _ in processor.seen] == [(4, 6), (4, 7)]


def test_scores_are_divided_by_length_unless_told_otherwise():
    """Why every call passes `length_penalty=0.0`: the default, 1.0, is filled in where the config says nothing."""
    assert GenerationConfig().length_penalty in (None, 1.0)
    model, ids = tiny_model(), torch.tensor(PREFIX)
    search = {"num_beams": 2, "max_new_tokens": 2}
    sums = beam_search(model, ids, AllowOnly([4, 8], 6), length_penalty=0.0, **search).sequences_scores
    default = beam_search(model, ids, AllowOnly([4, 8], 6), **search).sequences_scores
    torch.testing.assert_close(default, sums / 2)


def test_beams_beyond_the_valid_sequences_come_back_with_1e9_scores():
    """Why there is a beam search of our own: with fewer items than beams, plain `generate` invents the rest."""
    found = beam_search(
        tiny_model(),
        torch.tensor(PREFIX),
        AllowOnly([4, 8, 12], prompt_length=6),
        num_beams=5,
        num_return_sequences=5,
        max_new_tokens=1,
    )
    assert (found.sequences_scores[:3] > -1e3).all() and (found.sequences_scores[3:] <= -1e8).all()


def test_generate_repeats_the_prompt_per_beam_before_the_prefill():
    """Why the prompt is encoded by our own code: K beams cost K prompts in `generate`."""
    model, rows = tiny_model(), []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    model.generate(torch.tensor(PREFIX * 2), num_beams=4, max_new_tokens=2, do_sample=False)
    assert [tuple(shape) for shape in rows] == [(8, 6), (8, 1)]


def test_generate_continues_a_prefilled_and_repeated_cache():
    """The reference that tree decoding is compared with runs `generate` behind a cache that holds the thoughts."""
    model, ids = tiny_model(), torch.tensor(PREFIX * 2)
    ids[1, 0] = 30
    search = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 3, "length_penalty": 0.0}
    search |= {"do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), **search)
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
    cache.batch_repeat_interleave(3)
    # One anchor token and a mask as long as cache and anchor: what latent steps leave behind has no token ids.
    shared = model.generate(ids[:, -1:], attention_mask=torch.ones_like(ids), past_key_values=cache, **search)
    assert torch.equal(shared.sequences[:, 1:], plain.sequences[:, 6:])
    torch.testing.assert_close(shared.sequences_scores, plain.sequences_scores, atol=1e-5, rtol=0)


# Auto classes, tokenizers, weights


@pytest.fixture
def registered_contract_model():
    AutoConfig.register(ContractConfig.model_type, ContractConfig, exist_ok=True)
    AutoModel.register(ContractConfig, ContractModel, exist_ok=True)


def test_a_config_with_its_own_model_type_can_be_registered(registered_contract_model, tmp_path):
    """`import hf_latentrec` registers the Auto classes, and checkpoints load in a new process."""
    model = ContractModel(tiny_config(ContractConfig))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is ContractModel and type(loaded.config) is ContractConfig
    assert torch.equal(loaded.embed_tokens.weight, model.embed_tokens.weight)


def test_a_native_config_cannot_be_registered_again():
    """Why every backbone has a config class of its own."""

    class Subclass(Qwen3Model):
        pass

    with pytest.raises(ValueError, match="already used"):
        AutoModel.register(Qwen3Config, Subclass)


def test_a_plain_checkpoint_loads_and_only_new_modules_are_initialized(tmp_path):
    """A recommender starts from a released LLM, to which reasoner and depth policy are added."""

    class WithNewModule(Qwen3ForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            self.new = torch.nn.Linear(32, 32)
            self.post_init()

        def _init_weights(self, module):
            super()._init_weights(module)
            if module is getattr(self, "new", None):
                torch.nn.init.constant_(module.bias, 0.5)

    plain = tiny_model()
    plain.save_pretrained(tmp_path)
    loaded = WithNewModule.from_pretrained(tmp_path)
    for name, parameter in plain.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    assert (loaded.new.bias == 0.5).all() and loaded.new.weight.std() > 0


def small_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "next": 2, "item": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>")


def test_a_small_tokenizer_reloads_beside_a_config_of_its_own_model_type(registered_contract_model, tmp_path):
    """Tiny models ship a from-scratch tokenizer; beside a native model_type it would reload as that model's class."""
    tokenizer = small_tokenizer()
    tokenizer.add_tokens(["<a_1>"])
    tokenizer.save_pretrained(tmp_path)
    tiny_config(ContractConfig).save_pretrained(tmp_path)
    text = "next item <a_1>"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == tokenizer(text).input_ids == [2, 3, 4]


def test_plain_added_tokens_survive_decoding_and_special_ones_do_not():
    """Why semantic-ID tokens are plain added tokens."""
    tokenizer = small_tokenizer()
    tokenizer.add_tokens(["<a_1>"])
    tokenizer.add_tokens(["<b_1>"], special_tokens=True)
    assert tokenizer.decode([4, 5], skip_special_tokens=True) == "<a_1>"


# Trainers


def trainer_of(model, tmp_path, **kwargs) -> Trainer:
    rows = [{"input_ids": [3, 4, 5], "labels": [6, 7, -100]}] * 4
    args = TrainingArguments(
        output_dir=tmp_path, per_device_train_batch_size=2, max_steps=1, report_to=[], use_cpu=True, **kwargs
    )

    def collate(examples):
        return {key: torch.tensor([example[key] for example in examples]) for key in examples[0]}

    return Trainer(model=model, args=args, train_dataset=rows, data_collator=collate)


def test_trainer_hands_over_the_label_count_of_the_whole_optimizer_step(tmp_path):
    """Losses divide by `num_items_in_batch`, so accumulated steps weigh every answer token alike."""
    model = Qwen3ForLatentReasoningContract(tiny_config())
    trainer_of(model, tmp_path, gradient_accumulation_steps=2).train()
    assert model.seen_num_items == 8  # 2 micro-batches x 2 rows x 2 labels


def test_labels_are_counted_from_the_second_on_only_for_a_causal_lm_loss(tmp_path):
    """Our labels are not shifted, so a recommender must not carry `loss_type="ForCausalLM"`."""
    model = Qwen3ForLatentReasoningContract(tiny_config())
    assert model.loss_type is None
    model.loss_type = "ForCausalLM"
    trainer_of(model, tmp_path).train()
    assert model.seen_num_items == 2  # not 4: the first label of each row went uncounted


def test_trainer_multiplies_the_loss_by_the_number_of_processes(tmp_path, monkeypatch):
    """DDP averages gradients; with the count of all processes in the denominator, their sum is wanted."""
    trainer = trainer_of(Qwen3ForLatentReasoningContract(tiny_config()).eval(), tmp_path)
    assert trainer.args.average_tokens_across_devices
    inputs = {"input_ids": torch.tensor([[3, 4, 5]]), "labels": torch.tensor([[6, 7, -100]])}
    with torch.no_grad():
        one = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(2)).clone()
        monkeypatch.setattr(type(trainer.accelerator), "num_processes", property(lambda accelerator: 2))
        two = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(2))
    torch.testing.assert_close(two, 2 * one)


def test_a_trainer_may_declare_how_its_loss_is_scaled():
    """`LatentTrainer` subclasses that return a per-batch mean set `loss_is_scaled_for_ga = False`."""
    assert Trainer.loss_is_scaled_for_ga is None


@dataclass
class RecipeArguments:
    data_dir: str = ""


def test_trl_parser_refuses_unknown_keys_of_a_config_file(tmp_path):
    """Recipes stay strict: a typo in a YAML file is an error and no silent default."""
    from trl import TrlParser

    config = tmp_path / "recipe.yaml"
    config.write_text("data_dir: here\n")
    (arguments,) = TrlParser((RecipeArguments,)).parse_args_and_config(["--config", str(config)])
    assert arguments.data_dir == "here"
    config.write_text("data_dri: here\n")
    with pytest.raises(ValueError, match="data_dri"):
        TrlParser((RecipeArguments,)).parse_args_and_config(["--config", str(config)])


@pytest.mark.parametrize(
    ("message", "module"),
    [
        ("anything", "transformers.models.qwen3.modeling_qwen3"),
        # As transformers.utils.deprecation words it, blamed on the caller.
        ("`old` is deprecated and will be removed in version 9.9 for `f`. Use `new` instead.", "hf_latentrec.data"),
    ],
)
def test_deprecations_of_transformers_are_errors(message, module):
    """What transformers is about to remove fails in our tests before it fails for users (pyproject.toml)."""
    with pytest.raises(FutureWarning):
        warnings.warn_explicit(message, FutureWarning, filename="any.py", lineno=1, module=module)
