"""Series become batches of windows: a context that is read, and the horizon after it that is predicted.

Legend: B rows, L steps of a context, H of a horizon, K covariates, W windows, S steps of all series.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.data.batch import SeriesBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.series import SeriesSplit
from pipeline.errors import ConfigError


class SeriesWindows:
    """The windows of one split, read by slices of a global batch.

    Args:
        split: the series.
        context: steps that are read.
        horizon: steps that are predicted.
        stride: steps from one horizon to the next.
    """

    def __init__(self, split: SeriesSplit, context: int, horizon: int, stride: int) -> None:
        self.split, self.context, self.horizon, self.stride = split, context, horizon, stride

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> Ids:
        """The series of each window, and where its horizon begins among the steps of all series (W, 2).

        A window of whose horizon nothing was observed is none: there is nothing to learn from it or to measure.
        """
        found = self.split.windows(self.context, self.horizon, self.stride)
        return found[self._observed(found[:, 1]) > 0]

    def predictions(self, ids: Ids) -> int:
        """Observed steps of these horizons; none in a row that only fills the batch."""
        return int(self._observed(self.places[ids[ids != NO_SAMPLE], 1]).sum())

    def _observed(self, begins: Ids) -> Ids:
        """Observed steps of the horizons that begin there."""
        missing = self.split.unobserved_before
        if missing is None:
            return np.full(len(begins), self.horizon)
        seen: Ids = self.horizon - missing[begins + self.horizon] + missing[begins]
        return seen

    def batch(self, ids: Ids) -> SeriesBatch:
        """These windows, outside any plan."""
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

    @property
    def _values(self) -> np.ndarray:
        """A view (S - L - H + 1, L + H): the values from each step on."""
        return sliding_window_view(self.split.values, self.context + self.horizon)

    @property
    def _known(self) -> np.ndarray:
        """A view (S - L - H + 1, K, L + H): the covariates from each step on."""
        return sliding_window_view(self.split.known, self.context + self.horizon, axis=0)


class SeriesDataModule(PlannedDataModule):
    """Windows of series: training in an order drawn from the seed, evaluation from the first to the last.

    Args:
        dataset: a directory made by `unroll prepare series`.
        context: steps that are read before each forecast.
        horizon: steps that are predicted.
        global_batch_size: windows in a batch, over all processes.
        per_device_batch_size: windows a device takes at once; gradient accumulation is derived. Default: all.
        stride: steps from one forecast of an evaluation to the next: 1 rolls over every step.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: context, horizon, stride or batch size is below 1.
    """

    def __init__(
        self,
        dataset: Path,
        context: int = 336,
        horizon: int = 96,
        global_batch_size: int = 256,
        per_device_batch_size: int | None = None,
        stride: int = 1,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="series"), workers)
        if min(context, horizon, global_batch_size, stride) < 1:
            raise ConfigError(
                f"context={context}, horizon={horizon}, global_batch_size={global_batch_size} and stride={stride} "
                "must be at least 1"
            )
        self.context, self.horizon, self.stride = context, horizon, stride
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed
        self._windows: dict[str, SeriesWindows] = {}  # placing them is done once

    @property
    def facts(self) -> DataFacts:
        """Steps of a window, and the number of covariates."""
        covariates = len(self.dataset.manifest["series"]["covariates"])
        return DataFacts(context=self.context, horizon=self.horizon, covariates=covariates)

    def samples(self, name: str) -> SeriesWindows:
        """The windows of the split `name`.

        Raises:
            ConfigError: there is no such split, or no window fits into it.
        """
        if name not in self._windows:
            stride = 1 if name == "train" else self.stride
            windows = SeriesWindows(self.split(name), self.context, self.horizon, stride)
            if not len(windows):
                raise ConfigError(
                    f"the {name} split of {self.dataset.path} holds no window of context={self.context} and "
                    f"horizon={self.horizon}: lower them, or prepare longer series"
                )
            self._windows[name] = windows
        return self._windows[name]

    def plan(self, samples: SeriesWindows) -> Plan:
        """An order drawn from the seed.

        Raises:
            ConfigError: there are not enough windows for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} holds {count} windows of context={self.context} and "
                f"horizon={self.horizon}, fewer than global_batch_size={size}: lower one of them"
            )
        return Shuffled(count, size, self.seed)

    def plan_evaluation(self, samples: SeriesWindows) -> Plan:
        """Every window exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's rows of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
