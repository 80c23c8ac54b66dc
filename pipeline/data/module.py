"""What every DataModule does: it opens a dataset and hands each process its part of each global batch of a plan."""

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
from torch.utils.data import DataLoader

from pipeline.data.batch_plan import Ids, MicroBatches, Plan, Share, Slice
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.lightning_internals import validates_by_the_clock
from pipeline.distributed.signals import end_workers_at_exit, ignore_signals
from pipeline.errors import ConfigError

STAGES = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}


@runtime_checkable
class SplitSamples(Protocol):
    """The samples of one split, read by slices of a global batch."""

    def __len__(self) -> int: ...

    def predictions(self, ids: Ids) -> int:
        """Targets in these samples, none in a row that only fills the batch."""

    def __getitems__(self, part: Slice) -> Any:
        """The batch."""


class PlannedDataModule(lightning.LightningDataModule):
    """Batches of a prepared dataset in the order of a plan.

    Args:
        dataset: the dataset.
        workers: loader processes; 0 reads in the training process.
    """

    shown: str | None = None  # the column of a split that tells people which source a row is

    def __init__(self, dataset: Dataset, workers: int) -> None:
        super().__init__()
        if workers < 0:
            raise ConfigError(f"workers={workers} must be at least 0: 0 reads in the training process")
        self.dataset, self.workers = dataset, workers
        self.share = Share()

    def samples(self, name: str) -> SplitSamples:
        """The samples of the split `name`."""
        raise NotImplementedError

    def plan(self, samples: Any) -> Plan:
        """The order in which training reads the samples."""
        raise NotImplementedError

    def plan_evaluation(self, samples: Any) -> Plan:
        """The order in which an evaluation reads them, each exactly once."""
        raise NotImplementedError

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's part of a global batch."""
        raise NotImplementedError

    def split(self, name: str) -> Any:
        """The split `name` of the dataset.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.dataset.splits:
            raise ConfigError(
                f"dataset {self.dataset.path} has no split {name!r}: prepare it with --{name} or --{name}-share"
            )
        return self.dataset.splits[name]

    def batch(self, name: str, ids: Ids) -> Any:
        """These samples of the split `name`, outside any plan."""
        samples = self.samples(name)
        return samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 0, 0))

    @property
    def facts(self) -> DataFacts:
        """What the data decides about a model."""
        return self.dataset.facts

    def illustrate(self, source: tuple[torch.Tensor, ...]) -> list[dict[str, Any]]:
        """What is logged of each row of a batch's `source` beside its name: a sound, for example."""
        return [{} for _ in source[0]]

    @cached_property
    def tokenizer(self) -> Any:
        """Of the targets."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.dataset.target.file))

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of a training epoch."""
        return len(self.plan(self.samples("train")))

    def setup(self, stage: str) -> None:
        """Divide the global batch among the processes that there are."""
        trainer = self.trainer
        assert trainer is not None
        self.share = self.divide(trainer.world_size, trainer.global_rank)
        trainer.accumulate_grad_batches = self.share.accumulation
        if stage == "fit":
            count_in_steps(trainer, self.steps_per_epoch)
        for name in STAGES[stage]:
            self.samples(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches from where the run stands."""
        assert self.trainer is not None
        samples = self.samples("train")
        plan = self.plan(samples)
        limit = int(self.trainer.limit_train_batches)
        position = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return self._loader(samples, MicroBatches(plan, self.share, samples.predictions, position, limit))

    def val_dataloader(self) -> DataLoader[Any]:
        """Everything of the validation split exactly once."""
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Everything of the test split exactly once."""
        return self._evaluation("test")

    def _evaluation(self, name: str) -> DataLoader[Any]:
        samples = self.samples(name)
        return self._loader(samples, MicroBatches(self.plan_evaluation(samples), self.share, samples.predictions))

    def _loader(self, samples: Any, sampler: MicroBatches) -> DataLoader[Any]:
        collate: Callable[[Any], Any] = _as_it_is
        end_workers_at_exit()
        return Loader(
            samples,
            batch_sampler=sampler,  # type: ignore[arg-type]  # slices, not lists of ids
            collate_fn=collate,
            num_workers=self.workers,
            worker_init_fn=ignore_signals,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),  # its own: the global generator stays where it is
        )


class Loader(DataLoader[Any]):
    """Counts the seconds in which its reader waits for a batch."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - began
            yield batch


def count_in_steps(trainer: Any, steps: int) -> None:
    """Have epochs end, and validations come, after whole optimizer steps, the same ones on any number of processes.

    `limit_train_batches`, `limit_val_batches` and `val_check_interval` are given in global batches, or as shares;
    Lightning counts micro-batches.

    Args:
        trainer: changed in place, before its loops begin.
        steps: of a whole epoch.

    Raises:
        ConfigError: validation by the clock, which comes at another step each time and for each process; or after more
            steps than an epoch has, where it is counted anew in each.
    """
    limit, interval, slots = trainer.limit_train_batches, trainer.val_check_interval, trainer.accumulate_grad_batches
    if validates_by_the_clock(trainer):
        raise ConfigError("trainer.val_check_interval: give a number of steps, or a share of an epoch, not a time")
    limit = int(limit * steps) if isinstance(limit, float) else min(limit, steps)
    every = max(1, int(interval * limit)) if isinstance(interval, float) else interval
    if every > limit and trainer.check_val_every_n_epoch is not None:
        raise ConfigError(
            f"trainer.val_check_interval={every} is more than the {limit} steps of an epoch: give a smaller one, or "
            "trainer.check_val_every_n_epoch=null, which counts on from one epoch to the next"
        )
    trainer.limit_train_batches, trainer.val_check_interval = limit * slots, every * slots
    if isinstance(trainer.limit_val_batches, int):
        trainer.limit_val_batches *= slots


def _as_it_is(batch: Any) -> Any:
    return batch
