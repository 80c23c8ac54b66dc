"""DLinear maps the trend of a window and what remains of it linearly to the horizon.

Zeng et al. (2023), "Are Transformers Effective for Time Series Forecasting?": with a moving average A over the
window, its ends repeated,
    trend = A x,   remainder = x - A x,   forecast = W_r remainder + W_t trend + b
One map serves all series. W_r and W_t stand side by side in the head of the task.

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
    """Remainder and trend of a window; there is nothing to learn here, the linear maps are the head's.

    Args:
        context: steps of a window.
        kernel: steps of the moving average, an odd number.

    Raises:
        ValueError: the kernel is even or below 1.
    """

    def __init__(self, context: int = 336, kernel: int = 25) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, so that the average is centred")
        self.kernel = kernel
        self.features = 2 * context

    def forward(self, window: Float[Tensor, "B L"]) -> Float[Tensor, "B 2*L"]:
        """The remainder, then the trend."""
        side = self.kernel // 2
        extended = F.pad(window[:, None], (side, side), mode="replicate")
        trend = F.avg_pool1d(extended, self.kernel, stride=1)[:, 0]
        return torch.cat([window - trend, trend], 1)


class DLinearForecaster(WindowForecaster):
    """The forecaster whose network is a `DLinear`.

    Args:
        context: steps that are read; the data says it.
        horizon: steps that are predicted; the data says it.
        covariates: known ahead; the data says it.
        kernel: steps of the moving average, an odd number.
        forecast: how a forecast is said.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
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
