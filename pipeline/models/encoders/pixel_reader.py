"""An encoder that reads an image pixel by pixel; its output at the last pixel is the summary.

Le, Jaitly and Hinton (2015), "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units": sequential
MNIST and, in a fixed random order of pixels, permuted MNIST.

Legend: B images, T positions, D features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.layers.cross_attention import Memory
from pipeline.state import width_of
from pipeline.tasks.task import Reads


class PixelReader(nn.Module):
    """A causal network over gray values in [0, 1].

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
    """

    reads: Reads = "image"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.width = width_of(network)
        self.bright = nn.Linear(1, self.width)

    def forward(self, pixels: Float[Tensor, "B T"]) -> Memory:
        """Return the outputs at all positions; the last one is the summary."""
        outputs, _ = self.network(self.bright(2 * pixels[..., None] - 1))
        return Memory(outputs, torch.ones_like(pixels, dtype=torch.bool), outputs[:, -1])
