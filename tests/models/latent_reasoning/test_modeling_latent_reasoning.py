"""The model against slow, obvious computations: one prompt at a time, no cache, everything concatenated."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .concatenated import concatenated_logits


ANSWERS = torch.tensor([[16, 24, 32], [17, 25, 33], [18, 26, 34]])


def unpadded(prompts):
    input_ids, attention_mask = prompts
    return [row[mask.bool()] for row, mask in zip(input_ids, attention_mask, strict=True)]


def slow_loss(model, prompts, answers, num_thoughts):
    rows = [
        concatenated_logits(model, prompt, answer, num_thoughts)[0]
        for prompt, answer in zip(unpadded(prompts), answers, strict=True)
    ]
    return F.cross_entropy(torch.cat(rows).float(), answers.flatten())


# How a model thinks: its settings for `make_model`.
NO_THOUGHTS, FEEDBACK, ATTENTION = {}, {"num_thoughts": 3}, {"num_thoughts": 2, "reasoner": "latent_attention"}
FACTORS = {"num_thoughts": 1, "reasoner": "factorized_attention", "num_factors": 3, "num_iterations": 3}
THINKING = [
    NO_THOUGHTS,
    {"num_thoughts": 1},
    FEEDBACK,
    {"num_thoughts": 1, "thought_markers": False},
    {"num_thoughts": 1, "reasoner": "latent_attention"},
    ATTENTION,
    {"num_thoughts": 2, "reasoner": "latent_attention", "thought_markers": True},
    FACTORS,
    {"num_thoughts": 1, "reasoner": "factorized_attention", "num_factors": 2, "thought_markers": True},
]


def name_of(settings):
    """How a test names one of them."""
    return "-".join(map(str, settings.values())) if isinstance(settings, dict) else None


@pytest.mark.parametrize("thinking", THINKING, ids=name_of)
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_loss_and_gradients_equal_the_concatenated_forward(make_model, prompts, family, attn, thinking):
    # The feedback loop amplifies rounding; float64 keeps it far below the tolerance. (Eager attention takes its
    # softmax in float32, where a float64 mask overflows.)
    dtype, atol = (torch.float64, 1e-5) if attn == "sdpa" else (torch.float32, 1e-4)
    model = make_model(family, attn=attn, dtype=dtype, **thinking)
    expected = slow_loss(model, prompts, ANSWERS, model.config.num_thoughts)
    expected.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected_grads = {name: p.grad.clone() for name, p in trained.items()}
    model.zero_grad()
    loss = model(*prompts, labels=ANSWERS).loss
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in trained.items():
        size = max(1.0, expected_grads[name].abs().max().item())
        torch.testing.assert_close(parameter.grad, expected_grads[name], atol=atol * size, rtol=1e-4, msg=name)


@pytest.mark.parametrize("thinking", THINKING, ids=name_of)
def test_logits_and_thoughts_equal_the_unbatched_ones(make_model, prompts, thinking):
    model = make_model(**thinking)
    num_thoughts = model.config.num_thoughts
    output = model(*prompts, labels=ANSWERS)
    for b, (prompt, answer) in enumerate(zip(unpadded(prompts), ANSWERS, strict=True)):
        logits, thoughts, embeds = concatenated_logits(model, prompt, answer, num_thoughts)
        torch.testing.assert_close(output.logits[b], logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.thoughts[b], thoughts, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.thought_embeds[b], embeds, atol=1e-5, rtol=1e-5)
    assert output.num_thoughts.tolist() == [num_thoughts] * 3


@pytest.mark.parametrize("thinking", THINKING, ids=name_of)
def test_padding_side_does_not_matter(make_model, prompts, thinking):
    model = make_model(**thinking)
    right_ids = torch.nn.utils.rnn.pad_sequence(unpadded(prompts), batch_first=True)
    right_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in unpadded(prompts)], batch_first=True)
    torch.testing.assert_close(
        model(right_ids, right_mask, labels=ANSWERS).logps, model(*prompts, labels=ANSWERS).logps, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("thinking", THINKING, ids=name_of)
def test_several_answers_equal_one_at_a_time(make_model, prompts, catalog_trie, thinking):
    model = make_model(**thinking)
    answers_BGT = torch.stack([ANSWERS, ANSWERS.flip(0)], dim=1)
    together = model(*prompts, labels=answers_BGT)
    alone = torch.stack([model(*prompts, labels=answers_BGT[:, g]).logps for g in range(2)], dim=1)
    torch.testing.assert_close(together.logps, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.loss, -alone.mean(), atol=1e-5, rtol=1e-5)


HISTORIES = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 0, 0]])
HISTORY_MASK = torch.tensor([[1] * 8, [1] * 6 + [0] * 2])
STARTS = torch.tensor([[2, 4, 6], [2, 4, 0]])
PAIRS = torch.tensor([[[3, 4], [5, 6], [7, 8]], [[11, 12], [13, 14], [-100, -100]]])
PAIR_TRIE = ItemTrie.from_sequences([[a, b] for a in (3, 5, 7, 11, 13) for b in (a + 1, a + 2, 40)])


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("thinking", THINKING, ids=name_of)
@pytest.mark.parametrize("item_trie", [None, PAIR_TRIE], ids=["vocabulary", "catalog"])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_packed_history_equals_separate_examples(make_model, attn, follow, item_trie, thinking):
    """Loss and gradients; the second history is shorter, padded and lacks a target."""
    dtype, atol = (torch.float64, 1e-5) if attn == "sdpa" else (torch.float32, 1e-4)
    model = make_model(attn=attn, dtype=dtype, **thinking)
    num_thoughts = model.config.num_thoughts
    packed = model(
        HISTORIES,
        HISTORY_MASK,
        labels=PAIRS,
        branch_starts=STARTS,
        labels_follow_prompt=follow,
        item_trie=item_trie,
    )
    separate = [
        -model(HISTORIES[b, None, : STARTS[b, g]], labels=PAIRS[b, g, None], item_trie=item_trie).logps.sum()
        for b, g in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    ]
    separate = torch.stack(separate).sum() / 10
    torch.testing.assert_close(packed.loss, separate, atol=1e-5, rtol=1e-5)
    packed_gradients = gradients_of(model, packed.loss)
    for name, expected in gradients_of(model, separate).items():
        torch.testing.assert_close(packed_gradients[name], expected, atol=atol, rtol=1e-4, msg=name)
    if num_thoughts:
        assert packed.thoughts.shape == (2, 3, num_thoughts, 32)


@pytest.mark.parametrize("num_thoughts", [0, 2])
@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("starts", [STARTS, None], ids=["packed", "one prompt"])
def test_merged_passes_equal_the_steps(make_model, starts, length, num_thoughts):
    """What `forward` merges: `encode`, `think` and `branch` one after the other, each marker in a pass of its own."""
    model = make_model(num_thoughts=num_thoughts, dtype=torch.float64)
    answers = PAIRS[..., :length]
    merged, state = model.answer(HISTORIES, HISTORY_MASK, starts, answers)
    stepwise = model.think(model.encode(HISTORIES, HISTORY_MASK, starts))
    torch.testing.assert_close(merged, model.branch(stepwise, answers))
    torch.testing.assert_close(state.thoughts_BKND, stepwise.thoughts_BKND)


@pytest.mark.parametrize(("num_thoughts", "num_passes"), [(0, 1), (1, 2), (3, 4)])
@pytest.mark.parametrize("packed", [True, False])
def test_a_thought_is_one_pass_and_all_tokens_one_lookup(make_model, packed, num_thoughts, num_passes):
    model = make_model(num_thoughts=num_thoughts)
    passes, lookups = [], []
    model.model.register_forward_hook(lambda *_: passes.append(1))
    model.get_input_embeddings().register_forward_hook(lambda *_: lookups.append(1))
    kwargs = {"labels": PAIRS, "branch_starts": STARTS} if packed else {"labels": PAIRS[:, 0]}
    model(HISTORIES, HISTORY_MASK, **kwargs)
    assert (len(passes), len(lookups)) == (num_passes, 1)


@pytest.mark.parametrize("packed", [True, False])
def test_a_frozen_backbone_keeps_no_graph_of_the_prompt(make_model, packed):
    """The reasoner's and the output projection's gradients are those of the unfrozen model."""
    model = make_model(num_thoughts=3, reasoner="latent_attention", dtype=torch.float64)
    starts, labels = (STARTS, PAIRS) if packed else (None, PAIRS[:, 0])

    def gradients():
        return gradients_of(model, model(HISTORIES, HISTORY_MASK, labels=labels, branch_starts=starts).loss)

    def saved_tensors(history, run):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(1) or tensor, lambda tensor: tensor):
            run(history)
        return len(saved)

    expected = gradients()
    assert saved_tensors(HISTORIES, model.encode) > 0
    model.model.requires_grad_(False)
    trained = gradients()
    names = [f"reasoner.{part}.{kind}" for part in ("k_proj", "q_proj", "v_proj") for kind in ("bias", "weight")]
    assert sorted(trained) == ["lm_head.weight", *names]
    for name, gradient in trained.items():
        torch.testing.assert_close(gradient, expected[name])

    assert saved_tensors(HISTORIES, lambda history: model.encode(history, None, starts, open_thoughts=True)) == 0
    state = model.encode(HISTORIES, HISTORY_MASK, starts, open_thoughts=True)
    assert not any(layer.keys.requires_grad or layer.values.requires_grad for layer in state.past_key_values.layers)
    assert model.think(state).thoughts_BKND.requires_grad
    longer = torch.cat([HISTORIES, HISTORIES], dim=1)
    short, long = (
        saved_tensors(h, lambda h: model(h, labels=labels, branch_starts=starts)) for h in (HISTORIES, longer)
    )
    assert short == long


@pytest.mark.parametrize("num_thoughts", [0, 2])
def test_catalog_log_probs_equal_a_masked_softmax(make_model, prompts, catalog_trie, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
    items = model.generate(*prompts, item_trie=catalog_trie, num_beams=2).sequences.view(3, 2, 3)
    logps = model(*prompts, labels=items, item_trie=catalog_trie).logps
    for b, prompt in enumerate(unpadded(prompts)):
        for g in range(2):
            logits, *_ = concatenated_logits(model, prompt, items[b, g], num_thoughts)
            path = catalog_trie.walk(items[b, g])
            for t in range(3):
                children = catalog_trie.children(path[t, None], t)
                allowed = children.tokens[0][children.mask[0]]
                expected = logits[t, items[b, g, t]] - logits[t, allowed].logsumexp(0)
                torch.testing.assert_close(logps[b, g, t], expected, atol=1e-5, rtol=1e-5)


def test_answer_outside_of_the_catalog_is_impossible(make_model, prompts, catalog_trie):
    """And its gradient is not NaN where the token before was fine."""
    model = make_model()
    labels = torch.tensor([[16, 1, 32]] * 3)
    logps = model(*prompts, labels=labels, item_trie=catalog_trie).logps
    assert logps[:, 1:].isneginf().all()
    logps[:, 0].sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_num_items_in_batch_replaces_the_mean(make_model, prompts):
    model = make_model()
    labels = ANSWERS.clone()
    labels[0, 2] = -100
    output = model(*prompts, labels=labels)
    torch.testing.assert_close(output.loss, -output.logps.sum() / 8)
    torch.testing.assert_close(model(*prompts, labels=labels, num_items_in_batch=4).loss, 2 * output.loss)


def test_embedding_dropout_acts_in_training_only(make_model, prompts):
    model = make_model(embedding_dropout=0.5)
    twice = [model(*prompts, labels=ANSWERS).loss.item() for _ in range(2)]
    assert twice[0] == twice[1]
    model.train()
    twice = [model(*prompts, labels=ANSWERS).loss.item() for _ in range(2)]
    assert twice[0] != twice[1]


def test_save_and_load(make_model, prompts, tmp_path):
    model = make_model(num_thoughts=2)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config.num_thoughts == 2
    torch.testing.assert_close(loaded.eval()(*prompts, labels=ANSWERS).logps, model(*prompts, labels=ANSWERS).logps)


def test_a_plain_checkpoint_becomes_a_recommender(make_model, make_plain, prompts, tmp_path):
    model = make_model()
    make_plain(model).save_pretrained(tmp_path)
    loaded = (
        type(model)
        .from_pretrained(tmp_path, num_thoughts=2, start_thought_token_id=60, end_thought_token_id=61)
        .eval()
    )
    model.config.num_thoughts = 2
    torch.testing.assert_close(loaded(*prompts, labels=ANSWERS).logps, model(*prompts, labels=ANSWERS).logps)


def test_bad_input_is_named(make_model, prompts, catalog_trie):
    model = make_model(num_thoughts=2)
    with pytest.raises(ValueError, match="expected \\[3, T\\]"):
        model(*prompts, labels=ANSWERS[:2])
    with pytest.raises(ValueError, match="branch_starts have shape"):
        model(*prompts, labels=ANSWERS, branch_starts=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="without branch_starts"):
        model(*prompts, labels=ANSWERS, labels_follow_prompt=True)
    with pytest.raises(ValueError, match="does not support"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the method was renamed in transformers 5.2x
        model.gradient_checkpointing_enable()
    without_markers = copy.deepcopy(model)
    without_markers.config.start_thought_token_id = None
    with pytest.raises(ValueError, match="start_thought_token_id is not set"):
        without_markers(*prompts, labels=ANSWERS)


NOISY = [settings for settings in THINKING if settings]
NUM_SAMPLES = 3


@pytest.fixture
def noise():
    """Samples of a thought for three prompts; the first is unperturbed."""
    noise_BKD = torch.randn(3, NUM_SAMPLES, 32, dtype=torch.float64)
    noise_BKD[:, 0] = 0
    return noise_BKD


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("thinking", NOISY, ids=name_of)
def test_samples_of_a_thought_equal_the_concatenated_forward(make_model, prompts, noise, thinking, relative):
    """LatentR³ Eq. 5: log-probabilities and all gradients, the same answer after every sample."""
    model = make_model(dtype=torch.float64, **thinking)
    weights = torch.randn(3, NUM_SAMPLES, 3)
    slow, embeds = [], []
    for b, (prompt, answer) in enumerate(zip(unpadded(prompts), ANSWERS, strict=True)):
        for k in range(NUM_SAMPLES):
            logits, _, thought_embeds = concatenated_logits(
                model, prompt, answer, model.config.num_thoughts, noise[b, k], relative
            )
            slow.append(logits.log_softmax(-1).gather(-1, answer[:, None])[:, 0])
            embeds.append(thought_embeds)
    slow = torch.stack(slow).view(3, NUM_SAMPLES, 3)
    expected = gradients_of(model, (slow * weights).sum())
    output = model(*prompts, labels=ANSWERS, thought_noise=noise, relative_noise=relative)
    torch.testing.assert_close(output.logps, slow, atol=1e-5, rtol=1e-5, check_dtype=False)
    torch.testing.assert_close(output.thought_embeds, torch.stack(embeds[::NUM_SAMPLES]))
    assert output.thoughts.shape == (3, NUM_SAMPLES, model.config.num_thoughts, 32)
    for name, gradient in gradients_of(model, (output.logps * weights).sum()).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("item_trie", [None, True], ids=["vocabulary", "catalog"])
def test_each_sample_has_its_own_answer(make_model, prompts, catalog_trie, noise, item_trie):
    model, trie = make_model(dtype=torch.float64, **ATTENTION), catalog_trie if item_trie else None
    items = model.generate(*prompts, item_trie=catalog_trie, num_beams=3).sequences.view(3, 3, 3)
    together = model(*prompts, labels=items, item_trie=trie, thought_noise=noise, output_entropy=True)
    for k in range(NUM_SAMPLES):
        alone = model(*prompts, labels=items[:, k], item_trie=trie, thought_noise=noise[:, k : k + 1])
        torch.testing.assert_close(together.logps[:, k], alone.logps[:, 0])
    plain = model(*prompts, labels=items[:, 0], item_trie=trie, output_entropy=True)
    torch.testing.assert_close(together.logps[:, 0], plain.logps)
    torch.testing.assert_close(together.entropy, plain.entropy)


def test_entropy(make_model, prompts, catalog_trie):
    """Of the first answer's predictions, over the vocabulary and over the trie's children; padding has none."""
    model = make_model(**ATTENTION)
    labels = model.generate(*prompts, item_trie=catalog_trie, num_beams=1).sequences
    labels[0, 2] = -100
    output = model(*prompts, labels=labels, output_entropy=True)
    distribution = torch.distributions.Categorical(logits=output.logits)
    torch.testing.assert_close(output.entropy, distribution.entropy().masked_fill(labels == -100, 0.0))
    over_catalog = model(*prompts, labels=labels, item_trie=catalog_trie, output_entropy=True).entropy
    path = catalog_trie.walk(labels.clamp(min=0))
    for b in range(3):
        for t in range(3):
            children = catalog_trie.children(path[b, t, None], t)
            allowed = children.tokens[0][children.mask[0]]
            expected = torch.distributions.Categorical(logits=output.logits[b, t, allowed]).entropy()
            expected = 0.0 if labels[b, t] == -100 else expected.item()
            assert over_catalog[b, t].item() == pytest.approx(expected, abs=1e-5)
    assert not output.entropy.requires_grad


def test_samples_read_the_prompt_once_and_keep_no_graph_of_it(make_model, prompts, noise):
    model = make_model(num_thoughts=1, reasoner="latent_attention")
    model.requires_grad_(False)
    model.reasoner.requires_grad_(True)
    tokens = []
    model.model.register_forward_hook(lambda *args: tokens.append(args[2].last_hidden_state.shape[1]))
    output = model(*prompts, labels=ANSWERS, thought_noise=noise.float())
    assert tokens == [7, NUM_SAMPLES * 3]  # the prompt; a thought and two tokens per sample
    gradients = gradients_of(model, output.logps.sum())
    assert len(gradients) == 6 and all(
        gradient.abs().sum() > 0 for gradient in gradients.values() if gradient.dim() > 1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thought_noise": torch.zeros(2, 3, 32)}, r"thought_noise has shape \(2, 3, 32\)"),
        ({"labels": None}, "without labels"),
        ({"labels": ANSWERS[:, None].expand(3, 2, 3)}, "one answer per sample"),
        ({"branch_starts": torch.ones(3, 1, dtype=torch.long), "labels": ANSWERS[:, None]}, "exclude each other"),
    ],
)
def test_noise_that_does_not_fit(make_model, prompts, noise, change, message):
    arguments = {"labels": ANSWERS, "thought_noise": noise.float(), **change}
    with pytest.raises(ValueError, match=message):
        make_model(**ATTENTION)(*prompts, **arguments)
    with pytest.raises(ValueError, match="num_thoughts 0"):
        make_model()(*prompts, labels=ANSWERS, thought_noise=noise.float())
    with pytest.raises(ValueError, match="num_thoughts 0"):
        make_model(**ATTENTION)(*prompts, labels=ANSWERS, thought_noise=noise.float(), num_thoughts=0)
    forced = make_model(thought_markers=False)(*prompts, labels=ANSWERS, thought_noise=noise.float(), num_thoughts=1)
    assert forced.logps.shape == (3, NUM_SAMPLES, 3)
