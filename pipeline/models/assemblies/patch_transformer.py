"""A patch Transformer, which reads a window as overlapping patches with bidirectional attention.

Nie et al. (2023), "A Time Series is Worth 64 Words" (PatchTST), for each series independently. The last value is
repeated `stride` times, patches of `patch` steps are embedded and encoded, and the head reads the features of all
patches. Unlike the paper, which uses batch normalization, blocks are pre-norm with rotary positions: windows are
independent of each other, however a batch is divided.

Legend: B windows, L steps of a context, N patches, D features.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.encoders.text import TransformerStack
from pipeline.models.layers.feedforward import GELU, initialise
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.forecaster import ForecastSettings, WindowForecaster

__all__ = ["PatchTransformer", "PatchTransformerForecaster"]


class PatchTransformer(nn.Module):
    """A bidirectional encoder over the patches of a window.

    Args:
        context: steps of a window.
        width: features of a patch.
        depth: number of blocks.
        heads: number of attention heads; must divide the width.
        hidden: features inside the position-wise layers.
        patch: steps of a patch.
        stride: steps from one patch to the next.
        dropout: fraction of the features dropped in training.

    Raises:
        ValueError: the heads do not divide the width, or a patch is longer than the window.
    """

    def __init__(
        self,
        context: int = 336,
        width: int = 16,
        depth: int = 3,
        heads: int = 4,
        hidden: int = 128,
        patch: int = 16,
        stride: int = 8,
        dropout: float = 0.3,
    ) -> None:
        if not 1 <= patch <= context or stride < 1 or depth < 1:
            raise ValueError(
                f"patch={patch} must be 1 to context={context}; stride={stride} and depth={depth} at least 1"
            )
        super().__init__()
        self.patch, self.stride = patch, stride
        self.features = ((context - patch) // stride + 2) * width  # includes a patch over the repeated end
        self.embed = nn.Linear(patch, width)
        initialise(self.embed)
        self.blocks = TransformerStack(width, depth, heads, hidden, dropout, GELU)

    def forward(self, window: Float[Tensor, "B L"]) -> Float[Tensor, "B _"]:
        """Return the concatenated features of all patches."""
        extended = F.pad(window[:, None], (0, self.stride), mode="replicate")[:, 0]
        vectors = self.embed(extended.unfold(1, self.patch, self.stride))
        outputs: Tensor = self.blocks(vectors, None)
        return outputs.flatten(1)


class PatchTransformerForecaster(WindowForecaster):
    """A forecaster whose network is a `PatchTransformer`.

    Args:
        context: number of input steps, set from the data.
        horizon: number of steps to predict, set from the data.
        covariates: number of covariates known in advance, set from the data.
        forecast: settings of the forecast head.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
        **network: as in `PatchTransformer`.
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        covariates: int = 0,
        forecast: ForecastSettings = ForecastSettings(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(PatchTransformer(context, **network), horizon, covariates, forecast, optimizer, schedule)
