"""The command line of fit, validate and test: parse and check a config, then build its classes."""

import json
import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import fields
from functools import cache, partial
from operator import attrgetter
from pathlib import Path

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from pipeline.callbacks.checkpointing import CheckpointSettings
from pipeline.callbacks.initialization import Initialization, chosen
from pipeline.callbacks.layer_execution import Execution
from pipeline.callbacks.nonfinite_guard import GuardSettings
from pipeline.callbacks.watchdog import WatchdogSettings
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.distributed import launch
from pipeline.errors import ConfigError, UserError
from pipeline.optim import freeze
from pipeline.runs import options
from pipeline.runs.record import CONFIG, is_run, read_config
from pipeline.runs.run import directory_of, find_run
from pipeline.tasks.task import Task
from pipeline.tracking.settings import Tracking
from pipeline.training.class_help import OPTION, own_classes, with_class_paths
from pipeline.training.config_errors import readable_error, wrapped_user_error
from pipeline.training.given_keys import check_files, check_names, configs_first, with_effect
from pipeline.training.shipped_configs import CONFIGS, with_located

OF_DATASET = re.compile(r"--data(\.init_args)?\.dataset(=|$)")  # an option that names the dataset


class CommandLine(LightningCLI):
    """Lightning's command line, split into parsing and building.

    Attributes:
        names_dataset: whether an option names the dataset.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.names_dataset = any(map(OF_DATASET.match, arguments))
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
        """Add the project's own keys, and link the model's arguments to facts of the data."""
        parser.add_argument("--run", type=str | None, default=None, help="name or directory of the run")
        parser.add_argument("--resume", type=str, default="auto", help="auto or never")
        parser.add_argument("--from", type=str | None, default=None, help="source of initial weights")
        parser.add_argument("--freeze", type=list[str] | None, default=None, help="patterns of frozen parameters")
        parser.add_argument("--initialization", type=list[Initialization] | None, default=None, help="initial weights")
        parser.add_argument("--allow-changes", action="store_true", help="accept changed settings that change results")
        parser.add_argument("--profile", type=int | None, default=None, help="steps to profile")
        parser.add_argument("--sweep", type=str | None, default=None, help="W&B sweep that chooses values")
        parser.add_class_arguments(CheckpointSettings, "checkpoints")
        parser.add_class_arguments(GuardSettings, "guard")
        parser.add_class_arguments(WatchdogSettings, "watchdog")
        parser.add_class_arguments(Execution, "execution")
        parser.add_class_arguments(Tracking, "tracking")
        for fact in fields(DataFacts):
            value = attrgetter(f"facts.{fact.name}")
            parser.link_arguments("data", f"model.init_args.{fact.name}", compute_fn=value, apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments of `main`; sys.argv would begin with the verb."""
        assert isinstance(args, list)
        is_help = any(OPTION.fullmatch(argument) for argument in args)
        with options.of_their_class() as dropped, own_classes() if is_help else nullcontext():
            try:
                self.config = parser.parse_args(args)
            except UserError:
                raise
            except Exception as error:  # of jsonargparse, of argparse or of a constructor
                keys = parser.get_defaults(skip_validation=True).keys()
                raise wrapped_user_error(error) or ConfigError(readable_error(str(error), keys)) from error
            finally:  # also when --print_config exits
                _print_dropped(tuple(dropped.lines()))

    def _set_seed(self) -> None:
        """Do nothing: each process seeds itself in `build`."""

    def instantiate_classes(self) -> None:
        """Do nothing: `build` instantiates the classes in the process that trains."""

    def build(self) -> tuple[Task, PlannedDataModule, Namespace]:
        """Return the model, the data and the whole instantiated config.

        The model has shapes but no weights yet. `configure_model` creates them, identically on every process.

        Raises:
            ConfigError: a class rejects its values; the message is the class's own.
            DataError: the dataset is missing, damaged or of the wrong kind.
        """
        self.config_init = self._instantiate(self.config)
        model, data = self.config_init.model, self.config_init.data
        freeze(model, self.config.freeze or [])
        chosen(model, self.config_init.initialization or [])
        model.build = partial(self._build_model, data)
        return model, data, self.config_init

    def build_parts(self) -> tuple[Task, PlannedDataModule]:
        """Return the model and the data alone: strategies may depend on the node that trains.

        Raises:
            UserError: see `build`.
        """
        built = self._instantiate(self._parts(self.config.data), instantiate_groups=False)
        freeze(built.model, self.config.freeze or [])
        return built.model, built.data

    def _parts(self, data: object) -> Namespace:
        return Namespace(data=data, model=self.config.model)  # type: ignore[no-untyped-call]

    def _instantiate(self, config: Namespace, **how: bool) -> Namespace:
        try:
            with torch.device("meta"):
                built: Namespace = self.parser.instantiate(config, **how)
                return built
        except UserError:
            raise
        except Exception as error:  # of a constructor, perhaps wrapped by jsonargparse
            raise wrapped_user_error(error) or ConfigError(readable_error(str(error))) from error

    def _build_model(self, data: LightningDataModule) -> Task:
        """Instantiate the model from the same parsed config and data, with weights drawn from the run's seed."""
        torch.manual_seed(int(self.config.seed_everything))
        model: Task = self.parser.instantiate(self._parts(data), instantiate_groups=False).model
        freeze(model, self.config.freeze or [])
        return model


def parse_config(arguments: list[str]) -> CommandLine:
    """Return the parsed command line, checked against the signatures of the classes it names.

    Raises:
        ConfigError: a key is unknown, a type is wrong or a file is missing; the message names it.
    """
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    arguments = configs_first(with_located(with_class_paths(arguments)))
    check_files(arguments)
    if not any(argument in ("-c", "--config") or argument.startswith("--config=") for argument in arguments):
        arguments = _with_config_of_run(arguments)
    if any(argument.startswith("--run") for argument in arguments):
        arguments = [_current(argument) for argument in arguments]
    check_names(arguments)
    cli = CommandLine(_with_patterns(arguments))
    for option in ("run", "from"):
        if names := _values(arguments, option):
            cli.config[option] = names[-1]  # as written: the parser reads null, ~ and #3 as YAML
    return cli


def run_directory(config: Namespace) -> Path:
    """Return the directory of `--run`, or one named after the first config (text/lstm.yaml: text-lstm)."""
    if config.run is not None:
        return directory_of(config.run)
    if not config.config:
        raise ConfigError("no config and no run: use --config FILE.yaml or --run NAME")
    first = Path(str(config.config[0])).resolve()
    parts = first.relative_to(CONFIGS).parts if first.is_relative_to(CONFIGS) else (first.name,)
    return directory_of("-".join(parts).removesuffix(first.suffix))


def _with_config_of_run(arguments: list[str]) -> list[str]:
    """Return arguments that begin with the config of the run, or of the source of a new run, if that is a run."""
    names, sources = _values(arguments, "run"), _values(arguments, "from")
    if names and sources and not is_run(directory_of(names[-1])) and is_run(directory_of(sources[-1])):
        names = sources
    return [f"--config={find_run(names[-1]) / CONFIG}", *arguments] if names else arguments


def _values(arguments: list[str], option: str) -> list[str]:
    """Return the values of all occurrences of an option."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    name = f"--{option}"
    return [
        value if given == name else given.removeprefix(f"{name}=")
        for given, value in pairs
        if given == name or given.startswith(f"{name}=")
    ]


def _listed(value: str) -> list[str]:
    """Return the texts of a YAML list; or the value itself, such as a pattern that begins with a bracket."""
    with suppress(yaml.YAMLError):
        found = yaml.safe_load(value)
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return [value]


def _with_patterns(arguments: list[str]) -> list[str]:
    """Return arguments in which one option `--freeze` has the patterns of all of them."""
    given = _values(arguments, "freeze")
    if not given:
        return arguments
    patterns = [each for value in given for each in _listed(value)]
    values = {at + 1 for at, argument in enumerate(arguments) if argument == "--freeze"}
    kept = [
        argument
        for at, argument in enumerate(arguments)
        if at not in values and argument != "--freeze" and not argument.startswith("--freeze=")
    ]
    return [*kept, f"--freeze={json.dumps(patterns)}"]


def _current(argument: str) -> str:
    """Return an argument; the path of a run's own config is replaced by its content with current names and keys."""
    option, path = "--config=" if argument.startswith("--config=") else "", Path(argument.removeprefix("--config="))
    own = path.name == CONFIG and is_run(path.parent)
    return option + yaml.safe_dump(with_effect(read_config(path.parent))) if own else argument


@cache
def _print_dropped(lines: tuple[str, ...]) -> None:
    """Print the options that a config drops, once even if the config is parsed several times."""
    if launch.rank() == 0:
        for line in lines:
            print(f"unroll: {line}", file=sys.stderr, flush=True)
