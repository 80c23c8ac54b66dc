"""A run that starts from the weights of another, under every strategy."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from pipeline.cli import main
from tests.distributed.fixture_types import Fit, State
from tests.distributed.test_strategies import TRANSFORMER, WHOLE, Apart, assert_close, assert_equal, on
from tests.sweep import also

AVERAGE = json.dumps([{"class_path": "pipeline.callbacks.averaging.ExponentialAverage", "init_args": {"decay": 0.5}}])
SHORT = ["trainer.max_steps", 2]
FREEZE = '["embedding.*", "*.0.*"]'


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a dataset whose tokenizer has some characters of `corpus`, in other rows, and new ones."""
    import data_prep.text.command

    folder = tmp_path_factory.mktemp("other")
    (folder / "text.txt").write_text("\n".join(f"{i} ÄBC zebras quickly jump {i % 5} boxes" for i in range(60)))
    options = ["--documents", "line", "--tokenizer", "character", "--workers", "1", "--output", str(folder / "data")]
    assert data_prep.text.command.main([str(folder / "text.txt"), *options]) == 0
    return folder / "data"


def tokens_of(data: Path) -> dict[str, int]:
    found: dict[str, int] = Tokenizer.from_file(str(data / "tokenizer.json")).get_vocab()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero3", *also("ddp", "zero1", "zero2")])
def test_every_strategy_starts_from_the_same_weights_and_resumes_without_their_source(
    fit: Fit, state: State, corpus: Path, other_corpus: Path, tmp_path: Path, strategy: str
) -> None:
    """The first layer and the embedding, whose rows are matched by token, are frozen; layers are recomputed."""
    keys = [*WHOLE, "data.init_args.order", "shuffled", "trainer.max_steps", 4, "checkpoints.every_steps", 99]
    assert fit("base", *keys, model=TRANSFORMER) == 0
    base = state("base")["state_dict"]
    keys += ["from", "base", "freeze", FREEZE, "data.init_args.dataset", other_corpus]
    keys += ["execution.activation_checkpointing", "true"]
    assert fit("one", *keys, model=TRANSFORMER) == 0
    assert fit("straight", *keys, *on(strategy), model=TRANSFORMER) == 0
    assert_close(state("one"), state("straight"))
    assert fit("killed", *keys, *on(strategy), model=TRANSFORMER, die=(signal.SIGKILL, 1)) == 128 + signal.SIGKILL
    assert [path.name for path in (tmp_path / "runs/killed/checkpoints").glob("step*")] == ["step-00000000"]
    shutil.rmtree(tmp_path / "runs" / "base")
    assert fit("killed", *keys, *on(strategy), model=TRANSFORMER) == 0
    assert_equal(state("straight"), state("killed"))
    found, frozen = state("killed"), [name for name in base if ".0." in name]
    assert len(frozen) > 5
    for name in frozen:
        assert torch.equal(found["state_dict"][name], base[name])
    before, after = tokens_of(corpus), tokens_of(other_corpus)
    common = before.keys() & after.keys()
    assert 10 < len(common) < len(after)
    for name in ("embedding.weight", "output.weight"):  # tied
        for token in common:
            assert torch.equal(found["state_dict"][name][after[token]], base[name][before[token]])
    trained = sum(len(group["params"]) for group in found["optimizer_states"][0]["param_groups"])
    assert trained == len(base) - len(frozen) - 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_every_strategy_draws_the_same_weights(fit: Fit, state: State, strategy: str) -> None:
    """With a learning rate of zero they are those of the first checkpoint."""
    drawn = (
        '[{"distribution": "uniform", "scale": 0.1}, {"distribution": "normal", "scale": 1, "parameters": ["*.0.*"]}]'
    )
    keys = [*WHOLE, "model.init_args.optimizer.init_args.lr", 0.0, "initialization", drawn, "trainer.max_steps", 1]
    assert fit("one", *keys) == 0
    assert fit("two", *keys, *on(strategy)) == 0
    one, two = state("one")["state_dict"], state("two")["state_dict"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
        assert (value.abs().max() <= 0.1) == (".0." not in name), name


def ancestry(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path("runs") / run / "run.json").read_text())["from"]
    return found


def test_a_run_its_export_and_its_checkpoint_in_a_file_are_the_same_weights(
    fit: Fit, state: State, apart: Apart, tmp_path: Path
) -> None:
    """The run has averaged weights, which all of them use; the embedding is tied."""
    assert fit("base", *SHORT, "trainer.callbacks", AVERAGE) == 0
    assert apart(lambda: main(["checkpoint", "export", "base", "--output", "exported"])) == 0
    assert apart(lambda: main(["checkpoint", "convert", "base", "--output", "base.ckpt"])) == 0
    sources = ["base", "runs/base/checkpoints/step-00000002", "exported", "base.ckpt"]
    for number, source in enumerate(sources):
        assert fit(f"fine{number}", *SHORT, "from", source, "trainer.callbacks", AVERAGE, "freeze", "output.*") == 0
    found = [ancestry(f"fine{number}") for number in range(4)]
    assert len({each["sha256"] for each in found}) == 1
    assert [(each["run"], each["step"]) for each in found] == [("base", 2)] * 3 + [(None, 2)]
    average = state("base")["averaged"]
    for number in range(4):
        assert_equal(state("fine0"), state(f"fine{number}"))
        frozen = state(f"fine{number}")
        for kept in (frozen["state_dict"], frozen["averaged"]):
            assert torch.equal(kept["embedding.weight"], average["embedding.weight"])
            assert not torch.equal(
                kept["network.layers.0.kernel.bias_ih_l0"], average["network.layers.0.kernel.bias_ih_l0"]
            )


def test_a_run_starts_from_its_source_once(
    fit: Fit, fork: Callable[[list[str], Path], int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first start has no config of its own and uses that of the source."""
    assert fit("base", *SHORT) == 0
    assert fork(["fit", "--from", "base", "--run", "fine", "--freeze", "*.0.*"], tmp_path / "log") == 0
    before = ancestry("fine")
    assert fit("base", "trainer.max_steps", 3) == 0
    capfd.readouterr()
    assert fit("fine", "trainer.max_steps", 3, "from", "runs/base", "freeze", "*.0.*") == 0
    assert "run fine: --from is not applied again, because the run has checkpoints" in capfd.readouterr().out
    assert ancestry("fine") == before
    shutil.rmtree("runs/fine/checkpoints")
    Path("runs/fine/journal.jsonl").unlink()  # as if the first start had ended before its first checkpoint
    assert fit("fine", "trainer.max_steps", 3, "freeze", "*.0.*") == 0
    assert "weights of run base, step-00000002" in capfd.readouterr().out


def test_a_start_that_is_not_possible_is_one_line(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    assert fit("base", *SHORT) == 0
    refused = {
        "no run 'nothing'": (4, ["from", "nothing"]),
        "--freeze=nothing: expected a pattern of parameter names": (2, ["freeze", "nothing"]),
        "--freeze=*: expected parameters to train, got none": (2, ["freeze", "*"]),
    }
    for message, (code, keys) in refused.items():
        capfd.readouterr()
        assert fit("new", *SHORT, *keys) == code, message
        assert message in (printed := capfd.readouterr().err)
        assert len([line for line in printed.splitlines() if "error" in line]) == 1
        assert "Traceback" not in printed
        assert not Path("runs/new").exists()
    assert fit("base", *SHORT, "from", "base") == 2
    assert "--from=base: run base was started without --from" in capfd.readouterr().err
    assert fit("base", *SHORT, "from", "base", "resume", "never") == 2
    assert "--from=base: expected another run, got run base itself" in capfd.readouterr().err
    assert not Path("runs/base~1").exists()
