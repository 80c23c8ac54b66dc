"""The base DataModule: it opens a dataset and gives each process its part of the global batches of a plan."""

import copy
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import lightning
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from pipeline.data.batch import Batch
from pipeline.data.batch_plan import Ids, MicroBatches, Plan, Share, Slice
from pipeline.data.batch_warmup import Growth
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.unit import Unit
from pipeline.distributed.lightning_internals import validates_by_the_clock
from pipeline.distributed.signals import end_workers_at_exit, ignore_signals, trust_workers
from pipeline.errors import ConfigError, lost_worker
from pipeline.evaluation.plots.spectrogram import Shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STAGES = {"fit": ("train", "validation"), "validate": ("validation",)}  # the splits of each, a test's aside


@runtime_checkable
class SplitSamples(Protocol):
    """The samples of one split, read by slices of a global batch."""

    def __len__(self) -> int: ...

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets in these samples; 0 in a row that only fills the batch."""

    def __getitems__(self, part: Slice) -> Batch:
        """Return the batch of a slice."""


class PlannedDataModule(lightning.LightningDataModule):
    """Batches of a prepared dataset in the order of a plan.

    Args:
        dataset: the dataset.
        workers: loader processes; 0 reads in the training process.
    """

    shown: str | None = None  # column of a split that identifies the source of a row to users
    test_split = "test"  # split that a test evaluates on

    def __init__(self, dataset: Dataset, workers: int) -> None:
        super().__init__()
        if workers < 0:
            raise ConfigError(f"workers={workers} must be at least 0: 0 reads in the training process")
        self.dataset, self.workers = dataset, workers
        self.share = Share()
        self.growth = Growth()  # of the global batch in the first steps of a run

    def samples(self, name: str) -> SplitSamples:
        """Return the samples of the split `name`."""
        raise NotImplementedError

    def plan(self, samples: Any) -> Plan:
        """Return the order in which training reads the samples."""
        raise NotImplementedError

    def plan_evaluation(self, samples: Any) -> Plan:
        """Return the order in which an evaluation reads each sample exactly once."""
        raise NotImplementedError

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        raise NotImplementedError

    def split(self, name: str) -> Any:
        """Return the split `name` of the dataset.

        Raises:
            ConfigError: the dataset does not have this split.
        """
        if name not in self.dataset.splits:
            raise ConfigError(
                f"dataset {self.dataset.path} has no split {name!r}: prepare it with --{name} or --{name}-share"
            )
        return self.dataset.splits[name]

    def batch(self, name: str, ids: Ids) -> Any:
        """Return these samples of the split `name` as a batch, outside any plan."""
        samples = self.samples(name)
        return samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 0, 0))

    @property
    def facts(self) -> DataFacts:
        """Properties of the data that determine arguments of the model."""
        return self.dataset.facts

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit()

    def illustrate(self, source: tuple[torch.Tensor, ...]) -> list[dict[str, Shown]]:
        """Return what is logged for each row of a batch's `source` beside its name, for example a sound."""
        return [{} for _ in source[0]]

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the targets."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.dataset.target.file))

    def test_splits(self, name: str | None = None) -> list[str]:
        """Return the test splits with this name, or all of them: `test`, or the named ones `test-NAME`.

        Raises:
            ConfigError: the dataset does not have this split, or no test split.
        """
        known = [each for each in self.dataset.splits if each == "test" or each.startswith("test-")]
        if name is None:
            return known or [self.test_split]  # which `setup` reports as missing
        if name in self.dataset.splits:
            return [name]
        if f"test-{name}" not in known:
            raise ConfigError(f"--split={name}: expected one of {', '.join(self.dataset.splits)}. Choose one")
        return [f"test-{name}"]

    @property
    def steps_per_epoch(self) -> int:
        """Number of global batches per training epoch."""
        return len(self.plan(self.samples("train")))

    def setup(self, stage: str) -> None:
        """Partition the global batch among the processes."""
        trainer = self.trainer
        assert trainer is not None
        self.share = self.divide(trainer.world_size, trainer.global_rank)
        trainer.accumulate_grad_batches = self.share.accumulation
        if stage == "fit":
            count_in_steps(trainer, self.steps_per_epoch)
        for name in STAGES.get(stage, (self.test_split,)):
            self.samples(name)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return a batch of the loader, which is on the CPU, on the device."""
        if device.type == "cpu":
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return training batches from the current position of the run."""
        assert self.trainer is not None
        samples = self.samples("train")
        plan = self.plan(samples)
        limit = int(self.trainer.limit_train_batches)
        position = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return self._loader(samples, MicroBatches(plan, self.share, samples.predictions, position, limit, self.growth))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation split, each sample exactly once."""
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the split `test_split`, each sample exactly once."""
        return self._evaluation(self.test_split)

    def _evaluation(self, name: str) -> DataLoader[Batch]:
        samples = self.samples(name)
        return self._loader(samples, MicroBatches(self.plan_evaluation(samples), self.share, samples.predictions))

    def _loader(self, samples: Any, sampler: MicroBatches) -> DataLoader[Batch]:
        end_workers_at_exit()
        return Loader(
            samples,
            batch_sampler=sampler,  # type: ignore[arg-type]  # slices, not lists of ids
            collate_fn=_identity,
            num_workers=self.workers,
            worker_init_fn=ignore_signals,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),  # so that the global generator is not advanced
        )


class Loader(DataLoader[Batch]):
    """A DataLoader that counts the seconds in which its consumer waits for a batch.

    Attributes:
        on_wait: called when the consumer begins to wait.
    """

    waited = 0.0
    on_wait: Callable[[], None] = staticmethod(lambda: None)
    prepared = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.num_workers:
            trust_workers()
        if self.num_workers and not self.prepared:
            self._read_first()
        batches = super().__iter__()
        while True:
            self.on_wait()
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (OSError, EOFError, UnpicklingError) as error:
                if not self.num_workers or "DataLoader worker process" in str(error):  # raised by the dataset
                    raise
                raise lost_worker(f"while it passed a batch: {error!r}") from error
            finally:
                self.waited += time.perf_counter() - began
            yield batch

    def _read_first(self) -> None:
        """Read the first batch in this process, which imports what the workers need before they are forked.

        A worker would wait forever for a module that another thread (of W&B) was importing during the fork.
        """
        samples = self.dataset
        assert isinstance(samples, SplitSamples)
        sampler = copy.copy(self.batch_sampler or ())  # an iteration moves the position of the sampler itself
        with torch.random.fork_rng(devices=[]):
            for keys in islice(sampler, 1):
                samples.__getitems__(cast(Slice, keys))
        self.prepared = True


def count_in_steps(trainer: Trainer, steps: int) -> None:
    """Convert the trainer's limits from optimizer steps to micro-batches, for any number of processes.

    `limit_train_batches`, `limit_val_batches` and `val_check_interval` are given in global batches or as fractions,
    but Lightning counts micro-batches.

    Args:
        trainer: the trainer, changed in place before its loops begin.
        steps: optimizer steps per full epoch.

    Raises:
        ConfigError: validation is scheduled by time, which differs between processes; or after more steps than an
            epoch has, although the count restarts in each epoch.
    """
    if validates_by_the_clock(trainer):
        raise ConfigError(
            "trainer.val_check_interval: expected a number of steps or a fraction of an epoch, got a time"
        )
    limit, interval, slots = trainer.limit_train_batches, trainer.val_check_interval, trainer.accumulate_grad_batches
    limit = int(limit * steps) if isinstance(limit, float) else min(limit, steps)
    every = max(1, int(interval * limit)) if isinstance(interval, float) else interval
    if every > limit and trainer.check_val_every_n_epoch is not None:
        raise ConfigError(
            f"trainer.val_check_interval={every} is more than the {limit} steps of an epoch: decrease it, or set "
            "trainer.check_val_every_n_epoch=null to count across epochs"
        )
    trainer.limit_train_batches, trainer.val_check_interval = limit * slots, every * slots
    if isinstance(trainer.limit_val_batches, int):
        trainer.limit_val_batches *= slots


def _identity(batch: object) -> object:
    return batch
