"""Batches of windows of time series: a context as input, and the horizon after it as target.

Legend: B rows, L steps of a context, H steps of a horizon, K covariates, W windows, S steps of all series.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.data.batch import SeriesBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.batch_warmup import BatchWarmup, Growth
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.series import SeriesSplit
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError


class SeriesWindows:
    """The windows of one split, read by slices of a global batch.

    Args:
        context: input steps.
        horizon: predicted steps.
        stride: steps between two horizons.
        stride: steps from one horizon to the next.
    """

    def __init__(self, split: SeriesSplit, context: int, horizon: int, stride: int) -> None:
        self.split, self.context, self.horizon, self.stride = split, context, horizon, stride

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> Ids:
        """The series of each window, and the start of its horizon among the steps of all series (W, 2).

        Windows without any observed step in the horizon are left out: they have no target.
        """
        found = self.split.windows(self.context, self.horizon, self.stride)
        return found[self._observed(found[:, 1]) > 0]

    def predictions(self, ids: Ids) -> int:
        """Return the number of observed steps of these horizons; 0 in a row that only fills the batch."""
        return int(self._observed(self.places[ids[ids != NO_SAMPLE], 1]).sum())

    def _observed(self, begins: Ids) -> Ids:
        """Return the number of observed steps of the horizons that begin at these steps."""
        missing = self.split.unobserved_before
        if missing is None:
            return np.full(len(begins), self.horizon)
        seen: Ids = self.horizon - missing[begins + self.horizon] + missing[begins]
        return seen

    def batch(self, ids: Ids) -> SeriesBatch:
        """Return these windows as a batch, outside any plan."""
        return self.__getitems__(Slice(ids, self.predictions(ids), 0, 0, 0))

    def __getitems__(self, part: Slice) -> SeriesBatch:
        there = part.ids != NO_SAMPLE
        places = self.places[np.where(there, part.ids, 0)]
        begins = places[:, 1] - self.context
        whole = torch.from_numpy(self._values[begins])
        observed = np.broadcast_to(there[:, None], (len(begins), self.horizon)).copy()
        if (missing := self.split.unobserved_before) is not None:
            steps = places[:, 1:] + np.arange(self.horizon)
            observed &= missing[steps + 1] == missing[steps]
        return SeriesBatch(
            whole[:, : self.context],
            whole[:, self.context :],
            torch.from_numpy(observed),
            torch.from_numpy(self._known[begins].transpose(0, 2, 1)),
            torch.from_numpy(self.split.naive_errors[places[:, 0]]),
            torch.from_numpy(np.ascontiguousarray(part.ids)),
            part.predictions,
            part.step,
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave out the views, which pickling would copy window by window."""
        return {name: value for name, value in vars(self).items() if name not in ("_values", "_known")}

    @cached_property
    def _values(self) -> np.ndarray:
        """A view (S - L - H + 1, L + H): the values of the window at each step."""
        return sliding_window_view(self.split.values, self.context + self.horizon)

    @cached_property
    def _known(self) -> np.ndarray:
        """A view (S - L - H + 1, K, L + H): the covariates of the window at each step."""
        return sliding_window_view(self.split.known, self.context + self.horizon, axis=0)


class SeriesDataModule(PlannedDataModule):
    """Windows of time series; training in an order drawn from the seed, evaluation in order.

    Args:
        dataset: a directory made by `unroll prepare series`.
        context: input steps before each forecast.
        horizon: predicted steps.
        global_batch_size: windows per batch, over all processes.
        per_device_batch_size: maximum windows per device; gradient accumulation is derived. Default: all.
        stride: steps between two forecasts of an evaluation; 1 forecasts at every step.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order.
        batch_warmup: smaller global batches in the first steps; None for none.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: context, horizon, stride or batch size is below 1.
    """

    def __init__(
        self,
        dataset: Path | str,
        context: int = 336,
        horizon: int = 96,
        global_batch_size: int = 256,
        per_device_batch_size: int | None = None,
        stride: int = 1,
        workers: int = 0,
        seed: int = 0,
        batch_warmup: BatchWarmup | None = None,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="series"), workers)
        self.growth = Growth(batch_warmup, global_batch_size)
        if min(context, horizon, global_batch_size, stride) < 1:
            raise ConfigError(
                f"context={context}, horizon={horizon}, global_batch_size={global_batch_size} and stride={stride} "
                "must be at least 1"
            )
        self.context, self.horizon, self.stride = context, horizon, stride
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed
        self._windows: dict[str, SeriesWindows] = {}  # a cache

    @property
    def facts(self) -> DataFacts:
        """Steps of a window, and number of covariates."""
        covariates = len(self.dataset.manifest["series"]["covariates"])
        return DataFacts(context=self.context, horizon=self.horizon, covariates=covariates)

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("values")

    def samples(self, name: str) -> SeriesWindows:
        """Return the windows of the split `name`.

        Raises:
            ConfigError: the split does not exist or is shorter than a window.
        """
        if name not in self._windows:
            stride = 1 if name == "train" else self.stride
            windows = SeriesWindows(self.split(name), self.context, self.horizon, stride)
            if not len(windows):
                raise ConfigError(
                    f"context={self.context} and horizon={self.horizon}: expected windows that fit the {name} split of "
                    f"{self.dataset.path}, got {self.split(name).longest} steps in its longest series. "
                    f"Set {self._fitting()}, or prepare longer series"
                )
            self._windows[name] = windows
        return self._windows[name]

    def plan(self, samples: SeriesWindows) -> Plan:
        """Return an order drawn from the seed.

        Raises:
            ConfigError: there are not enough windows for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"global_batch_size={size}: expected at most {count}, the windows of context={self.context} and "
                f"horizon={self.horizon} in the training split of {self.dataset.path}, got {size}. "
                f"Set {self._fitting()}"
            )
        return Shuffled(count, size, self.seed)

    def _fitting(self) -> str:
        """Return options with which all splits have windows, and an epoch has several batches."""
        steps = {name: self.split(name).longest for name in self.dataset.splits}
        season = self.dataset.manifest["series"]["season"]

        def shortened(length: int, most: int) -> int:
            """Return at most half of the steps, in whole seasons if one fits."""
            return length if length <= most // 2 else max(most // 2 // season * season or most // 2, 1)

        horizon = shortened(self.horizon, min(steps.values()))
        context = shortened(self.context, steps["train"] - horizon)
        batch = 1 << (max(steps["train"] - context - horizon + 1, 4) // 4).bit_length() - 1
        sizes = {"context": context, "horizon": horizon, "global_batch_size": min(batch, self.global_batch_size)}
        return " ".join(f"--data.init_args.{name} {size}" for name, size in sizes.items())

    def plan_evaluation(self, samples: SeriesWindows) -> Plan:
        """Return every window exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
