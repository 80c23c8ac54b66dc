"""Between two rows of the journal no task reads a value of the device on the host, which would wait for the device.

The tests run on the CPU, where every tensor counts as one on the device except those of the vote that has arrived.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.callbacks.step_vote import Ballot
from pipeline.cli import main
from pipeline.data.module import Loader
from tests.sweep import also
from tests.unit.test_configs import ROOT, dataset, dataset_for

__all__ = ["dataset", "dataset_for"]
WARM, STEPS = 3, 20
READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero"}
METHODS = ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__array__")
METHODS += ("new_tensor",)  # copies numbers to the device, and waits for it
WIDTH = "width=16"
DOCUMENTS = [f"--data.init_args.{each}" for each in ("order=documents", "context=32", "global_batch_size=4")]
TASKS = {
    **{f"text/{name}": [WIDTH] for name in ("bag_of_words", "conv", "gru", "lstm", "ngram", "rnn")},
    "text/transformer": ["width=24"],
    "text/linear_recurrence": [WIDTH],
    "recall/lstm": ["network.init_args.width=16"],
    "pairs/attention": [WIDTH],
    "pairs/transformer": [WIDTH],
    "pairs/conv": ["encoder.init_args.width=16", "decoder.init_args.network.init_args.width=16"],
    "audio/ctc_lstm": [WIDTH],
    "audio/ctc_conformer": [WIDTH],
    "audio/listen_attend_spell": [WIDTH],
    "audio/keywords_lstm": [WIDTH],
    "audio/keywords_conv": [WIDTH],
    "audio/wave_lstm": ["network.init_args.width=16"],
    "demo/captions": [WIDTH],
    "pixels/lstm": ["network.init_args.width=16"],
    "pixels/pixel_cnn": [WIDTH],
    "pixels/row_lstm": [WIDTH],
    "pixels/sequential_lstm": ["encoder.init_args.network.init_args.width=16"],
    "series/lstm": ["network.init_args.width=16"],
    "series/deepar": ["network.init_args.width=16"],
    "series/dlinear": ["kernel=5"],
    "series/quantiles": ["network.init_args.width=16"],
    "series/patch_transformer": [WIDTH, "patch=6", "stride=3"],
    "offline_rl/decision_transformer": ["network.init_args.width=16"],
    "offline_rl/cloning": ["network.init_args.width=16"],
    "music/lstm": ["network.init_args.width=16"],
}


class Enough(BaseException):
    """Ends a training."""


class Reads(TorchDispatchMode):
    """Counts the operations that read a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.paused = 0

    def count(self, name: str) -> None:
        """Count a read, unless it is paused."""
        if not self.paused:
            self.found[name] += 1

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = operation.name().partition(".")[0]
        if name in READS or (name == "aten::index" and any(_is_mask(each) for each in arguments[1])):
            self.count(name)
        return operation(*arguments, **(keywords or {}))


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


class Watch(pl.Callback):
    """Counts from the end of step WARM to the end of STEPS more, then ends the training."""

    reads: Reads

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == WARM:
            self.reads.__enter__()
        elif trainer.global_step == WARM + STEPS:
            self.reads.__exit__(None, None, None)
            raise Enough


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The reads of a training with a `Watch`."""
    found = Watch.reads = Reads()
    on = torch.utils._python_dispatch._get_current_dispatch_mode

    def counted(name: str) -> Callable[..., Any]:
        straight = getattr(Tensor, name)

        def read(tensor: Tensor, *given: Any, **named: Any) -> Any:
            if on() is found:
                found.count(name)
            return straight(tensor, *given, **named)

        return read

    for name in METHODS:
        monkeypatch.setattr(Tensor, name, counted(name))
    monkeypatch.setattr(Ballot, "read", _paused(found, Ballot.read))
    straight = Loader.__iter__

    def batches(loader: Loader) -> Iterator[Any]:
        made = straight(loader)
        while True:
            batch = _paused(found, next)(made, None)
            if batch is None:
                return
            yield batch

    monkeypatch.setattr(Loader, "__iter__", batches)
    return found


def _paused(reads: Reads, work: Callable[..., Any]) -> Callable[..., Any]:
    def paused(*given: Any) -> Any:
        reads.paused += 1
        try:
            return work(*given)
        finally:
            reads.paused -= 1

    return paused


def fit(config: Path, data: Path, home: Path, *keys: str) -> None:
    settings = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "max_steps": 1000, "max_epochs": -1}
    settings |= {"log_every_n_steps": 1000, "val_check_interval": 1000, "check_val_every_n_epoch": "null"}
    given = [f"--trainer.{name}={value}" for name, value in settings.items()]
    watch = f'[{{"class_path": "{__name__}.Watch"}}]'
    given += [f"--data.init_args.dataset={data}", f"--run={home}", f"--trainer.callbacks={watch}", *keys]
    with pytest.raises(Enough):
        main(["fit", f"--config={config}", *given])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, []) for name in TASKS),
        *((f"text/{name}", DOCUMENTS) for name in ("lstm", "conv", "transformer")),
        *also(*((f"text/{name}", DOCUMENTS) for name in ("bag_of_words", "gru", "ngram", "rnn", "linear_recurrence"))),
        ("text/transformer", [*DOCUMENTS, "--model.init_args.window=8"]),
    ],
    ids=lambda each: each if isinstance(each, str) else "documents" * bool(each) + " window" * (len(each) > 3),
)
def test_a_step_reads_nothing_on_the_host(
    name: str,
    more: list[str],
    reads: Reads,
    dataset_for: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    keys = [f"--model.init_args.{each}" for each in TASKS[name]] + more
    if name.startswith("series"):
        keys += ["--data.init_args.context=24", "--data.init_args.horizon=6"]
    fit(ROOT / f"{name}.yaml", dataset_for(f"{name}.yaml"), tmp_path / "run", *keys)
    assert reads.found == {}


@pytest.mark.parametrize(
    "read",
    [
        lambda each: each.sum().item(),
        lambda each: each.tolist(),
        lambda each: float(each.sum()),
        lambda each: int(each.sum()),
        lambda each: bool(each.sum() > 0),
        lambda each: list(range(10))[each.long().sum()],
        lambda each: each.cpu(),
        lambda each: each.numpy(),
        lambda each: each.nonzero(),
        lambda each: each[each > 1],
        lambda each: each.masked_select(each > 1),
        lambda each: torch.equal(each, each),
        lambda each: torch.nn.functional.one_hot(each.long(), 3),
        lambda each: each.new_tensor([1.0]),
    ],
)
def test_every_kind_of_read_is_seen(read: Callable[[Tensor], object], reads: Reads) -> None:
    ones = torch.ones(3)
    with reads:
        ones.add_(1).mul(ones).log_softmax(0)[[0, 1]].argmax()
        assert reads.found == {}
        read(torch.ones(3))
    assert reads.found.total() > 0


def test_a_callback_that_reads_the_loss_is_seen(
    reads: Reads, dataset_for: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    keys = ["--model.init_args.width=16", "--guard.spike=20"]
    fit(ROOT / "text/ngram.yaml", dataset_for("text/ngram.yaml"), tmp_path / "run", *keys)
    assert reads.found == {}  # the host decides, by votes alone
    reads.paused = 0
    monkeypatch.setattr(Watch, "on_before_backward", lambda self, trainer, task, loss: float(loss))
    fit(ROOT / "text/ngram.yaml", dataset_for("text/ngram.yaml"), tmp_path / "reading", *keys)
    assert reads.found["__float__"] == STEPS
