"""A forecaster reads a context and says what comes: block by block through a carried state, or from the window at once.

Salinas et al. (2020), "DeepAR", for paths through the state: what was drawn is read before the next is said.

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

ROWS = 1024  # paths that are rolled together


class Forecaster(Forecasting):
    """Forecasts with any causal network, through its carried state.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        horizon: steps that are predicted; the data says it.
        covariates: known ahead; the data says it.
        forecast: how a forecast is said.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.

    Raises:
        ValueError: the reach does not divide the horizon.
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
        """The parameters at each step, said from what really came before its block."""
        context = batch.context.shape[1]
        length = context + self.horizon - self.chunk_length
        values = torch.cat([batch.context, batch.targets], 1)[:, :length]
        shift, scale = (part[:, None] for part in self._scale(batch.context))
        features, _ = self._read((values - shift) / scale, batch.known[:, :length], None)
        raw = self.head(features[:, context - 1 :: self.chunk_length], batch.known[:, context:])
        return self.likelihood.move(self.likelihood.parts(raw), shift, scale)

    def costs(self, batch: SeriesBatch) -> Float[Tensor, "B T"]:
        """The mean cost of the steps said from each position that is read; NaN where nothing is said."""
        blocks = len(batch.targets), -1, self.chunk_length
        miss = self.likelihood.loss(self(batch).float(), batch.targets).reshape(blocks)
        seen = batch.observed.reshape(blocks)
        said = torch.where(seen, miss, 0.0).sum(2) / seen.sum(2)  # NaN where no step was observed
        before = said.new_full((len(said), batch.context.shape[1] - 1), torch.nan)
        between = said.new_full((*said.shape, self.chunk_length - 1), torch.nan)
        spread = torch.cat([said[..., None], between], 2).flatten(1)
        return torch.cat([before, spread[:, : self.horizon - self.chunk_length + 1]], 1)

    @torch.no_grad()
    def roll(
        self, context: Float[Tensor, "B L"], known: Float[Tensor, "B _ K"], noise: Float[Tensor, "2 B S H"]
    ) -> Float[Tensor, "B S H"]:
        """Paths of which each block is read before the next one is said."""
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
            said = self.likelihood.move(self.likelihood.parts(raw), shift, scale)
            drawn.append(self.likelihood.draw(said, *noise[:, :, block]))
        return torch.cat(drawn, 1).reshape(len(context), paths, self.horizon)

    def _read(self, values: Tensor, known: Tensor, state: State) -> tuple[Float[Tensor, "B T D"], State]:
        outputs, state = self.network(self.input(torch.cat([values[..., None], known], -1)), state)
        return outputs, state


class WindowForecaster(Forecasting):
    """Forecasts with a network that sees the context as one window and says the whole horizon.

    Known covariates are read for the steps of the horizon, not for those of the context.

    Args:
        network: maps (B, L) to (B, D); has `features` D.
        horizon: steps that are predicted; the data says it.
        covariates: known ahead; the data says it.
        forecast: how a forecast is said.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.

    Raises:
        ValueError: a reach below the horizon: there is no state to carry.
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
                f"chunk_length={forecast.chunk_length}: a network of windows says the whole horizon={horizon} at once"
            )
        super().__init__(int(network.features), horizon, covariates, forecast, optimizer, schedule)  # type: ignore[arg-type]
        self.network = network

    def forward(self, batch: SeriesBatch) -> Float[Tensor, "B H P"]:
        """The parameters at each step."""
        shift, scale = (part[:, None] for part in self._scale(batch.context))
        features = self.network((batch.context - shift) / scale)
        raw = self.head(features[:, None], batch.known[:, batch.context.shape[1] :])
        return self.likelihood.move(self.likelihood.parts(raw), shift, scale)
