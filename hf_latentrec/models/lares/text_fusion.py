"""TedRec's fusion of item texts and item ids (Xu et al. 2024): products in the frequency domain."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .fast_dropout import FastDropout
from .frequency_layers import FrequencyFilter


# B batch, W slots of the window, E text embedding, X experts, D hidden

SMALLEST_NOISE = 1e-2


class TextAdaptor(nn.Module):
    r"""
    Text embeddings in the model's width, told apart by where they stand: a mixture of experts, each of which shifts an
    embedding by a learned vector of its slot and projects it (Xu et al. 2024, Eq. 1 to 3):

    $$t'_j = \sum_k g_k (t_j + s_{j,k}) W_k,\quad
    g = \mathrm{softmax}(t_j W_g + \epsilon\,\mathrm{softplus}(t_j W_n))$$

    with normal noise $\epsilon$ while training.

    Args:
        config (`PreTrainedConfig`): `text_size`, `hidden_size`, `max_history`, `num_text_experts`, `text_dropout`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.num_experts = config.num_text_experts
        self.dropout = FastDropout(config.text_dropout)
        self.gate = nn.Linear(config.text_size, self.num_experts, bias=False)
        self.gate_noise = nn.Linear(config.text_size, self.num_experts, bias=False)
        self.experts = nn.Linear(config.text_size, self.num_experts * config.hidden_size, bias=False)
        self.shifts = nn.Parameter(torch.zeros(self.num_experts, config.max_history, config.text_size))

    def forward(self, text: torch.Tensor, shifted: bool = True) -> torch.Tensor:
        """
        Args:
            text (`torch.Tensor` of shape `[B, W, E]`, or `[I, E]` with `shifted=False`): text embeddings.
            shifted (`bool`, *optional*, defaults to `True`): whether they stand in the slots of a window.

        Returns:
            `torch.Tensor` of shape `[B, W, D]` or `[I, D]`.
        """
        logits = self.gate(text)
        if self.training:
            spread = F.softplus(self.gate_noise(text)) + SMALLEST_NOISE
            logits = logits + torch.randn_like(logits) * spread
        projected_BWXD = self.experts(self.dropout(text)).unflatten(-1, (self.num_experts, -1))
        if shifted:
            weight_XDE = self.experts.weight.unflatten(0, (self.num_experts, -1))
            projected_BWXD = projected_BWXD + torch.einsum("xwe,xde->wxd", self.shifts, weight_XDE)
        return (logits.softmax(-1)[..., None, :] @ projected_BWXD).squeeze(-2)


class TextFusion(nn.Module):
    r"""
    Sequence-level fusion of the item embeddings e and the adapted texts t' of a window (Xu et al. 2024, Eq. 4 to 8).
    Along the window a product of spectra is a circular convolution, so every slot takes in ids and texts of all
    others:

    $$u = \mathcal{F}^{-1}(\mathcal{F}(e) \odot w),\quad
    v = \mathcal{F}^{-1}(\mathcal{F}(e) \odot \mathcal{F}(t')),\quad
    2\,(\sigma(a^\top u)\, u + \sigma(b^\top v)\, v)$$

    It keeps the text embeddings of the catalog, which are saved with the model and not trained, and knows which items
    are cold: of those only the text counts.

    Args:
        config (`PreTrainedConfig`): that of [`TextAdaptor`], and `num_items`, `initializer_range`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.adaptor = TextAdaptor(config)
        self.filter = FrequencyFilter(config)
        self.id_gate = nn.Linear(config.hidden_size, 1)
        self.fusion_gate = nn.Linear(config.hidden_size, 1)
        self.item_projection = nn.Linear(config.text_size, config.hidden_size)
        # row 0 is padding; without texts everything is NaN, and no result passes for one
        self.register_buffer("texts", torch.full((config.num_items + 1, config.text_size), torch.nan))
        self.register_buffer("has_id", torch.ones(config.num_items + 1))

    def set_texts(self, texts: torch.Tensor, is_cold: np.ndarray) -> None:
        """
        Args:
            texts (`torch.Tensor` [I, E]): text embeddings of the catalog.
            is_cold (`np.ndarray` [I], bool): items that never occur in training.

        Raises:
            ValueError: for another width, numbers that are not finite, or another number of items.
        """
        size = self.texts.shape[1]
        if texts.shape != (len(is_cold), size):
            raise ValueError(
                f"TextFusion: texts have shape {tuple(texts.shape)}, but there are {len(is_cold)} items and text_size "
                f"is {size}; pass one embedding per item"
            )
        if not texts.isfinite().all():
            row = int(texts.isfinite().all(-1).int().argmin())
            raise ValueError(f"TextFusion: the text embedding of row {row} is not finite; embed its text again")
        self.texts = F.pad(texts.detach().to(self.texts), (0, 0, 1, 0))
        self.has_id = F.pad(torch.from_numpy(~is_cold).to(self.has_id), (1, 0))

    def forward(self, window_ids: torch.Tensor, id_weight: torch.Tensor) -> torch.Tensor:
        """
        Args:
            window_ids (`torch.LongTensor` [B, W]): item rows + 1, left-padded with 0.
            id_weight (`torch.Tensor` [I + 1, D]): item embeddings, row 0 for padding.

        Returns:
            `torch.Tensor` [B, W, D].
        """
        if self.texts[0].isnan().any():
            raise ValueError("TextFusion: there are no texts; call set_texts(texts, items.is_cold) first")
        ids = F.embedding(window_ids, id_weight) * self.has_id[window_ids, None]
        texts = self.adaptor(self.texts[window_ids]) * window_ids.ne(0)[..., None]
        filtered = self.filter(ids)
        fused = circular_convolution(ids, texts)
        return 2 * (filtered * self.id_gate(filtered).sigmoid() + fused * self.fusion_gate(fused).sigmoid())

    def item_vectors(self, id_weight: torch.Tensor, items: slice = slice(None)) -> torch.Tensor:
        """What items [I, D] (or a slice of their rows) are scored by: the embedding, if there is one, and the text."""
        ids, has_id, texts = id_weight[1:][items], self.has_id[1:][items], self.texts[1:][items]
        return ids * has_id[:, None] + self.item_projection(texts)


def circular_convolution(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """`out[t] = sum_s first[s] second[(t - s) mod W] / sqrt(W)` of two [B, W, D], by orthonormal transforms."""
    spectrum = torch.fft.rfft(first.float(), dim=1, norm="ortho") * torch.fft.rfft(second.float(), dim=1, norm="ortho")
    return torch.fft.irfft(spectrum, n=first.shape[1], dim=1, norm="ortho").to(first.dtype)


__all__ = ["TextAdaptor", "TextFusion", "circular_convolution"]
