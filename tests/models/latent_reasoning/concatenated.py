"""The slow, obvious way: one prompt, no cache, the whole sequence again for every thought."""

from __future__ import annotations

import torch

from .conftest import END, START


def linear(layer, x):
    return layer.weight @ x + layer.bias


def rotate(x, position):
    """Rotary embedding with base 1000: a rotation is the product with a complex number."""
    half = len(x) // 2
    turned = []
    for i in range(half):
        angle = torch.tensor(position * 1000.0 ** (-i / half), dtype=x.dtype)
        turned.append(torch.complex(x[i], x[i + half]) * torch.polar(torch.ones_like(angle), angle))
    return torch.stack([z.real for z in turned] + [z.imag for z in turned])


def slow_latent_attention(reasoner, hidden_SD):
    """LatentR³ Eq. 3, position by position."""
    S, D = hidden_SD.shape
    query = rotate(linear(reasoner.q_proj, hidden_SD[-1]), S - 1)
    scores = [query @ rotate(linear(reasoner.k_proj, hidden_SD[s]), s) / D**0.5 for s in range(S)]
    weights = torch.stack(scores).softmax(0)
    return sum(weights[s] * linear(reasoner.v_proj, hidden_SD[s]) for s in range(S))


def slow_factorized_attention(reasoner, hidden_SD):
    """FLR Eq. 3 and 4, factor by factor and position by position: the thought, factors, attentions and gates."""
    S, D = hidden_SD.shape
    factors, attentions = [], []
    for prototype in reasoner.prototypes:
        query = linear(reasoner.q_proj, prototype)
        scores = [query @ rotate(linear(reasoner.k_proj, hidden_SD[s]), s) / D**0.5 for s in range(S)]
        weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        attentions.append(weights)
        factors.append(sum(weights[s] * linear(reasoner.v_proj, hidden_SD[s]) for s in range(S)))
    first, _, last = reasoner.gate
    logits = linear(last, torch.nn.functional.gelu(linear(first, torch.cat(factors))))
    gates = logits.exp() / logits.exp().sum()
    thought = sum(gate * factor for gate, factor in zip(gates, factors, strict=True))
    return thought, torch.stack(factors), torch.stack(attentions), gates


def concatenated_logits(model, prompt, answer, num_thoughts, noise=None, relative_noise=False):
    """`[prompt] <s> thoughts <e> [answer]` as one sequence; logits of the answer, hidden states of the thoughts and
    their embeddings before `noise` [D] came to the last."""
    embed, settings = model.get_input_embeddings(), model.config.reasoner_config
    markers = settings.thought_markers and num_thoughts > 0

    def run(sequence):
        return model.model(inputs_embeds=sequence[None], use_cache=False).last_hidden_state[0]

    sequence = embed(prompt)
    if markers:
        sequence = torch.cat([sequence, embed(torch.tensor([START]))])
    if settings.reasoner == "factorized_attention" and num_thoughts:
        thought = model.reasoner.initial_thought
        for _ in range(settings.num_iterations):
            thought, *_ = slow_factorized_attention(model.reasoner, run(torch.cat([sequence, thought[None]])))
        refined = thought
    first, embeds = len(sequence), []
    for step in range(num_thoughts):
        hidden = run(sequence)
        if settings.reasoner == "feedback":
            thought = hidden[-1]
        elif settings.reasoner == "latent_attention":
            thought = slow_latent_attention(model.reasoner, hidden)
        else:
            thought = refined
        embeds.append(thought)
        if noise is not None and step == num_thoughts - 1:
            size = (thought.detach().norm() / len(thought) ** 0.5) if relative_noise else 1.0
            thought = thought + noise * size
        sequence = torch.cat([sequence, thought[None]])
    if markers:
        sequence = torch.cat([sequence, embed(torch.tensor([END]))])
    start = len(sequence) - 1
    hidden = run(torch.cat([sequence, embed(answer[:-1])]))
    embeds = torch.stack(embeds) if embeds else hidden[:0]
    return model.lm_head(hidden[start:]), hidden[first : first + num_thoughts], embeds
