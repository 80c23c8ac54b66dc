"""Encoders of audio: a log-mel spectrogram, strided convolutions, and any network over the resulting positions.

Each band of the spectrogram is centered over the clip and the whole is scaled to variance 1, which removes most of
the influence of loudness and microphone. Convolutions with a stride of 2 (as in Gulati et al. 2020) then reduce the
frames to fewer positions. The network over these positions is called the body.

Legend: B sequences, S samples, T frames or positions, M bands, K masks, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.cross_attention import Memory
from pipeline.models.layers.feedforward import GELU, initialise
from pipeline.models.layers.log_mel import LogMel
from pipeline.tasks.task import Reads

FLOOR = 1e-5  # minimum power, about the noise of 16 bits, which bounds the logarithm of digital silence


@dataclass(frozen=True)
class Ear:
    """Settings of the audio front end.

    Args:
        bands: number of mel bands.
        window: length of a frame in seconds.
        hop: time between frames in seconds.
        halvings: number of convolutions with stride 2; 2 of them give one position for every 4 frames.
    """

    bands: int = 64
    window: float = 0.032
    hop: float = 0.01
    halvings: int = 2


class SoundEncoder(nn.Module):
    """A bidirectional encoder of audio.

    Args:
        body: maps (B, T, D) and a mask (B, T), False at padding, to (B, T, D).
        rate: samples per second.
        width: D.
        ear: settings of the audio front end.
        dropout: fraction of the features dropped in training before and after the body.
    """

    reads: Reads = "audio"

    def __init__(self, body: nn.Module, rate: int, width: int, ear: Ear, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.mel = LogMel(rate, ear.bands, round(ear.window * rate), round(ear.hop * rate), FLOOR)
        sizes = [ear.bands] + [width] * ear.halvings
        convolutions = [nn.Conv1d(*each, 3, 2, 1) for each in pairwise(sizes)]
        self.convolutions = nn.ModuleList(convolutions)
        self.join = nn.Linear(sizes[-1], width)
        self.join.apply(initialise)
        self.body = body
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        waves: Float[Tensor, "B S"],
        keep: Bool[Tensor, "B S"],
        time_masks: Float[Tensor, "B _ 2"],
        mel_masks: Float[Tensor, "B _ 2"],
    ) -> Memory:
        """Encode audio; `keep` is False at padding, which is at the end of each row."""
        mel, keep = self.features(waves, keep, time_masks, mel_masks)
        values = mel.to(self.join.weight.dtype).transpose(1, 2)
        for convolution in self.convolutions:
            values = F.gelu(convolution(values * keep[:, None]))
            keep = keep[:, ::2]
        values = self.body(self.dropout(self.join(values.transpose(1, 2))), keep)
        values = self.dropout(values)
        kept = keep[..., None].to(values.dtype)
        return Memory(values, keep, (values * kept).sum(1) / kept.sum(1))

    def features(
        self, waves: Tensor, keep: Tensor, time_masks: Tensor, mel_masks: Tensor
    ) -> tuple[Float[Tensor, "B T M"], Bool[Tensor, "B T"]]:
        """Return the normalized spectrogram, with masked parts set to its mean, and the mask of frames."""
        mel, _ = self.mel(F.pad(waves, (0, -waves.shape[1] % self.mel.hop)))
        counts = -(-keep.sum(1) // self.mel.hop)
        place = torch.arange(mel.shape[1], device=mel.device)
        inside = place < counts[:, None]
        kept = inside[..., None].to(mel.dtype)
        mel = (mel - (mel * kept).sum(1, keepdim=True) / counts[:, None, None]) * kept
        variance = mel.square().sum((1, 2), keepdim=True) / (counts[:, None, None] * mel.shape[2])
        mel = mel / (variance + 1e-3).sqrt()
        times = within(place / counts[:, None], time_masks)
        bands = torch.arange(mel.shape[2], device=mel.device) / mel.shape[2]
        hidden = times[:, :, None] | within(bands.expand(len(mel), -1), mel_masks)[:, None]
        return mel.masked_fill(hidden, 0), inside

    def positions(self, samples: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        """Return the number of positions for each number of samples."""
        found = -(-samples // self.mel.hop)
        for _ in self.convolutions:
            found = -(-found // 2)
        return found


def within(places: Float[Tensor, "B T"], masks: Float[Tensor, "B K 2"]) -> Bool[Tensor, "B T"]:
    """Return True at the positions that are inside one of the row's masks."""
    begins, ends = masks[:, None].unbind(-1)
    return ((places[..., None] >= begins) & (places[..., None] < ends)).any(-1)


class ConvStack(nn.Module):
    """Residual blocks of a centered depthwise convolution and a position-wise layer.

    Args:
        width: features in and out.
        depth: number of blocks.
        kernel: size of the convolutions, in positions; odd.
        dropout: fraction of each block's residual output dropped in training.
        feedforward: creates the position-wise layer from width, hidden and dropout.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        kernel: int,
        dropout: float,
        feedforward: Callable[[int, int | None, float], nn.Module] = GELU,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, for a centered convolution")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        convolutions = [nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) for _ in range(depth)]
        self.convolutions = nn.ModuleList(convolutions)
        self.mixes = nn.ModuleList(feedforward(width, 2 * width, dropout).apply(initialise) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Convolve over the positions that `keep` marks."""
        kept = keep[..., None].to(inputs.dtype)
        for norm, convolution, mix in zip(self.norms, self.convolutions, self.mixes, strict=True):
            around = convolution((norm(inputs) * kept).transpose(1, 2)).transpose(1, 2)
            inputs = inputs + self.dropout(mix(around))
        outputs: Tensor = self.norm(inputs)
        return outputs
