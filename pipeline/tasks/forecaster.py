"""Forecasters of time series: chunk by chunk through a carried state, or the whole horizon from a window.

Salinas et al. (2020), "DeepAR": sample paths are drawn chunk by chunk, and each sample is the next input.

Legend: B windows, L steps of a context, H of a horizon, K covariates, T positions, D features, P parameters, S paths.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline import state as states
from pipeline.data.batch import SeriesBatch
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.forecast_base import Forecasting, ForecastSettings

__all__ = ["ForecastSettings", "Forecaster", "WindowForecaster"]

ROWS = 1024  # sample paths per batch


class Forecaster(Forecasting):
    """Forecasts with any causal network, through its carried state.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        horizon: number of steps to predict, set from the data.
        covariates: number of covariates known in advance, set from the data.
        forecast: settings of the forecast head.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.

    Raises:
        ValueError: `chunk_length` does not divide the horizon.
    """

    def __init__(
        self,
        network: nn.Module,
        horizon: int,
        covariates: int = 0,
        forecast: ForecastSettings = ForecastSettings(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(width_of(network), horizon, covariates, forecast, optimizer, schedule)
        self.input = nn.Linear(1 + covariates, width_of(network))
        self.network = network

    def forward(self, batch: SeriesBatch) -> Float[Tensor, "B H P"]:
        """Return the parameters at each step, predicted from the observed values before its chunk."""
        context = batch.context.shape[1]
        length = context + self.horizon - self.chunk_length
        values = torch.cat([batch.context, batch.targets], 1)[:, :length]
        shift, scale = (part[:, None] for part in self._scale(batch.context))
        features, _ = self._read((values - shift) / scale, batch.known[:, :length], None)
        raw = self.head(features[:, context - 1 :: self.chunk_length], batch.known[:, context:])
        return self.likelihood.move(self.likelihood.parts(raw), shift, scale)

    def position_losses(self, batch: SeriesBatch) -> Float[Tensor, "B T"]:
        """Return the mean loss of the steps predicted at each input position, NaN where nothing is predicted."""
        blocks = len(batch.targets), -1, self.chunk_length
        losses = self.likelihood.loss(self(batch).float(), batch.targets).reshape(blocks)
        observed = batch.observed.reshape(blocks)
        means = torch.where(observed, losses, 0.0).sum(2) / observed.sum(2)  # NaN where no step was observed
        before = means.new_full((len(means), batch.context.shape[1] - 1), torch.nan)
        between = means.new_full((*means.shape, self.chunk_length - 1), torch.nan)
        spread = torch.cat([means[..., None], between], 2).flatten(1)
        return torch.cat([before, spread[:, : self.horizon - self.chunk_length + 1]], 1)

    @torch.no_grad()
    def roll(
        self, context: Float[Tensor, "B L"], known: Float[Tensor, "B _ K"], noise: Float[Tensor, "2 B S H"]
    ) -> Float[Tensor, "B S H"]:
        """Return sample paths in which each chunk is fed back before the next one is predicted."""
        rows = max(1, ROWS // noise.shape[2])
        parts = torch.split(context, rows), torch.split(known, rows), torch.split(noise, rows, 1)
        return torch.cat([self._roll(*part) for part in zip(*parts, strict=True)])

    def _roll(self, context: Tensor, known: Tensor, noise: Tensor) -> Tensor:
        length, paths = context.shape[1], noise.shape[2]
        index = torch.arange(len(context), device=context.device).repeat_interleave(paths)
        shift, scale = (part[:, None] for part in self._scale(context))
        features, state = self._read((context - shift) / scale, known[:, :length], None)
        features, state = features[index], states.select(state, index)
        shift, scale, known, noise = shift[index], scale[index], known[index], noise.flatten(1, 2)
        drawn: list[Tensor] = []
        for first in range(0, self.horizon, self.chunk_length):
            block = slice(first, first + self.chunk_length)
            ahead = known[:, length + first : length + first + self.chunk_length]
            if drawn:
                before = known[:, length + first - self.chunk_length : length + first]
                features, state = self._read((drawn[-1] - shift) / scale, before, state)
            raw = self.head(features[:, -1:], ahead)
            parts = self.likelihood.move(self.likelihood.parts(raw), shift, scale)
            drawn.append(self.likelihood.draw(parts, *noise[:, :, block]))
        return torch.cat(drawn, 1).reshape(len(context), paths, self.horizon)

    def _read(self, values: Tensor, known: Tensor, state: State) -> tuple[Float[Tensor, "B T D"], State]:
        outputs, state = self.network(self.input(torch.cat([values[..., None], known], -1)), state)
        return outputs, state


class WindowForecaster(Forecasting):
    """Forecasts with a network that maps a window to the whole horizon at once.

    Known covariates are read for the steps of the horizon, not for those of the context.

    Args:
        network: maps (B, L) to (B, D); has `features` D.
        horizon: number of steps to predict, set from the data.
        covariates: number of covariates known in advance, set from the data.
        forecast: settings of the forecast head.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.

    Raises:
        ValueError: `chunk_length` is below the horizon, which would require a carried state.
    """

    def __init__(
        self,
        network: nn.Module,
        horizon: int,
        covariates: int = 0,
        forecast: ForecastSettings = ForecastSettings(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        if forecast.chunk_length not in (None, horizon):
            raise ValueError(
                f"chunk_length={forecast.chunk_length}: a window forecaster predicts the whole horizon={horizon}. "
                "Leave chunk_length out"
            )
        super().__init__(int(network.features), horizon, covariates, forecast, optimizer, schedule)  # type: ignore[arg-type]
        self.network = network

    def forward(self, batch: SeriesBatch) -> Float[Tensor, "B H P"]:
        """Return the parameters of the likelihood at each step."""
        shift, scale = (part[:, None] for part in self._scale(batch.context))
        features = self.network((batch.context - shift) / scale)
        raw = self.head(features[:, None], batch.known[:, batch.context.shape[1] :])
        return self.likelihood.move(self.likelihood.parts(raw), shift, scale)
