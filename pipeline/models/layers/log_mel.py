"""A causal log-mel spectrogram that processes a stream in chunks of any length.

Frame t is computed from the W samples that end with sample (t + 1) H. It is the natural logarithm of the power of the
Fourier transform under a Hann window, summed in M triangular bands of equal area on the mel scale of Slaney (1998,
"Auditory Toolbox"). The signal is zero before the first sample, so a frame depends on no later sample.

Legend: B sequences, S samples, T frames, M bands, F frequencies, W samples of a window, H samples from frame to frame.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from pipeline.state import State

KNEE, LINEAR = 1000.0, 200.0 / 3  # hertz above which the scale is logarithmic, and hertz per mel below
STEP = np.log(6.4) / 27  # logarithm of hertz per mel above


def mels_of(hertz: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Convert hertz to Slaney's mel scale, which is linear below 1000 Hz and logarithmic above."""
    high = KNEE / LINEAR + np.log(np.maximum(hertz, KNEE) / KNEE) / STEP
    return np.where(hertz < KNEE, hertz / LINEAR, high)


def hertz_of(mels: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Convert mels to hertz, the inverse of `mels_of`."""
    knee = KNEE / LINEAR
    return np.where(mels < knee, mels * LINEAR, KNEE * np.exp(STEP * (np.maximum(mels, knee) - knee)))


def mel_bands(rate: int, window: int, bands: int) -> Float64[np.ndarray, "F M"]:
    """Return the weight of each frequency in each band: triangles between the centers of the neighboring bands."""
    frequencies = np.arange(window // 2 + 1) * rate / window
    top = mels_of(np.array(rate / 2))
    edges = hertz_of(np.linspace(0, top, bands + 2))
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges)[1:]
    weights: Float64[np.ndarray, "F M"] = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return weights


class LogMel(nn.Module):
    """Log-mel spectrogram; the state is the samples for later frames, of shape (B, N) with N >= W - H.

    Args:
        rate: samples per second.
        bands: M.
        window: W, in samples.
        hop: H, in samples.
        floor: minimum power before the logarithm.

    Raises:
        ValueError: the hop is below 1 or above the window.
    """

    def __init__(self, rate: int, bands: int = 80, window: int = 400, hop: int = 160, floor: float = 1e-10) -> None:
        super().__init__()
        self.hann: Tensor
        self.weights: Tensor
        if not 1 <= hop <= window:
            raise ValueError(f"hop={hop}: expected 1 to window={window}")
        self.rate, self.bands, self.window, self.hop, self.floor = rate, bands, window, hop, floor
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        self.register_buffer("hann", torch.tensor(hann, dtype=torch.float32), persistent=False)
        weights = torch.tensor(mel_bands(rate, window, bands), dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, waves: Float[Tensor, "B S"], state: State = None) -> tuple[Float[Tensor, "B T M"], State]:
        """Return the frames that end within these samples, and the state for the next call."""
        past = waves.new_zeros(len(waves), self.window - self.hop) if state is None else state
        samples = torch.cat([past, waves], 1)
        frames = (samples.shape[1] - self.window) // self.hop + 1 if samples.shape[1] >= self.window else 0
        after = samples[:, frames * self.hop :].clone()  # A view would keep all samples in memory.
        if not frames:
            return waves.new_zeros(len(waves), 0, self.bands), after
        device = "cpu" if waves.is_meta else waves.device.type
        with torch.autocast(device, enabled=False):  # Fourier transforms require at least float32.
            pieces = samples.float().unfold(1, self.window, self.hop)
            power = torch.fft.rfft(pieces * self.hann).abs().square()
            bands = (power @ self.weights).clamp(min=self.floor).log()
        return bands, after
