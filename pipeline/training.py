"""The verbs fit, validate and test: parse, check everything that can be checked, then start the processes.

Nothing is built and no file of a run is touched before the config, the dataset and the checkpoint are known
to fit together.
"""

import itertools
import logging
import os
import sys
import warnings
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from pipeline import audience
from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.callbacks.layer_execution import Execution
from pipeline.callbacks.nonfinite_guard import Guard
from pipeline.callbacks.watchdog import Watchdog
from pipeline.complaints import check_class_paths, check_files, own, plainly
from pipeline.data.batch_plan import Share
from pipeline.distributed import launch, rendezvous, signals
from pipeline.errors import TRY_AGAIN, ConfigError, UserError, classify
from pipeline.runs import options
from pipeline.runs.load import build_model, choose_checkpoint, tell
from pipeline.runs.record import CONFIG, is_run, read_config
from pipeline.runs.resume import Start, begin
from pipeline.runs.run import Run, directory_of, find_run
from pipeline.shipped import CONFIGS
from pipeline.tracking import sweep
from pipeline.tracking.redact import describe
from pipeline.tracking.settings import Tracking
from pipeline.tracking.wandb_logger import PatientWandbLogger
from pipeline.trainer import check_precision, make_trainer

LOCK_PATIENCE = 60.0  # seconds that a requeued attempt gives the one before it to leave
# what the data tells the model, where the model asks for it
LINKED = (
    *("vocab_size", "source_vocab_size", "image_size", "covariates", "context", "horizon", "classes", "rate"),
    *("levels", "rows", "columns", "channels", "spaces"),
)


class CommandLine(LightningCLI):
    """Lightning's command line, split into parsing and building."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=False,
            args=arguments,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "default_config_files": [str(CONFIGS / "base.yaml")],
                "prog": "unroll fit",
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The project's own keys, and what the dataset tells the model."""
        parser.add_argument("--run", type=str | None, default=None, help="name or directory of the run")
        parser.add_argument("--resume", type=str, default="auto", help="auto or never")
        parser.add_argument("--sweep", type=str | None, default=None, help="of W&B, that chooses values")
        parser.add_class_arguments(Checkpoints, "checkpoints")
        parser.add_class_arguments(Guard, "guard")
        parser.add_class_arguments(Watchdog, "watchdog")
        parser.add_class_arguments(Execution, "execution")
        parser.add_class_arguments(Tracking, "tracking")
        for name in LINKED:
            told = partial(_linked, name)
            parser.link_arguments("data", f"model.init_args.{name}", compute_fn=told, apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what `main` was given: sys.argv begins with the verb."""
        with options.of_their_class() as dropped:
            try:
                self.config = parser.parse_args(args)
            except UserError:
                raise
            except Exception as error:  # jsonargparse raises its own, argparse's and what a constructor raised
                keys = parser.get_defaults(skip_validation=True).keys()
                raise own(error) or ConfigError(plainly(str(error), keys)) from error
            finally:  # also where --print_config exits
                _print_dropped(tuple(dropped.lines()))

    def _set_seed(self) -> None:
        """Each process seeds itself when it builds."""

    def instantiate_classes(self) -> None:
        """Only `build` builds: in the process that trains."""

    def build(self) -> tuple[Any, LightningDataModule, Any]:
        """The model, the data and the whole instantiated config.

        The model has shapes but no weights yet: `configure_model` makes them, the same ones on every process.

        Raises:
            ConfigError: a class does not take its values; the message is the class's own.
            DataError: the dataset is missing, damaged or of another kind.
        """
        try:
            with torch.device("meta"):
                self.config_init = self.parser.instantiate_classes(self.config)
        except UserError:
            raise
        except Exception as error:  # what a constructor raised, and what jsonargparse makes of it
            raise own(error) or ConfigError(plainly(str(error))) from error
        model, data = self.config_init.model, self.config_init.data
        model.build = partial(self._build_model, data.linked)
        return model, data, self.config_init

    def _build_model(self, linked: dict[str, Any]) -> Any:
        torch.manual_seed(int(self.config.seed_everything))
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))["model"]
        return build_model(tell(config, linked))


def main(argv: list[str]) -> int:
    """Run one of the verbs; `argv` opens with its name. Returns the exit code."""
    verb, arguments = argv[0], argv[1:]
    quieten()
    chosen = sweep.adopt(arguments) if verb == "fit" else arguments
    if chosen is None:
        return 0
    cli = parse(chosen)
    run = Run(run_directory(cli.config))
    with audience.may_leave():
        return fit(cli, run) if verb == "fit" else evaluate(cli, run, verb)


def fit(cli: CommandLine, run: Run) -> int:
    """Begin or continue a run; the first process keeps its record. Returns the exit code."""
    check_precision(vars(cli.config.trainer))
    _check_division(cli.config)
    with ExitStack() as held:
        start = _begin(cli, run, held)
        if start.finished:
            return 0
        if launch.rank():
            return _start(cli, lambda: _fit(cli, run, start))
        try:
            code = _start(cli, lambda: _fit(cli, run, start))
        except signals.Stopped:
            code = TRY_AGAIN
        except BaseException as error:
            if run.attempt["pid"] == os.getpid():
                code = error.exit_code if isinstance(error, UserError) else 1
                run.end_attempt(f"failed: {describe(error)}", code)
            raise
        if run.attempt["pid"] == os.getpid():
            reason = {0: "finished", TRY_AGAIN: "stopped"}.get(code, f"failed: exit code {code}")
            run.end_attempt(reason, code)
            if code == TRY_AGAIN:
                print(f"run {run.name} stopped and saved; the same command continues it", flush=True)
        return code


def evaluate(cli: CommandLine, run: Run, verb: str) -> int:
    """Measure the best checkpoint of a run. Returns the exit code.

    Args:
        cli: the parsed command line.
        run: the run.
        verb: the split to measure on, `validate` or `test`.
    """
    return _start(cli, lambda: _evaluate(cli, run, verb))


def parse(arguments: list[str]) -> CommandLine:
    """The command line, checked against the signatures of the classes that it names.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing file: the message names it.
    """
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    check_files(arguments)
    if not any(argument in ("-c", "--config") or argument.startswith("--config=") for argument in arguments):
        arguments = _with_config_of_run(arguments)
    if any(argument.startswith("--run") for argument in arguments):
        arguments = [_current(argument) for argument in arguments]
    check_class_paths(arguments)
    return CommandLine(arguments)


def run_directory(config: Any) -> Path:
    """The run that the command names, else the one named after its first config: text/lstm.yaml is text-lstm."""
    if config.run:
        return directory_of(config.run)
    if not config.config:
        raise ConfigError("no config and no run: give --config FILE.yaml or --run NAME")
    first = Path(str(config.config[0])).resolve()
    parts = first.relative_to(CONFIGS).parts if first.is_relative_to(CONFIGS) else (first.name,)
    return directory_of("-".join(parts).removesuffix(first.suffix))


def _with_config_of_run(arguments: list[str]) -> list[str]:
    names = [value for key, value in itertools.pairwise(arguments) if key == "--run"]
    names += [argument.removeprefix("--run=") for argument in arguments if argument.startswith("--run=")]
    return [f"--config={find_run(names[0]) / CONFIG}", *arguments] if names else arguments


def _current(argument: str) -> str:
    """An argument; where it names the file of a run's own config, what that says, with the class paths of today."""
    option, path = "--config=" if argument.startswith("--config=") else "", Path(argument.removeprefix("--config="))
    own = path.name == CONFIG and is_run(path.parent)
    return option + yaml.safe_dump(read_config(path.parent)) if own else argument


def _check_division(config: Any) -> None:
    """Raise ConfigError, before anything is written, if the processes cannot share the global batch."""
    Share.of_config(vars(config.data.init_args), launch.world_size(vars(config.trainer)))


def _begin(cli: CommandLine, run: Run, held: ExitStack) -> Start:
    """How the attempt begins, found by the first process and told to those that a launcher started beside it."""
    if not launch.started_elsewhere():
        held.enter_context(run.lock())
        return begin(run, cli)

    def first() -> dict[str, Any]:
        held.enter_context(run.lock(patience=LOCK_PATIENCE))
        start = begin(run, cli)
        return {"start": (str(start.checkpoint or ""), start.step, start.finished), "record": run.record}

    said = rendezvous.share(first, launch.world_size(vars(cli.config.trainer)))
    run.record = said["record"]
    checkpoint, step, finished = said["start"]
    return Start(Path(checkpoint) if checkpoint else None, step, finished)


def _start(cli: CommandLine, work: Any) -> int:
    """Do the work in this process, or in as many forks as the config has devices."""
    processes = launch.count_processes(vars(cli.config.trainer))
    if processes > 1 and not launch.started_elsewhere():
        code = launch.fork(processes)
        if code is not None:
            return code
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    work()
    return 0


def _fit(cli: CommandLine, run: Run, start: Start) -> None:
    model, data, config = cli.build()
    trainer = make_trainer(config, run, model, data, start)
    code = 1
    try:
        trainer.fit(model, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        code = 0
    except signals.Stopped:
        code = TRY_AGAIN
        raise
    except Exception as error:
        raise classify(error, trainer.world_size) from error
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, PatientWandbLogger):
                logger.finish(code)


def _evaluate(cli: CommandLine, run: Run, verb: str) -> None:
    chosen = choose_checkpoint(find_run(str(run.path)), "best")
    model, data, config = cli.build()
    trainer: Trainer = make_trainer(config, run, model, data, None)
    evaluate = {"validate": trainer.validate, "test": trainer.test}[verb]
    evaluate(model, datamodule=data, ckpt_path=chosen, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        print(f"{run.name}, {chosen.name}, on {data.dataset.path}:")  # type: ignore[attr-defined]
        for name, value in trainer.callback_metrics.items():
            print(f"  {name:24}{value:.4f}")
        for line in model.report():
            print(line)


@cache
def _print_dropped(lines: tuple[str, ...]) -> None:
    """Print options that a config drops, once where it is parsed several times."""
    if launch.rank() == 0:
        for line in lines:
            print(f"unroll: {line}", file=sys.stderr, flush=True)


def _linked(name: str, data: Any) -> Any:
    return data.linked.get(name)


def quieten() -> None:
    """Leave out what Lightning says of things that are so by design here; a warning is one line."""
    warnings.formatwarning = lambda message, *_, **__: f"unroll: warning: {message}\n"
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)\..*", category=UserWarning)
    warnings.filterwarnings(
        "ignore", module=r"(lightning|torch|pipeline\.distributed\.strategies)\..*", category=FutureWarning
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
