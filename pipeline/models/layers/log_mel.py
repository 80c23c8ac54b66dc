"""A log-mel spectrogram: how loud a sound is in bands of frequency, each about as wide as the ear's, moment by moment.

Frame t is computed from the W samples that end with sample (t + 1) H: power of the Fourier transform under a Hann
window, summed in M triangular bands on the mel scale of Slaney (1998, "Auditory Toolbox"), of equal area; then the
natural logarithm. Before the first sample there is silence. So a frame needs no later sample, and a stream is read in
pieces of any length.

Legend: B sequences, S samples, T frames, M bands, F frequencies, W samples of a window, H samples from frame to frame.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from pipeline.state import State

KNEE, LINEAR = 1000.0, 200.0 / 3  # hertz where the scale turns logarithmic, and hertz a mel below
STEP = np.log(6.4) / 27  # of the logarithm, a mel, above


def mels_of(hertz: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Slaney's mel scale: linear below 1000 Hz, logarithmic above."""
    high = KNEE / LINEAR + np.log(np.maximum(hertz, KNEE) / KNEE) / STEP
    return np.where(hertz < KNEE, hertz / LINEAR, high)


def hertz_of(mels: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The inverse of `mels_of`."""
    knee = KNEE / LINEAR
    return np.where(mels < knee, mels * LINEAR, KNEE * np.exp(STEP * (np.maximum(mels, knee) - knee)))


def mel_bands(rate: int, window: int, bands: int) -> Float64[np.ndarray, "F M"]:
    """Weight of each frequency in each band: triangles from the centre of the band below to that of the one above."""
    frequencies = np.arange(window // 2 + 1) * rate / window
    top = mels_of(np.array(rate / 2))
    edges = hertz_of(np.linspace(0, top, bands + 2))
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges)[1:]
    weights: Float64[np.ndarray, "F M"] = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return weights


class LogMel(nn.Module):
    """Log-mel spectrogram; the state holds the samples that later frames need, of shape (B, W - H and what is over).

    Args:
        rate: samples per second.
        bands: M.
        window: W, in samples.
        hop: H, in samples.
        floor: least power before the logarithm.

    Raises:
        ValueError: the hop is not from 1 to the window.
    """

    def __init__(self, rate: int, bands: int = 80, window: int = 400, hop: int = 160, floor: float = 1e-10) -> None:
        super().__init__()
        self.hann: Tensor
        self.weights: Tensor
        if not 1 <= hop <= window:
            raise ValueError(f"hop={hop} must be from 1 to window={window}")
        self.rate, self.bands, self.window, self.hop, self.floor = rate, bands, window, hop, floor
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        self.register_buffer("hann", torch.tensor(hann, dtype=torch.float32), persistent=False)
        weights = torch.tensor(mel_bands(rate, window, bands), dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, waves: Float[Tensor, "B S"], state: State = None) -> tuple[Float[Tensor, "B T M"], State]:
        """The frames that end within these samples, and the state for the samples that follow."""
        past = waves.new_zeros(len(waves), self.window - self.hop) if state is None else state
        heard = torch.cat([past, waves], 1)
        frames = (heard.shape[1] - self.window) // self.hop + 1 if heard.shape[1] >= self.window else 0
        after = heard[:, frames * self.hop :].clone()  # a copy: a view would keep all that was heard
        if not frames:
            return waves.new_zeros(len(waves), 0, self.bands), after
        with torch.autocast(waves.device.type, enabled=False):  # Fourier transforms want float32 at least
            pieces = heard.float().unfold(1, self.window, self.hop)
            power = torch.fft.rfft(pieces * self.hann).abs().square()
            bands = (power @ self.weights).clamp(min=self.floor).log()
        return bands, after
