"""The model against slow, obvious computations: one prompt at a time, no cache, everything concatenated."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F

from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .conftest import END, START


ANSWERS = torch.tensor([[16, 24, 32], [17, 25, 33], [18, 26, 34]])


def unpadded(prompts):
    input_ids, attention_mask = prompts
    return [row[mask.bool()] for row, mask in zip(input_ids, attention_mask, strict=True)]


def concatenated_logits(model, prompt, answer, num_thoughts):
    """`[prompt] <s> thoughts <e> [answer]` as one sequence, run again from the start for every thought."""
    embed = model.get_input_embeddings()
    sequence = embed(prompt)
    thoughts = []
    if num_thoughts:
        sequence = torch.cat([sequence, embed(torch.tensor([START]))])
        for _ in range(num_thoughts):
            hidden = model.model(inputs_embeds=sequence[None], use_cache=False).last_hidden_state[0]
            sequence = torch.cat([sequence, hidden[-1:]])
        sequence = torch.cat([sequence, embed(torch.tensor([END]))])
    start = len(sequence) - 1
    sequence = torch.cat([sequence, embed(answer[:-1])])
    hidden = model.model(inputs_embeds=sequence[None], use_cache=False).last_hidden_state[0]
    thoughts = hidden[start - num_thoughts : start] if num_thoughts else hidden[:0]
    return model.lm_head(hidden[start:]), thoughts


def slow_loss(model, prompts, answers, num_thoughts):
    rows = [
        concatenated_logits(model, prompt, answer, num_thoughts)[0]
        for prompt, answer in zip(unpadded(prompts), answers, strict=True)
    ]
    return F.cross_entropy(torch.cat(rows).float(), answers.flatten())


@pytest.mark.parametrize("num_thoughts", [0, 1, 3])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_loss_and_gradients_equal_the_concatenated_forward(make_model, prompts, family, attn, num_thoughts):
    # The feedback loop amplifies rounding; float64 keeps it far below the tolerance. (Eager attention takes its
    # softmax in float32, where a float64 mask overflows.)
    dtype, atol = (torch.float64, 1e-5) if attn == "sdpa" else (torch.float32, 1e-4)
    model = make_model(family, num_thoughts, attn, dtype)
    expected = slow_loss(model, prompts, ANSWERS, num_thoughts)
    expected.backward()
    expected_grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss = model(*prompts, labels=ANSWERS).loss
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected_grads[name], atol=atol, rtol=1e-4, msg=name)


@pytest.mark.parametrize("num_thoughts", [0, 3])
def test_logits_and_thoughts_equal_the_unbatched_ones(make_model, prompts, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
    output = model(*prompts, labels=ANSWERS)
    for b, (prompt, answer) in enumerate(zip(unpadded(prompts), ANSWERS, strict=True)):
        logits, thoughts = concatenated_logits(model, prompt, answer, num_thoughts)
        torch.testing.assert_close(output.logits[b], logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.thoughts[b], thoughts, atol=1e-5, rtol=1e-5)
    assert output.num_thoughts.tolist() == [num_thoughts] * 3


@pytest.mark.parametrize("num_thoughts", [0, 2])
def test_padding_side_does_not_matter(make_model, prompts, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
    right_ids = torch.nn.utils.rnn.pad_sequence(unpadded(prompts), batch_first=True)
    right_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in unpadded(prompts)], batch_first=True)
    torch.testing.assert_close(
        model(right_ids, right_mask, labels=ANSWERS).logps, model(*prompts, labels=ANSWERS).logps, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("num_thoughts", [0, 2])
def test_several_answers_equal_one_at_a_time(make_model, prompts, catalog_trie, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
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


@pytest.mark.parametrize("num_thoughts", [0, 1, 3])
@pytest.mark.parametrize("item_trie", [None, PAIR_TRIE], ids=["vocabulary", "catalog"])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_packed_history_equals_separate_examples(make_model, attn, follow, item_trie, num_thoughts):
    """Loss and gradients; the second history is shorter, padded and lacks a target."""
    dtype, atol = (torch.float64, 1e-5) if attn == "sdpa" else (torch.float32, 1e-4)
    model = make_model(num_thoughts=num_thoughts, attn=attn, dtype=dtype)
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
    model = make_model(num_thoughts=3, dtype=torch.float64)
    model.reasoner = torch.nn.Linear(32, 32, dtype=torch.float64)
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
    assert sorted(trained) == ["lm_head.weight", "reasoner.bias", "reasoner.weight"]
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
            logits, _ = concatenated_logits(model, prompt, items[b, g], num_thoughts)
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
        .from_pretrained(tmp_path, num_thoughts=2, start_thought_token_id=START, end_thought_token_id=END)
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
