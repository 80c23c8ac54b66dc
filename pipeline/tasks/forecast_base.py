"""The base of all forecasting tasks: output head, instance normalization, loss, and errors of model and baselines.

Kim et al. (2022), "Reversible Instance Normalization": each window is normalized by its own mean and standard
deviation, and forecasts are transformed back.

Legend: B windows, L steps of a context, H of a horizon, K covariates, N blocks of a horizon, D features,
P parameters of a step, S paths.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.callbacks.previews.forecasts import Forecasts
from pipeline.data.batch import SeriesBatch
from pipeline.dataset.codecs.series_table import read_series_table
from pipeline.errors import CheckpointError
from pipeline.evaluation.forecast_baselines import Baseline, fit_baselines
from pipeline.evaluation.forecast_errors import ForecastErrors, mean_errors
from pipeline.evaluation.metrics import TokenLoss
from pipeline.optim import OptimizerCallable, Schedule
from pipeline.tasks.likelihoods import Likelihood, SquaredError
from pipeline.tasks.task import Reads, Task, Writes

if TYPE_CHECKING:
    import pandas as pd

MIXED = 32  # hidden features that combine covariates with the network's features


@dataclass(frozen=True)
class ForecastSettings:
    """Settings of the forecast head.

    Args:
        likelihood: likelihood of a step, which defines the loss (default: a point forecast with squared error).
        chunk_length: steps per output chunk, a divisor of the horizon (default: the horizon). Shorter chunks are fed
            back through the carried state.
        instance_norm: normalize each window by its own mean and standard deviation.
        num_samples: number of sample paths per window in an evaluation, if the likelihood can be sampled.
        dropout: fraction of the features dropped in training before the last layer.
    """

    likelihood: Likelihood | None = None
    chunk_length: int | None = None
    instance_norm: bool = False
    num_samples: int = 100
    dropout: float = 0.0


class InstanceNorm(nn.Module):
    """Shift and scale of a window: its mean and standard deviation, corrected by a learned gain and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, context: Float[Tensor, "B L"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return shift and scale, such that (x - shift) / scale = gain (x - mean) / deviation + bias."""
        deviation = (context.var(1, unbiased=False) + 1e-5).sqrt()
        scale = deviation / self.log_gain.exp()
        return context.mean(1) - self.bias * scale, scale


class ForecastHead(nn.Module):
    """Predicts the next steps from features and from the covariates of these steps.

    Args:
        features: D.
        steps: output chunk length.
        parameters: P, of each step.
        covariates: K, known in advance.
        dropout: fraction of the features dropped in training.
    """

    def __init__(self, features: int, steps: int, parameters: int, covariates: int, dropout: float) -> None:
        super().__init__()
        self.steps = steps
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, steps * parameters)
        self.read = nn.Linear(features, MIXED) if covariates else None
        self.ahead = nn.Linear(covariates, MIXED, bias=False) if covariates else None
        self.mixed = nn.Linear(MIXED, parameters, bias=False) if covariates else None

    def forward(self, features: Float[Tensor, "B N D"], known: Float[Tensor, "B M K"]) -> Float[Tensor, "B M P"]:
        """Return the raw parameters of the M steps that N chunks predict."""
        features = self.dropout(features)
        outputs: Tensor = self.linear(features).unflatten(-1, (self.steps, -1)).flatten(1, 2)
        if self.read is None or self.ahead is None or self.mixed is None:
            return outputs
        read = self.read(features).repeat_interleave(self.steps, 1)
        mixed: Tensor = self.mixed(F.gelu(read + self.ahead(known)))
        return outputs + mixed


class Forecasting(Task):
    """Predicts the horizon of a window from its context.

    Args:
        features: D, features of the network's output.
        horizon: H, set from the data.
        covariates: K, known in advance, set from the data.
        forecast: settings of the forecast head.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.

    Raises:
        ValueError: `chunk_length` does not divide the horizon, or `num_samples` is below 1.
    """

    reads: Reads = "series"
    writes: Writes = "series"

    def __init__(
        self,
        features: int,
        horizon: int,
        covariates: int,
        forecast: ForecastSettings,
        optimizer: OptimizerCallable,
        schedule: Schedule | None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.horizon, self.covariates, self.forecast = horizon, covariates, forecast
        self.chunk_length = horizon if forecast.chunk_length is None else forecast.chunk_length
        if self.chunk_length < 1 or horizon % self.chunk_length:
            raise ValueError(f"chunk_length={self.chunk_length} must divide horizon={horizon}")
        if forecast.num_samples < 1:
            raise ValueError(f"num_samples={forecast.num_samples} must be at least 1")
        self.likelihood = forecast.likelihood or SquaredError()
        self.instance = InstanceNorm() if forecast.instance_norm else None
        self.head = ForecastHead(features, self.chunk_length, self.likelihood.parameters, covariates, forecast.dropout)
        self.seen = TokenLoss()  # since the last log; the code that logs it resets it
        self.held_out = TokenLoss()
        self.errors = ForecastErrors()
        self.baselines: dict[str, Baseline] = {}
        self.baseline_errors: dict[str, ForecastErrors] = {}

    def forward(self, batch: SeriesBatch) -> Float[Tensor, "B H P"]:
        """Return the parameters of the likelihood at each step of the horizon, in standardized units."""
        raise NotImplementedError

    def roll(
        self, context: Float[Tensor, "B L"], known: Float[Tensor, "B _ K"], noise: Float[Tensor, "2 B S H"]
    ) -> Float[Tensor, "B S H"]:
        """Return sample paths in which each chunk is fed back before the next one is predicted."""
        raise NotImplementedError

    def sample_paths(self, batch: SeriesBatch, parts: Float[Tensor, "B H P"] | None = None) -> Float[Tensor, "B S H"]:
        """Return the sample paths of each window; noise depends on the sample, not on the number of processes.

        Args:
            batch: the windows.
            parts: outputs of `forward` for them, if already computed.
        """
        noise = self._noise(batch.ids)
        if self.chunk_length < self.horizon:
            return self.roll(batch.context, batch.known, noise)
        parts = self(batch) if parts is None else parts
        return self.likelihood.draw(parts[:, None].expand(-1, noise.shape[2], -1, -1), *noise)

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the mean loss of the global batch."""
        loss = self._loss(self(batch), batch)
        self.seen.update(loss.detach(), batch.observed.sum())
        return loss * self.loss_scale / batch.predictions

    def generate(self, history: "Path | pd.DataFrame") -> "pd.DataFrame":
        """Return the forecast of the next horizon for every series of a table, in the units of the table.

        The columns are the time, `series`, and `forecast`, or `mean p10 p50 p90` if the likelihood can be sampled.

        Args:
            history: a CSV or Parquet file, or a table, in the layout of the dataset's source.

        Raises:
            CheckpointError: the task was not loaded by `from_pretrained`.
            DataError: the table does not match the dataset.
        """
        import pandas as pd
        import pyarrow as pa

        from pipeline.runs.record import read_series_record
        from pipeline.tasks.forecast_tables import forecast_windows, windows_of

        if self.directory is None:
            raise CheckpointError(f"this {type(self).__name__} has no scale: load it with from_pretrained")
        record = read_series_record(self.directory)
        about, linked = record["dataset"]["series"], record["linked"]
        if isinstance(history, pd.DataFrame):
            table = pa.Table.from_pandas(history, preserve_index=None if history.index.name else False)
        else:
            table = read_series_table([Path(history)], header=about.get("header", True))
        windows = windows_of(table, about, linked["context"], linked["horizon"], "history")
        self.eval()
        forecast = forecast_windows(self.sample_paths, windows, about["scaling"], str(self.device))
        stamps = [(stamp, each.name) for each in windows for stamp in each.stamps[-linked["horizon"] :]]
        found = pd.DataFrame(stamps, columns=[about["time"], "series"])
        point = bool((forecast.low == forecast.high).all())
        for name, part in zip(("forecast",) if point else ("mean", "p10", "p50", "p90"), forecast, strict=False):
            found[name] = part.flatten().tolist()
        return found

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        """Add the batch to the metrics, and to those of the baselines if they were fitted."""
        parts = self(batch)
        self.held_out.update(self._loss(parts, batch), batch.observed.sum())
        targets = batch.targets, batch.observed, batch.naive_errors
        self.errors.update(self.sample_paths(batch, parts), *targets)
        for name, baseline in self.baselines.items():
            self.baseline_errors[name].update(baseline(batch.context)[:, None], *targets)

    test_step = validation_step

    def on_validation_start(self) -> None:
        """Fit the baselines if only a validation runs."""
        if self.trainer.state.fn == "validate":
            self.on_test_start()

    def on_test_start(self) -> None:
        """Fit the baselines."""
        data = self.data
        season = data.dataset.manifest["series"]["season"]
        self.baselines = fit_baselines(data.samples("train"), data.samples("validation"), season, self.device)
        self.baseline_errors = {name: ForecastErrors().to(self.device) for name in self.baselines}

    def on_validation_epoch_end(self) -> None:
        """Log the errors, and pass the loss to the schedule."""
        loss = self._log_held_out("val")
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Log the errors and those of the baselines."""
        self._log_held_out("test")

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callback that plots forecasts."""
        return [Forecasts()]

    def _log_held_out(self, prefix: str) -> float:
        loss = float(self.held_out.compute())
        found = {"loss": loss, **mean_errors(self.errors)}
        for name, errors in self.baseline_errors.items():
            found |= {f"{name}/{error}": value for error, value in mean_errors(errors).items()}
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict({f"{prefix}/{name}": value for name, value in found.items()}, logger=not self.writes_rows)
        for metric in (self.held_out, self.errors, *self.baseline_errors.values()):
            metric.reset()
        return loss

    def _loss(self, parts: Tensor, batch: SeriesBatch) -> Tensor:
        return torch.where(batch.observed, self.likelihood.loss(parts.float(), batch.targets), 0.0).sum()

    def _scale(self, context: Float[Tensor, "B L"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return the shift and the scale by which each window is normalized."""
        if self.instance is None:
            return torch.zeros_like(context[:, 0]), torch.ones_like(context[:, 0])
        found: tuple[Tensor, Tensor] = self.instance(context)
        return found

    def _noise(self, ids: Int64[Tensor, " B"]) -> Float[Tensor, "2 B S H"]:
        """Return uniform numbers in (0, 1], drawn for each sample from its own seed."""
        if not self.likelihood.draws:
            return torch.ones(2, len(ids), 1, self.horizon, device=ids.device)
        size = 2, self.forecast.num_samples, self.horizon
        rows = [1 - torch.rand(size, generator=torch.Generator().manual_seed(abs(row))) for row in ids.tolist()]
        return torch.stack(rows, 1).to(ids.device)
