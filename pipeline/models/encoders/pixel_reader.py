"""A reader of pixels takes an image in, one brightness after the other; what it made of it at the end is the summary.

Le, Jaitly and Hinton (2015), "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units": sequential and,
in another order that is always the same, permuted MNIST.

Legend: B images, T positions, D features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.layers.cross_attention import Memory
from pipeline.state import width_of
from pipeline.tasks.task import Reads


class PixelReader(nn.Module):
    """Any causal network over brightnesses from 0 to 1.

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
        """Outputs at all positions, of which the last is the summary."""
        outputs, _ = self.network(self.bright(2 * pixels[..., None] - 1))
        return Memory(outputs, torch.ones_like(pixels, dtype=torch.bool), outputs[:, -1])
