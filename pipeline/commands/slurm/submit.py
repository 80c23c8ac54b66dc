"""`unroll submit CONFIG... --nodes N --gpus-per-node G --time T`: check everything here, then hand the run to Slurm.

What would fail on the nodes after hours in the queue fails here in seconds.
"""

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.arguments import Parser
from pipeline.commands.slurm import layout, queue
from pipeline.commands.slurm import profile as cluster
from pipeline.commands.slurm.batch_script import TRAIN, Element, Job, lead
from pipeline.commands.slurm.layout import Layout
from pipeline.commands.slurm.profile import Profile
from pipeline.errors import ConfigError
from pipeline.runs.run import Run, find_run

STARTUP = 60  # seconds that a start may take before there is anything to save
MOUNTS = Path("/proc/mounts")


def main(argv: list[str]) -> int:
    """Check, say what will be done, and do it.

    Raises:
        ConfigError: the config, the layout, the time limit or the profile cannot be, or Slurm refuses.
        DataError: the dataset is missing or damaged.
    """
    own, overrides = layout.divided(argv)
    options = parser().parse_args(own)
    elements = _elements(options, overrides)
    first = elements[0].run.name
    hand_in(elements, options, first if len(elements) == 1 else first.rpartition("-")[0])
    return 0


def hand_in(elements: Sequence[Element], options: argparse.Namespace, name: str) -> None:
    """Hand runs to Slurm as one job, of the preparation too if there is one; or print what would be handed in.

    Args:
        elements: the runs, checked; several are an array.
        options: what `add_options` adds.
        name: the job's.

    Raises:
        ConfigError: the layout, the time limit or the profile cannot be, a run is in the queue, or Slurm refuses.
    """
    profile = cluster.read_profile(options.profile) if options.profile else Profile()
    job = _job(options, elements, profile, name)
    preparation = job.preparation(profile, shlex.split(options.prepare)) if options.prepare else None
    if options.dry_run:
        print(*filter(None, (preparation, job.script(profile))), sep="\n", end="")
        return
    _refuse_running(elements)
    first = _hand_over(preparation) if preparation else None
    if first is not None:
        job = replace(job, more=waiting_for(first))
    script = job.script(profile)
    for element in elements:
        element.run.mkdir(parents=True, exist_ok=True)
        (element.run / "job.sbatch").write_text(script)
    try:
        number = _hand_over(script)
    except ConfigError:
        if first is not None:  # nothing would wait for it
            queue.run_slurm_command("scancel", first)
        raise
    if first is not None:
        print(f"job {first}: unroll prepare {options.prepare}")
    for k, element in enumerate(elements, 1):
        queue.note(element.run, number if len(elements) == 1 else f"{number}_{k}")
    names = elements[0].run.name if len(elements) == 1 else f"{elements[0].run.name} to {elements[-1].run.name}"
    size = f"{job.layout.span} nodes of {job.layout.tasks} tasks"
    print(f"job {number}: {names}, {size}, {job.time}; {job.lead} s to save and leave")
    shown = run_name(elements[0].run)
    print(f"unroll status {shown}; unroll logs -f {shown}")


def _hand_over(script: str) -> str:
    """Give Slurm a batch script; the job's number."""
    return queue.run_slurm_command("sbatch", "--parsable", said=script).strip().split(";")[0]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="unroll submit",
        description="Hand a run to Slurm. What follows -- overrides the config, as for `unroll fit`.",
    )
    add = result.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="an experiment, then overlays; none: those kept in the run")
    add("--run", metavar="NAME", help="the run's name (default: from the name of the first config)")
    add("--array", type=Path, metavar="FILE.yaml", help="a list of {key: value}: a run NAME-k for each")
    add("--grid", action="append", default=[], metavar="KEY=A,B", help="a run for each value; several: for each pair")
    add("--prepare", metavar="'ARGUMENTS'", help="prepare the dataset first, as another job: 'text FILE --output DIR'")
    add_submit_options(result)
    return result


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line say how its runs are handed to Slurm."""
    layout.add_layout_options(parser)
    add = parser.add_argument
    add("--time", metavar="T", help="time limit of one start, as sbatch takes it: 24:00:00")
    add("--profile", metavar="CLUSTER", help="configs/cluster/CLUSTER.yaml, or a file: partition, modules, container")
    add("--after", metavar="RUN|JOB", help="start when that run, or job, has ended well")
    add("--dry-run", action="store_true", help="print what would be done, and do nothing")


def _elements(options: argparse.Namespace, overrides: list[str]) -> list[Element]:
    """The runs, each with a config that was parsed and found possible."""
    if any(word.split("=")[0] == "--resume" for word in overrides):
        raise ConfigError("--resume cannot be submitted: every requeue would obey it again; give --run OTHER")
    if options.prepare and options.after:
        raise ConfigError("--prepare and --after: one of them; the training waits for it")
    if not options.configs and not options.run:
        raise ConfigError("no config and no run: give CONFIG.yaml or --run NAME")
    configs = options.configs or [str(find_run(options.run) / "config.yaml")]
    base = [configs[0], *(word for config in configs[1:] for word in ("--config", config))]
    named = ["--run", options.run] if options.run else []
    variants = _variants(options)
    first = checked([*base, *named, *overrides], options)
    if not variants:
        return [Element(first, [*base, "--run", run_name(first), *overrides])]
    found = []
    for k, variant in enumerate(variants, 1):
        words = [word for key, value in variant.items() for word in (f"--{key}", _text(value))]
        run = first.with_name(f"{first.name}-{k}")
        group = [] if any("tracking.group" in word for word in overrides) else ["--tracking.group", first.name]
        arguments = [*base, "--run", run_name(run), *group, *overrides, *words]
        found.append(Element(checked(arguments, options), arguments))
    return found


def run_name(run: Path) -> str:
    """What `--run` takes to mean this directory."""
    return run.name if run.parent == Path("runs") else str(run)


def _variants(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The overrides of each element: of the file, times those of the grid."""
    import yaml

    rows: Any = [{}]
    if options.array:
        try:
            rows = yaml.safe_load(options.array.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"--array {options.array}: {error}") from error
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row for row in rows):
            raise ConfigError(
                f"--array {options.array} must hold a list of mappings such as {{model.init_args.width: 64}}"
            )
    axes = []
    for text in options.grid:
        key, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise ConfigError(f"--grid {text} must be KEY=VALUE,VALUE,...")
        axes.append([{key: value} for value in values.split(",")])
    if not options.array and not axes:
        return []
    return [
        dict(pair for part in (row, *parts) for pair in part.items())
        for row in rows
        for parts in itertools.product(*axes)
    ]


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def checked(arguments: Sequence[str], options: argparse.Namespace) -> Path:
    """The run's directory, once config, layout and dataset are known to fit together."""
    from pipeline.data.batch_plan import Share
    from pipeline.dataset.manifest import Dataset
    from pipeline.training.config import parse_config, run_directory

    config = parse_config(["--config", *arguments]).config
    shape = Layout.of(options)
    shape.check(vars(config.trainer))
    settings = vars(config.data.init_args)
    if options.prepare:
        _check_preparation(shlex.split(options.prepare), Path(str(settings["dataset"])))
    for nodes in range(shape.fewest, shape.nodes + 1):
        Share.of_config(settings, nodes * shape.tasks)
    if not (options.after or "").isdigit() and not options.prepare:  # a job may have to make it first
        Dataset.open(Path(str(settings["dataset"])))
    run = run_directory(config)
    profile = cluster.read_profile(options.profile) if options.profile else Profile()
    mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    cluster.check_shared([Path(str(settings["dataset"])), run], profile, mounts)
    return run


def _check_preparation(words: list[str], dataset: Path) -> None:
    """Raise ConfigError unless the preparation makes the dataset that the config trains on."""
    made = [words[k + 1] for k, word in enumerate(words[:-1]) if word == "--output"]
    made += [word.removeprefix("--output=") for word in words if word.startswith("--output=")]
    if [Path(path).resolve() for path in made] != [dataset.resolve()]:
        raise ConfigError(
            f"--prepare makes {', '.join(made) or 'no dataset'}, but the config trains on {dataset}: "
            f"let its --output agree, or give -- --data.init_args.dataset"
        )


def _job(options: argparse.Namespace, elements: Sequence[Element], profile: Profile, name: str) -> Job:
    if not options.time:
        raise ConfigError("no --time: give the limit of one start, as sbatch takes it: --time 24:00:00")
    limit, needed = cluster.seconds(options.time), max(lead(element.run) for element in elements)
    if limit and limit < needed + STARTUP:  # 0 is no limit
        raise ConfigError(
            f"--time {options.time} leaves no room to train: {needed} s are kept for saving and leaving, and a start "
            f"takes up to {STARTUP} s"
        )
    if not TRAIN.is_file():
        raise ConfigError(f"no {TRAIN}: submit from a checkout of the project")
    return Job(
        name=name,
        elements=elements,
        layout=Layout.of(options),
        time=options.time,
        lead=needed,
        command=f"{profile.container} unroll" if profile.container else f"{shlex.quote(sys.executable)} -m pipeline",
        home=Path.cwd(),
        more=_dependency(options.after),
    )


def _dependency(after: str | None) -> list[str]:
    """The options that make a job wait for another one; none where the run is finished already."""
    if after is None:
        return []
    job = after
    if not after.isdigit():
        run = queue.submitted(after)
        waiting = queue.live(run, queue.queue())
        if waiting is None:
            attempts = Run(run).record.get("attempts", [])
            if attempts and attempts[-1]["reason"] == "finished":
                return []
            raise ConfigError(f"--after {after}: it has no job in the queue, and has not finished")
        job = waiting.job
    return waiting_for(job)


def waiting_for(job: str) -> list[str]:
    """The options that make a job wait until another one has ended well, and go if it does not."""
    return [f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes"]


def _refuse_running(elements: Sequence[Element]) -> None:
    queued = queue.queue()
    for element in elements:
        if job := queue.live(element.run, queued):
            raise ConfigError(f"run {element.run.name} is job {job.job} already ({job.state}): unroll cancel it first")
