"""`unroll plan` prints processes, tokens, memory by strategy and hours."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.commands.plan import command as plan
from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs.journal import JournalWriter
from pipeline.runs.resume import kept_config
from pipeline.runs.run import Run
from pipeline.training.config import parse_config

CONFIGS = Path(__file__).parents[4] / "configs"
Planned = Callable[..., tuple[int, dict[str, str]]]
SHORT = ("--data.init_args.context=8",)  # an LSTM is planned position by position


@pytest.fixture
def planned(
    tiny_text_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Planned:
    """`planned(OPTION..., keys=[KEY=VALUE...])`: return the exit code and the lines of a plan by first word."""
    monkeypatch.chdir(tmp_path)

    def planned(*options: str, keys: tuple[str, ...] = ()) -> tuple[int, dict[str, str]]:
        given = [f"--data.init_args.dataset={tiny_text_dataset}", "--data.init_args.global_batch_size=16", *keys]
        code = plan.main([str(CONFIGS / "text" / "lstm.yaml"), *options, "--", *given])
        lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
        return code, {line[0]: line[-1] for line in lines}

    return planned


def test_a_plan_names_tokens_micro_batches_hours_and_what_fits(planned: Planned) -> None:
    code, lines = planned(
        *("--nodes", "2", "--gpus-per-node", "4", "--rate", "1000"),
        keys=("--data.init_args.per_device_batch_size=1", "--trainer.max_steps=7200", "--trainer.max_epochs=-1"),
    )
    assert code == 0
    assert lines["run"] == "text-lstm: LSTMLanguageModel, 1,118,721 parameters"
    assert lines["step"].startswith("1,024 tokens on 8 processes, 2 micro-batches of 1 samples")
    assert lines["training"] == "7,200 steps, 7.4 million tokens"
    assert lines["memory"] == "ddp (strategy of the config) fits in 80 GB (assumed; set --memory), less 10%"
    assert lines["time"] == "2:02:53 at 1,000 tokens/s (given)"
    assert float(lines["device-hours"]) == 16.4


def test_frozen_parameters_have_weights_but_no_gradients(planned: Planned) -> None:
    _, lines = planned(keys=SHORT)
    whole = [float(size) for size in lines["ddp"].split()]
    _, lines = planned("--freeze", "embedding.*", "--freeze", "*.0.*", keys=SHORT)
    assert lines["frozen"] == "592,128 of 1,118,721 parameters"
    frozen = [float(size) for size in lines["ddp"].split()]
    assert frozen[0] == whole[0]
    assert frozen[1] < 0.7 * whole[1]
    assert frozen[2] < 0.7 * whole[2]


def test_a_plan_names_the_strategies_that_fit(planned: Planned) -> None:
    code, lines = planned("--tasks-per-node", "16", "--memory", "0.014")
    assert code == 5
    assert "ddp (strategy of the config) does NOT fit in 0.014 GB, less 10%" in lines["memory"]
    assert "configs/run/fsdp.yaml" in lines["memory"]
    assert "deepspeed_zero1" not in lines["memory"]
    code, lines = planned("--memory", "0.001")
    assert code == 5
    assert "no other strategy fits; try a smaller per_device_batch_size" in lines["memory"]


def test_the_rate_of_a_run_is_scaled_to_the_processes(planned: Planned) -> None:
    _, lines = planned("--device", "A100", "--mfu", "0.4", "--gpus-per-node", "2", keys=SHORT)
    assert "40% of the peak of 2 x A100, 19.5 TFLOP/s, data sheet" in lines["time"]
    rate, flops = (float(lines["time"].split(word)[0].split()[-1].replace(",", "")) for word in (" tokens/s", " FLOPs"))
    assert rate == pytest.approx(0.4 * 2 * 19.5e12 / flops, rel=0.01)
    _, lines = planned(keys=SHORT)
    assert "30% of the peak of 1 x this machine's CPU" in lines["time"]
    run = Run(Path("runs/probe"))
    run.create()
    run.begin_attempt(2, 0)
    with pytest.raises(CheckpointError, match="--measured=probe: the run has not logged its rate"):
        planned("--measured", "probe", keys=SHORT)
    journal = JournalWriter(run.path)
    for step, rate in ((10, 100.0), (20, 500.0), (30, 520.0)):
        journal.metrics(1, step, 0, float(step), {"train/tokens_per_second": rate})
    journal.close()
    _, lines = planned("--tasks-per-node", "4", "--measured", "probe", keys=SHORT)
    assert "at 1,000 tokens/s (measured by run probe on 2 processes, scaled by 2)" in lines["time"]


def test_a_run_of_the_same_model_and_batches_gives_the_rate(planned: Planned, tiny_text_dataset: Path) -> None:
    keys = [f"--data.init_args.dataset={tiny_text_dataset}", "--data.init_args.global_batch_size=16"]
    for name, more in (("alike", []), ("wider", ["--model.init_args.width=8"])):
        cli = parse_config([f"--config={CONFIGS / 'text' / 'lstm.yaml'}", *keys, *more])
        run = Run(Path("runs") / name)
        run.create()
        (run.path / "config.yaml").write_text(yaml.safe_dump(dict(kept_config(cli))))
        run.begin_attempt(1, 0)
        journal = JournalWriter(run.path)
        journal.metrics(1, 10, 0, 10.0, {"train/tokens_per_second": 700.0})
        journal.close()
    options = "--trainer.max_steps=100", "--model.init_args.optimizer.init_args.lr=0.1"
    _, lines = planned(keys=options)
    assert "at 700 tokens/s (measured by run alike on 1 processes)" in lines["time"]


def test_a_few_steps_give_the_rate(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))
    keys = "--model.init_args.width=8", "--data.init_args.context=8", "--trainer.accelerator=cpu"
    _, lines = planned("--tasks-per-node", "2", "--measure", "4", keys=keys)
    assert "measured by 4 steps on this machine" in lines["time"]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "name", ["ddp", "fsdp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "zero3_offload"]
)
def test_the_strategy_of_an_overlay_is_found_in_the_config(name: str, tiny_text_dataset: Path) -> None:
    files = [CONFIGS / "text" / "lstm.yaml", CONFIGS / "run" / f"{name}.yaml"]
    config = parse_config([f"--config={file}" for file in files]).config
    assert plan.own_strategy(config.trainer.strategy) == name


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--mfu", "2", "--mfu=2: expected a share from 0 to 1, got 2. Change it"),
        ("--device", "X1", "--device=X1: expected one of B200, "),
        ("--measure", "1", "--measure=1: expected at least 2 steps, got 1. Increase it"),
    ],
)
def test_an_invalid_option_of_the_rate_is_refused(option: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan.main([option, value])


def test_an_invalid_layout_is_refused(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="cannot be divided among 3 processes"):
        planned("--nodes", "3")
