"""Lightning's limits are given in steps, and mean the same on any number of processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import current_process, resource_sharer
from pathlib import Path
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.data.module import Loader, count_in_steps
from pipeline.errors import ConfigError, LostPeerError
from tests.timeouts import scaled


def trainer(**settings: object) -> Mock:
    """Return a trainer with two micro-batches per step, before its loops begin."""
    usual = {
        "limit_train_batches": 1.0,
        "limit_val_batches": 3,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
    }
    settings = {**usual, **settings, "accumulate_grad_batches": 2, "_val_check_time_interval": None}
    return Mock(spec=pl.Trainer, **settings)


def test_a_loader_counts_the_seconds_in_which_its_consumer_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    class Slow:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            clock[0] += 0.25  # time to read
            return index

    loader, seen = Loader(Slow(), batch_size=None), []
    for batch in loader:
        clock[0] += 10.0  # time to train
        seen.append(batch)
    assert seen == [0, 1, 2]
    assert loader.waited == 0.75


def test_steps_and_fractions_of_an_epoch_become_micro_batches() -> None:
    one = trainer(val_check_interval=0.5)
    count_in_steps(one, 10)
    assert (one.limit_train_batches, one.val_check_interval, one.limit_val_batches) == (20, 10, 6)


def test_a_validation_interval_longer_than_an_epoch_counts_across_epochs_or_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"val_check_interval=11 is more than the 10 steps of an epoch: .*=null"):
        count_in_steps(trainer(val_check_interval=11), 10)
    over = trainer(val_check_interval=11, check_val_every_n_epoch=None)
    count_in_steps(over, 10)
    assert over.val_check_interval == 22


FAILING = """
from pipeline.data.text import TextDataModule

data = TextDataModule({dataset!r}, order="shuffled", context=8, global_batch_size=4, workers=1)
data.share = data.divide(1, 0)
batches = iter(data.val_dataloader())
next(batches)
raise SystemExit(3)
"""


def test_a_failing_process_exits_in_spite_of_an_open_loader(tiny_text_dataset: Path) -> None:
    script = FAILING.format(dataset=str(tiny_text_dataset))
    assert subprocess.run([sys.executable, "-c", script], timeout=scaled(150)).returncode == 3


def test_reading_ahead_of_the_workers_leaves_the_position_of_the_sampler() -> None:
    class Rows:
        def __len__(self) -> int:
            return 5

        def predictions(self, ids: object) -> int:
            return 0

        def __getitems__(self, keys: list[int]) -> list[int]:
            return keys

    class Position:
        start = 3

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[list[int]]:
            start, self.start = self.start, 0
            yield from ([row] for row in range(start, 5))

    settings = {"batch_sampler": Position(), "collate_fn": list, "generator": torch.Generator()}
    loader = Loader(Rows(), num_workers=1, **settings)
    assert [list(loader), list(loader)] == [[[3], [4]], [[0], [1], [2], [3], [4]]]


class Refusing:
    """A loader's iterator whose worker dies while it passes a batch."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __next__(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "no socket")])
def test_a_worker_that_is_killed_while_it_passes_a_batch_is_a_lost_process(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "prepared", True)
    monkeypatch.setattr(DataLoader, "__iter__", lambda _: Refusing(error))
    with pytest.raises(LostPeerError, match=f"while it passed a batch: {type(error).__name__}"):
        next(iter(Loader(range(3), num_workers=1)))
    with pytest.raises(type(error)):
        next(iter(Loader(range(3), num_workers=0)))
    of_the_dataset = type(error)("Caught FileNotFoundError in DataLoader worker process 0.")
    monkeypatch.setattr(DataLoader, "__iter__", lambda _: Refusing(of_the_dataset))
    with pytest.raises(type(error), match="Caught"):
        next(iter(Loader(range(3), num_workers=1)))


def test_workers_pass_tensors_without_a_digest_whose_lock_another_thread_may_hold_during_the_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("OpenSSL in a loader worker")

    class Rows:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, key: int) -> torch.Tensor:
            return torch.full((4,), key)

    for name in ("deliver_challenge", "answer_challenge"):
        monkeypatch.setattr(f"multiprocessing.connection.{name}", forbidden)
    monkeypatch.setattr(Loader, "prepared", True)
    monkeypatch.setattr(resource_sharer, "process", resource_sharer.process)
    loader = Loader(Rows(), num_workers=1, batch_size=None)
    assert [batch.tolist() for batch in loader] == [[key] * 4 for key in range(3)]
    assert current_process().authkey  # for processes and managers of the user


IMPORTS = """
import sys, threading, time
import torch
from pipeline.data.module import Loader

class Importing:  # as pyarrow imports pandas when it converts
    def __len__(self):
        return 1
    def predictions(self, ids):
        return 0
    def __getitems__(self, keys):
        import slow_to_import
        return slow_to_import.VALUE

thread = threading.Thread(target=__import__, args=("slow_to_import",), daemon=True)
thread.start()
while "slow_to_import" not in sys.modules:
    time.sleep(0.01)
torch.manual_seed(1)
state = torch.get_rng_state()
loader = Loader(Importing(), batch_sampler=[[0]], collate_fn=lambda batch: batch, num_workers=1)
loader.generator = torch.Generator()
print(*loader, *loader, torch.equal(state, torch.get_rng_state()))
"""


def test_a_worker_does_not_wait_for_a_module_that_another_thread_imports_during_the_fork(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(1); VALUE = 7")
    paths = os.pathsep.join([str(tmp_path), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", IMPORTS]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=scaled(60))
    assert ran.stdout.split() == ["7", "7", "True"], ran.stderr
