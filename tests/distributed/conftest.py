"""Fixtures that train runs on a tiny corpus, each in a forked process that a test can kill at a step."""

import gc
import importlib.util
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.distributed import exit_code
from tests.distributed.fixture_types import Fit, Rows, State

LSTM = "pipeline.models.lstm.LSTMLanguageModel"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a dataset of forty short documents with a character tokenizer."""
    import data_prep.text.command

    folder = tmp_path_factory.mktemp("corpus")
    lines = [f"{i} bottles of milk on wall {i % 7}, take {i % 3} down and pass them round" for i in range(60)]
    for name, part in (("train", lines[:48]), ("validation", lines[48:])):
        (folder / f"{name}.txt").write_text("\n".join(part))
    arguments = ["--train", str(folder / "train.txt"), "--validation", str(folder / "validation.txt")]
    options = ["--documents", "line", "--tokenizer", "character", "--workers", "1"]
    assert data_prep.text.command.main([*arguments, "--output", str(folder / "data"), *options]) == 0
    return folder / "data"


@pytest.fixture(scope="session", autouse=True)
def _imported_before_the_first_fork(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import the modules of every run and parse a config once; both take longer than a run."""
    import lightning.pytorch.cli  # noqa: F401

    import pipeline
    from pipeline.callbacks.previews.forecasts import Forecasts
    from pipeline.callbacks.previews.music import Rolls
    from pipeline.callbacks.previews.samples import Samples
    from pipeline.evaluation import peak

    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if module.name != "pipeline.__main__":
            importlib.import_module(module.name)
    if importlib.util.find_spec("deepspeed"):
        os.environ["DS_ACCELERATOR"] = "cpu"
        for name in ("engine", "zero.muon.muon_optimizer"):  # the second imports torch's compiler
            importlib.import_module(f"deepspeed.runtime.{name}")
    from pipeline.training.config import parse_config

    config = tmp_path_factory.mktemp("parsed") / "config.yaml"
    config.write_text(CONFIG.format(model=LSTM, dataset="none"))
    parse_config(["--config", str(config)])
    # Generation at each validation would be most of the computation of a short run.
    Samples.__init__.__defaults__ = (1, 8)  # type: ignore[attr-defined]
    Rolls.__init__.__defaults__ = (1, 4, 8)  # type: ignore[attr-defined]
    Forecasts.__init__.__defaults__ = (1,)  # type: ignore[attr-defined]
    peak.SECONDS = 0.0  # one matrix product


def start_in_a_fork(work: Callable[[], int]) -> int:
    """Start `work` in a forked process and return its number."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        gc.freeze()  # a collection would visit all objects of the tests, a quarter of the time of a short run
        os.setsid()
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return child


def in_a_fork(work: Callable[[], int]) -> int:
    """Run `work` in a forked process and return its exit code."""
    return end_of_fork(start_in_a_fork(work))


def end_of_fork(child: int) -> int:
    """Wait for a forked process and return its exit code, 128 + n if signal n killed it."""
    return exit_code.as_shell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.fixture(scope="session")
def apart() -> Callable[[Callable[[], int]], int]:
    """`apart(WORK)` runs it in a forked process, which may change limits and mounts, and returns its exit code."""
    return in_a_fork


@pytest.fixture(scope="session")
def fit_in(corpus: Path) -> Callable[[Path], Fit]:
    """`fit_in(HOME)` returns the function `fit` below for runs in HOME/runs."""

    def fit_in(home: Path) -> Fit:
        def fit(name: str, *overrides: object, die: tuple[int, int] | None = None, model: str = LSTM) -> int:
            settings = {
                "trainer.accelerator": "cpu",
                "trainer.devices": 1,
                "trainer.max_steps": 14,
                "trainer.log_every_n_steps": 2,
                "trainer.val_check_interval": 5,
                "trainer.check_val_every_n_epoch": "null",
                "checkpoints.every_steps": 2,
            }
            given = dict(zip(overrides[::2], overrides[1::2], strict=True))
            keys = [f"--{key}" if value is ... else f"--{key}={value}" for key, value in (settings | given).items()]
            config = home / f"{model.rsplit('.', 1)[1]}.yaml"
            if not config.exists():
                config.write_text(CONFIG.format(model=model, dataset=corpus))
            return in_a_fork(lambda: _main(home, ["fit", "--config", str(config), "--run", name, *keys], die))

        return fit

    return fit_in


@pytest.fixture
def fit(fit_in: Callable[[Path], Fit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """`fit(NAME, KEY, VALUE, ..., die=(signal, step))` trains run NAME and returns the exit code.

    It trains 14 steps by default. The VALUE `...` makes KEY an option without a value.
    """
    monkeypatch.chdir(tmp_path)
    return fit_in(tmp_path)


CONFIG = """
model:
  class_path: {model}
  init_args: {{width: 16, dropout: 0.2, optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.text.TextDataModule
  init_args: {{dataset: {dataset}, order: contiguous, context: 16, global_batch_size: 16}}
"""


def _main(home: Path, arguments: list[str], die: tuple[int, int] | None) -> int:
    import torch

    os.chdir(home)
    os.environ |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}

    from pipeline.callbacks.per_step_seed import Randomness
    from pipeline.cli import main
    from pipeline.distributed import signals

    torch.set_num_threads(1)
    start = Randomness.on_train_batch_start

    def dying(self: Any, trainer: Any, *rest: object) -> None:
        if die is not None and trainer.global_step == die[1] and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), die[0])
        start(self, trainer, *rest)

    Randomness.on_train_batch_start = dying  # type: ignore[method-assign]
    signals.forget()
    return main(arguments)


def start_fork(arguments: list[str], log: Path) -> int:
    """Run a command in a fork, which is ten times as fast as a new process."""
    return end_of_fork(begin_fork(arguments, log))


def begin_fork(arguments: list[str], log: Path) -> int:
    """Start a command in a fork and return the number of the process."""

    def work() -> int:
        sys.stdout = sys.stderr = file = log.open("a", buffering=1)
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        return _main(Path.cwd(), arguments, None)

    return start_in_a_fork(work)


@pytest.fixture(scope="session")
def fork() -> Callable[[list[str], Path], int]:
    """`fork(ARGUMENTS, FILE)` starts an attempt."""
    return start_fork


@pytest.fixture(scope="session")
def try_out(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`try_out(LENGTHS, KEY, VALUE, ..., processes=1, model=LSTM)` is a cached trial with its uninterrupted run."""
    from pipeline.commands.verify_resume.interruption_points import Lengths
    from pipeline.commands.verify_resume.trial import Trial

    made: dict[str, Trial] = {}

    def try_out(lengths: Lengths, *overrides: object, processes: int = 1, slots: int = 1, model: str = LSTM) -> Trial:
        settings = {"trainer.accelerator": "cpu", "trainer.devices": processes}
        settings["data.init_args.per_device_batch_size"] = 16 // (processes * slots)
        given = settings | dict(zip(overrides[::2], overrides[1::2], strict=True))
        keys = [*lengths.keys(), *(f"--{key}={value}" for key, value in given.items())]
        if (name := f"{model} {keys}") not in made:
            home = tmp_path_factory.mktemp("trial")
            config = home / "config.yaml"
            config.write_text(CONFIG.format(model=model, dataset=corpus))
            made[name] = Trial(home, [f"--config={config}", *keys], start_fork)
            made[name].straight()
        return made[name]

    return try_out


def state_of(run: Path) -> dict[str, Any]:
    """Read the newest checkpoint of a run."""
    from pipeline.distributed.checkpoint.directory import newest_first, read_state

    return read_state(newest_first(run / "checkpoints")[0])


@pytest.fixture
def state(tmp_path: Path) -> State:
    """`state(NAME)` reads the newest checkpoint of run NAME."""
    return lambda name: state_of(tmp_path / "runs" / name)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """`rows(NAME)` returns the rows of the journal of run NAME."""
    from pipeline.runs import journal

    return lambda name: journal.read_journal(tmp_path / "runs" / name).rows


KILL, TERM = signal.SIGKILL, signal.SIGTERM
