"""Layers that mix a whole window of a history in the frequency domain: FMLP-Rec's filter and BSARec's rescaling."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig

from .fast_dropout import FastDropout
from .sequence_encoders import FeedForward, TransformerLayer


# B batch, L positions, W slots of the window, F frequencies (W // 2 + 1), D hidden


def to_window(input_ids: torch.Tensor, window: int) -> torch.Tensor:
    """
    Move right-padded rows into a window of fixed size, whose last slot holds the newest item.

    A Fourier transform depends on the number of its samples, and so would a result on the padding; in a fixed window
    it depends on the row alone.

    ```
    a b c 0 0   window 4   ->   0 a b c
    a b c d e                   b c d e
    ```

    Args:
        input_ids (`torch.Tensor` of shape `[B, L]`): item rows + 1, oldest first; 0 is padding at the end of a row,
            and a hidden item within it.
        window (`int`): slots W.

    Returns:
        `torch.Tensor` of shape `[B, W]`: the newest W items of each row, padded on the left.

    Example:

    ```python
    >>> import torch
    >>> to_window(torch.tensor([[7, 8, 9, 0, 0], [1, 2, 3, 4, 5]]), window=4).tolist()
    [[0, 7, 8, 9], [2, 3, 4, 5]]

    ```
    """
    lengths = row_lengths(input_ids)
    sources = lengths[:, None] + torch.arange(-window, 0, device=input_ids.device)
    ids = input_ids.gather(1, sources.clamp(0, input_ids.shape[1] - 1))
    return ids.masked_fill(sources < 0, 0)


def row_lengths(input_ids: torch.Tensor) -> torch.Tensor:
    """Items of each right-padded row, [B]."""
    positions = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
    return (positions * input_ids.ne(0)).amax(1)


def window_mask(window_ids: torch.Tensor) -> torch.Tensor:
    """
    Who may attend to whom in a window: real items up to oneself, and every slot to itself (so that padding, too, has
    something to attend to).

    Args:
        window_ids (`torch.Tensor` of shape `[B, W]`): left-padded item rows + 1.

    Returns:
        `torch.Tensor` (bool) of shape `[B, 1, W, W]`: True where the slot of the row sees that of the column.
    """
    size = window_ids.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=window_ids.device).tril()
    itself = torch.eye(size, dtype=torch.bool, device=window_ids.device)
    return ((window_ids != 0)[:, None, :] & causal | itself)[:, None]


def check_one_sequence_per_row(model: nn.Module, position_ids: torch.Tensor | None) -> None:
    """Raises a `ValueError` where rows may hold several sequences, of which a whole-window model would see one."""
    if position_ids is not None:
        raise ValueError(
            f"{type(model).__name__} reads one sequence per row, but position_ids are given; leave them out, and "
            "build its data with SequenceDataset(..., packed=False)"
        )


class FrequencyFilter(nn.Module):
    """
    One learnable complex factor per frequency and dimension (Zhou et al. 2022, Eq. 2 to 4), a circular convolution of
    the window with a filter as long as itself:

    `filtered = iFFT(FFT(hidden) * weight)`, both transforms orthonormal.

    Args:
        config (`PreTrainedConfig`): `max_history` (slots W), `hidden_size`, `initializer_range`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        num_frequencies = config.max_history // 2 + 1
        # real and imaginary part apart: the optimizer and safetensors then see an ordinary tensor
        self.weight = nn.Parameter(torch.randn(num_frequencies, config.hidden_size, 2) * config.initializer_range)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Filters `hidden` [B, W, D]."""
        spectrum_BFD = torch.fft.rfft(hidden.float(), dim=1, norm="ortho")
        spectrum_BFD = spectrum_BFD * torch.view_as_complex(self.weight.float())
        return torch.fft.irfft(spectrum_BFD, n=hidden.shape[1], dim=1, norm="ortho").to(hidden.dtype)


class FilterLayer(nn.Module):
    """
    A block of FMLP-Rec (Zhou et al. 2022, Eq. 2 to 6): the frequency filter in place of attention, then a feed-forward
    network, each with dropout, a residual connection and layer normalization.

    Args:
        config (`PreTrainedConfig`): a [`SequentialConfig`].
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.filter = FrequencyFilter(config)
        self.dropout = FastDropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `[B, W, D]`): the whole window; see [`to_window`].
            mask: of attention, which there is none of here.
        """
        hidden = self.norm(hidden + self.dropout(self.filter(hidden)))
        return self.feed_forward(hidden)


class FrequencyRescaler(nn.Module):
    """
    BSARec's inductive bias (Shin et al. 2024, Eq. 6 to 8): the window is split into its lowest frequencies and the
    rest, and the rest is scaled by a learned factor per dimension:

    `low + beta^2 * (hidden - low)`, with `low` the `num_low_frequencies // 2 + 1` lowest frequencies of `hidden`.

    Args:
        config (`PreTrainedConfig`): `hidden_size`, `num_low_frequencies`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.num_kept = config.num_low_frequencies // 2 + 1
        self.beta = nn.Parameter(torch.randn(config.hidden_size))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rescales `hidden` [B, W, D]."""
        spectrum_BFD = torch.fft.rfft(hidden.float(), dim=1, norm="ortho")
        kept = torch.arange(spectrum_BFD.shape[1], device=hidden.device) < self.num_kept
        low = torch.fft.irfft(spectrum_BFD * kept[:, None], n=hidden.shape[1], dim=1, norm="ortho").to(hidden.dtype)
        return low + self.beta.square() * (hidden - low)


class FrequencyAttentionLayer(TransformerLayer):
    """
    A block of BSARec (Shin et al. 2024, Eq. 4 to 9): the mean of frequency rescaling and self-attention, weighted by
    `frequency_weight` (the paper's alpha) and the rest, then a feed-forward network.

    Args:
        config (`PreTrainedConfig`): a [`SequentialConfig`] with `frequency_weight` and `num_low_frequencies`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.frequency_weight = config.frequency_weight
        self.rescaler = FrequencyRescaler(config)
        self.frequency_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            hidden (`torch.Tensor` of shape `[B, W, D]`): the whole window; see [`to_window`].
            mask (`torch.Tensor` (bool) of shape `[B, 1, W, W]`, *optional*): of the attention; see [`window_mask`].
        """
        rescaled = self.frequency_norm(hidden + self.dropout(self.rescaler(hidden)))
        attended = self.attend(hidden, *self.project(hidden), mask)
        return self.feed_forward(self.frequency_weight * rescaled + (1 - self.frequency_weight) * attended)


__all__ = [
    "FilterLayer",
    "FrequencyAttentionLayer",
    "FrequencyFilter",
    "FrequencyRescaler",
    "check_one_sequence_per_row",
    "row_lengths",
    "to_window",
    "window_mask",
]
