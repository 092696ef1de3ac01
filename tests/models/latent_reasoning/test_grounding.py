"""BIGRec's grounding, against transformers' greedy decoding and one text at a time."""

from __future__ import annotations

import pytest
import torch

from hf_latentrec.models.latent_reasoning import batch_splitting
from hf_latentrec.models.latent_reasoning.grounding import answer_freely, leaf_nodes, terminal_token
from hf_latentrec.models.latent_reasoning.item_trie import ItemTrie

from .conftest import END, START
from .search_checks import TERMINAL, assert_batched_equals_unbatched, assert_filters_the_full_ranking, make_titles


@pytest.fixture
def title_trie():
    return ItemTrie.from_sequences(make_titles(0, num_titles=30))


def slow_embedding(model, tokens):
    """Last hidden state of one text, without a batch."""
    return model.model(torch.tensor([tokens])).last_hidden_state[0, -1]


def slow_answer(model, prompt, num_thoughts, max_length, terminal):
    """Greedy tokens over the vocabulary; the whole sequence is read again for each."""
    embed = model.get_input_embeddings()

    def last_state(sequence):
        return model.model(inputs_embeds=sequence[None]).last_hidden_state[0, -1:]

    sequence = embed(prompt)
    if num_thoughts:
        sequence = torch.cat([sequence, embed(torch.tensor([START]))])
        for _ in range(num_thoughts):
            sequence = torch.cat([sequence, last_state(sequence)])
        sequence = torch.cat([sequence, embed(torch.tensor([END]))])
    tokens = []
    while len(tokens) < max_length:
        token = int(model.lm_head(last_state(sequence)).argmax())
        if token == terminal:
            break
        tokens.append(token)
        sequence = torch.cat([sequence, embed(torch.tensor([token]))])
    return tokens


def leaf_texts(trie, terminal):
    """Leaves as `(node, tokens)`, found by walking down from the root."""
    found, open_nodes = [], [(0, [])]
    while open_nodes:
        node, tokens = open_nodes.pop()
        children = trie.children(torch.tensor([node]), len(tokens))
        if not children.mask.any():
            found.append((node, [token for token in tokens if token != terminal]))
        for child, token in zip(
            children.nodes[0][children.mask[0]], children.tokens[0][children.mask[0]], strict=True
        ):
            open_nodes.append((int(child), [*tokens, int(token)]))
    return sorted(found)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@torch.no_grad()
def test_item_embeddings_equal_one_text_at_a_time(make_model, title_trie, batch_size):
    model = make_model(num_thoughts=2)  # thoughts play no part
    embeddings = model.embed_items(title_trie, batch_size)
    texts = leaf_texts(title_trie, TERMINAL)
    assert leaf_nodes(title_trie).tolist() == [node for node, _ in texts]
    assert embeddings.shape == (title_trie.num_leaves, 32) and embeddings.dtype == torch.float32
    for embedding, (_, tokens) in zip(embeddings, texts, strict=True):
        torch.testing.assert_close(embedding, slow_embedding(model, tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_thoughts", [0, 2])
@torch.no_grad()
def test_free_answers_equal_plain_loops(make_model, prompts, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
    state = model.think(model.encode(*prompts, open_thoughts=num_thoughts > 0))
    terminal = int(answer_freely(model, state, 6, None)[1, 3])  # so that an answer does end
    state = model.think(model.encode(*prompts, open_thoughts=num_thoughts > 0))
    answers = answer_freely(model, state, 9, terminal).tolist()
    lengths = []
    for answer, (row, mask) in zip(answers, zip(*prompts, strict=True), strict=True):
        expected = slow_answer(model, row[mask.bool()], num_thoughts, 9, terminal)
        assert answer == expected + [-100] * (len(answer) - len(expected))
        lengths.append(len(expected))
    assert min(lengths) < max(lengths)


@torch.no_grad()
def test_free_answers_equal_generate_of_transformers(make_model, make_plain, prompts):
    model = make_model()
    answers = answer_freely(model, model.encode(*prompts), 8, TERMINAL)
    expected = make_plain(model).generate(
        *prompts[:1],
        attention_mask=prompts[1],
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=TERMINAL,
        pad_token_id=0,
    )[:, prompts[0].shape[1] :]
    real = answers != -100
    assert torch.equal(answers[real], expected[:, : answers.shape[1]][real])


@pytest.mark.parametrize("num_thoughts", [0, 1])
@pytest.mark.parametrize("kind", ["titles", "codes"])
@torch.no_grad()
def test_ranking_equals_distances_one_by_one(make_model, prompts, title_trie, catalog_trie, kind, num_thoughts):
    model = make_model(num_thoughts=num_thoughts)
    trie, terminal = (title_trie, TERMINAL) if kind == "titles" else (catalog_trie, None)
    embeddings = model.embed_items(trie)
    output = model.generate(*prompts, item_trie=trie, num_beams=10, num_return_sequences=7, item_embeddings=embeddings)
    assert output.user_indices.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert torch.equal(output.sequences, trie.sequences(output.item_nodes))
    assert output.thoughts.shape == (3, num_thoughts, 32)
    texts = leaf_texts(trie, terminal)
    for user, (row, mask) in enumerate(zip(*prompts, strict=True)):
        answer = slow_answer(model, row[mask.bool()], num_thoughts, trie.max_depth, terminal)
        query = slow_embedding(model, answer)
        distance = {
            node: (query - slow_embedding(model, tokens)).square().sum().sqrt().item() for node, tokens in texts
        }
        expected = sorted(distance, key=distance.get)[:7]
        mine = output.user_indices == user
        assert output.item_nodes[mine].tolist() == expected
        scores = torch.tensor([-distance[node] for node in expected])
        torch.testing.assert_close(output.sequences_scores[mine], scores, atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_answer_that_is_a_title_is_the_nearest(make_model, prompts):
    model = make_model()
    answer = answer_freely(model, model.encode(*prompts), 5, None)[0].tolist()
    trie = ItemTrie.from_sequences([[1, 2, 3, 4, 5], [*answer[:4], 40], answer, [20, 21, 22, 23, 24]])
    output = model.generate(*prompts, item_trie=trie, num_beams=1, item_embeddings=model.embed_items(trie))
    assert output.sequences[0].tolist() == answer and output.sequences_scores[0].abs() < 1e-4


@torch.no_grad()
def test_an_empty_answer_is_its_terminal_alone(make_model, prompts, title_trie):
    row, model = prompts[0][:1], make_model()
    model.lm_head.weight[TERMINAL] = 100 * slow_embedding(model, row[0].tolist())
    assert answer_freely(model, model.encode(row), 5, TERMINAL).tolist() == [[-100]]
    output = model.generate(row, item_trie=title_trie, num_beams=30, item_embeddings=model.embed_items(title_trie))
    query = slow_embedding(model, [TERMINAL])
    distances = [(query - slow_embedding(model, tokens)).norm() for _, tokens in leaf_texts(title_trie, TERMINAL)]
    torch.testing.assert_close(-output.sequences_scores, torch.stack(distances).sort().values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["titles", "codes"])
@torch.no_grad()
def test_filters_and_batches_change_no_distance(make_model, prompts, title_trie, catalog_trie, kind, monkeypatch):
    model, trie = make_model(num_thoughts=1), title_trie if kind == "titles" else catalog_trie
    settings = {"item_trie": trie, "num_beams": trie.num_items, "item_embeddings": model.embed_items(trie)}
    assert_batched_equals_unbatched(model, prompts, **settings)
    generate = model.generate
    monkeypatch.setattr(  # the check passes `normalize`, and no embeddings
        model,
        "generate",
        lambda *args, normalize, **kwargs: generate(*args, **kwargs, item_embeddings=settings["item_embeddings"]),
    )
    allowed = torch.rand(3, trie.num_items) < 0.5
    assert_filters_the_full_ranking(model, prompts, trie, "catalog", allowed)


@torch.no_grad()
def test_nothing_left_and_seen_items(make_model, prompts, title_trie):
    model = make_model()
    settings = {"item_trie": title_trie, "num_beams": 40, "item_embeddings": model.embed_items(title_trie)}
    seen = torch.full((3, 30), -1)
    seen[1] = torch.arange(30)
    seen[2, :29] = torch.arange(1, 30)
    with pytest.raises(ValueError, match=r"no item for prompt\(s\) \[1\]"):
        model.generate(*prompts, **settings, seen_items=seen)
    output = model.generate(*prompts, **settings, seen_items=seen, on_empty="skip")
    assert output.user_indices.tolist() == [0] * 30 + [2]
    assert title_trie.leaf_items(output.item_nodes[-1:])[0].tolist() == [0]


@torch.no_grad()
def test_a_batch_that_does_not_fit_is_split(make_model, prompts, title_trie, monkeypatch):
    model = make_model(num_thoughts=1)
    settings = {"item_trie": title_trie, "num_beams": 5, "item_embeddings": model.embed_items(title_trie)}
    whole = model.generate(*prompts, **settings)
    encode = type(model).encode

    def encode_one(self, input_ids, *args, **kwargs):
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(model), "encode", encode_one)
    monkeypatch.setattr(batch_splitting, "_warned", True)
    parts = model.generate(*prompts, **settings)
    assert torch.equal(parts.item_nodes, whole.item_nodes) and torch.equal(parts.user_indices, whole.user_indices)


def test_terminal_token():
    assert terminal_token(ItemTrie.from_sequences([[5, TERMINAL], [5, 6, TERMINAL]])) == TERMINAL
    assert terminal_token(ItemTrie.from_sequences([[5, TERMINAL], [6, TERMINAL]])) == TERMINAL
    assert terminal_token(ItemTrie.from_sequences([[5, 7], [6, 8]])) is None
    with pytest.raises(ValueError, match="different lengths and 2 different last tokens"):
        terminal_token(ItemTrie.from_sequences([[5, 7], [6]]))


@torch.no_grad()
def test_a_broken_model_is_no_answer(make_model, prompts, title_trie):
    model = make_model()
    embeddings = model.embed_items(title_trie)
    model.get_input_embeddings().weight[9] = torch.nan  # only the second prompt reads it
    with pytest.raises(ValueError, match=r"scores of prompt\(s\) \[1\] are NaN"):
        model.generate(*prompts, item_trie=title_trie, num_beams=3, item_embeddings=embeddings)


@torch.no_grad()
def test_bad_arguments_are_named(make_model, prompts, title_trie, catalog_trie):
    model = make_model()
    embeddings = model.embed_items(title_trie)
    for settings, message in [
        ({"normalize": "vocabulary"}, "normalize is 'vocabulary', but grounding answers freely"),
        ({"length_penalty": 1.0}, "length_penalty is 1.0, but grounding"),
        ({"early_stopping": True}, "early_stopping is True, but grounding"),
        ({"item_trie": catalog_trie, "compile": True}, "compile is True, but grounding"),
        ({"item_embeddings": embeddings[1:]}, r"shape \(29, 32\), but the trie has 30 distinct answers"),
        ({"item_embeddings": embeddings[:, 1:]}, r"shape \(30, 31\).*hidden size of 32; pass model.embed_items"),
        ({"num_beams": 3, "num_return_sequences": 4}, "num_return_sequences 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.generate(*prompts, **{"item_trie": title_trie, "item_embeddings": embeddings, **settings})
