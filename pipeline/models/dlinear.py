"""DLinear maps the trend and the remainder of a window linearly to the horizon.

Zeng et al. (2023), "Are Transformers Effective for Time Series Forecasting?": with a moving average A over the
window, padded by its end values,
    trend = A x,   remainder = x - A x,   forecast = W_r remainder + W_t trend + b
All series share one map. W_r and W_t are the two halves of the weight of the task's head.

Legend: B windows, L steps of a context.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.forecaster import ForecastSettings, WindowForecaster

__all__ = ["DLinear", "DLinearForecaster"]


class DLinear(nn.Module):
    """Remainder and trend of a window, without parameters; the linear maps are part of the head.

    Args:
        context: steps of a window.
        kernel: steps of the moving average, an odd number.

    Raises:
        ValueError: the kernel is even or below 1.
    """

    def __init__(self, context: int = 336, kernel: int = 25) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd and at least 1, for a centered average")
        self.kernel = kernel
        self.features = 2 * context

    def forward(self, window: Float[Tensor, "B L"]) -> Float[Tensor, "B 2*L"]:
        """Return the remainder, followed by the trend."""
        side = self.kernel // 2
        extended = F.pad(window[:, None], (side, side), mode="replicate")
        trend = F.avg_pool1d(extended, self.kernel, stride=1)[:, 0]
        return torch.cat([window - trend, trend], 1)


class DLinearForecaster(WindowForecaster):
    """A forecaster whose network is a `DLinear`.

    Args:
        context: number of input steps, set from the data.
        horizon: number of steps to predict, set from the data.
        covariates: number of covariates known in advance, set from the data.
        kernel: steps of the moving average, an odd number.
        forecast: settings of the forecast head.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        covariates: int = 0,
        kernel: int = 25,
        forecast: ForecastSettings = ForecastSettings(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(DLinear(context, kernel), horizon, covariates, forecast, optimizer, schedule)
