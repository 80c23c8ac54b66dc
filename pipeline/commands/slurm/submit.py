"""`unroll submit CONFIG... --nodes N --gpus-per-node G --time T`: check a run, then submit it to Slurm.

Errors that would occur on the nodes after hours in the queue are reported immediately.
"""

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.commands import imports
from pipeline.commands.slurm import layout, queue
from pipeline.commands.slurm import profile as cluster
from pipeline.commands.slurm.batch_script import TRAIN, Element, Job, lead
from pipeline.commands.slurm.layout import Layout
from pipeline.commands.slurm.profile import Profile
from pipeline.errors import ConfigError
from pipeline.runs import identity
from pipeline.runs.run import Run, find_run, name_of

STARTUP = 60  # seconds that a start may take before the first step
MOUNTS = Path("/proc/mounts")


def main(argv: list[str]) -> int:
    """Check runs and submit them.

    Raises:
        ConfigError: the config, the layout, the time limit or the profile is invalid, or Slurm rejects the job.
        DataError: the dataset is missing or damaged.
    """
    queue.leave_outer_job()
    own, overrides = layout.divided(argv)
    options = parser().parse_args(own)
    elements = _elements(options, [*layout.start_overrides(options), *overrides])
    first = elements[0].run.name
    submit_elements(elements, options, first if len(elements) == 1 else first.rpartition("-")[0])
    return 0


def submit_elements(elements: Sequence[Element], options: argparse.Namespace, name: str) -> None:
    """Submit runs as one job, after a job for the preparation if there is one; with --dry-run, print the scripts.

    Args:
        elements: the checked runs; several form an array.
        options: values of the options of `add_submit_options`.
        name: name of the job.

    Raises:
        ConfigError: the time limit or profile is invalid, a run is already in the queue, or Slurm rejects the job.
    """
    profile = cluster.read_profile(options.profile) if options.profile else Profile()
    job = _job(options, elements, profile, name)
    preparation = job.preparation(profile, _words(options.prepare)) if options.prepare else None
    script = job.script(profile)
    if options.dry_run:
        print(*filter(None, (preparation, script)), sep="\n", end="")
        return
    for element in elements:
        if (known := Run(element.run)).record:
            identity.settle(known)
    _refuse_running(elements)
    first = _sbatch(preparation) if preparation else None
    if first is not None:
        script = replace(job, more=waiting_for(first)).script(profile)
    for element in elements:
        element.run.mkdir(parents=True, exist_ok=True)
        (element.run / "job.sbatch").write_text(script, encoding="utf-8")
    try:
        number = _sbatch(script)
    except ConfigError:
        if first is not None:  # no job depends on it
            queue.run_slurm_command("scancel", first)
        raise
    if first is not None:
        print(f"job {first}: unroll prepare {options.prepare}")
    for k, element in enumerate(elements, 1):
        queue.note(
            element.run,
            number if len(elements) == 1 else f"{number}_{k}",
            None if first is None else f"prepare-{name}-{first}",
        )
    names = elements[0].run.name if len(elements) == 1 else f"{elements[0].run.name} to {elements[-1].run.name}"
    size = f"{job.layout.span} nodes with {job.layout.tasks} tasks each"
    print(f"job {number}: {names}, {size}, time limit {job.time}, signal to save {job.lead} s before")
    shown = name_of(elements[0].run)
    print(f"unroll status {shown}; unroll logs -f {shown}")


def _sbatch(script: str) -> str:
    """Submit a batch script and return the number of the job."""
    return queue.run_slurm_command("sbatch", "--parsable", stdin=script).strip().split(";")[0]


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = Parser(
        prog="unroll submit",
        description="Check a run and submit it to Slurm. Options after -- override the config.",
    )
    add = result.add_argument
    add("configs", nargs="*", metavar="CONFIG", help="an experiment, then overlays (default: the config of --run)")
    add("--run", metavar="NAME", help="name of the run (default: from the first config)")
    add("--array", type=Path, metavar="FILE.yaml", help="submit a run NAME-k for each {key: value} of a list")
    add(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="submit a run per value (repeatable: per combination)",
    )
    add("--prepare", metavar="'ARGUMENTS'", help="prepare the dataset first in its own job: 'text FILE --output DIR'")
    layout.add_start_options(result)
    add_submit_options(result)
    return result


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a submission to a parser."""
    layout.add_layout_options(parser)
    add = parser.add_argument
    add("--time", metavar="T", help="time limit of one start in a format of sbatch, such as 24:00:00")
    add("--profile", metavar="CLUSTER", help="cluster profile: configs/cluster/CLUSTER.yaml, or a YAML file")
    add("--after", metavar="RUN|JOB", help="start after this run or job has succeeded")
    add("--dry-run", action="store_true", help="print the scripts without submitting them")


def _elements(options: argparse.Namespace, overrides: list[str]) -> list[Element]:
    """Return the runs, after a check of each config."""
    if any(word.split("=")[0] == "--resume" for word in overrides):
        raise ConfigError("--resume cannot be submitted, as it would apply to every requeue. Give --run OTHER")
    if options.prepare and options.after:
        raise ConfigError("--prepare and --after cannot be combined. Omit one of the two")
    if not options.configs and not options.run:
        raise ConfigError("CONFIG or --run is required. Give CONFIG.yaml, or --run NAME")
    configs = options.configs or [str(find_run(options.run) / "config.yaml")]
    base = [configs[0], *(word for config in configs[1:] for word in ("--config", config))]
    named = ["--run", options.run] if options.run else []
    variants = _variants(options)
    first = checked([*base, *named, *overrides], options)
    if not variants:
        return [Element(first, [*base, "--run", name_of(first), *overrides])]
    found = []
    for k, variant in enumerate(variants, 1):
        words = [word for key, value in variant.items() for word in (f"--{key}", _text(value))]
        run = first.with_name(f"{first.name}-{k}")
        group = [] if any("tracking.group" in word for word in overrides) else ["--tracking.group", first.name]
        arguments = [*base, "--run", name_of(run), *group, *overrides, *words]
        found.append(Element(checked(arguments, options), arguments))
    return found


def _variants(options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the overrides of each element: the Cartesian product of the file's rows and the grid."""
    import yaml

    from pipeline.training.config_errors import UniqueKeys

    rows: list[dict[str, object]] = [{}]
    if options.array:
        try:
            rows = yaml.load(options.array.read_text(encoding="utf-8"), UniqueKeys)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"--array={options.array}: {error}. Give a YAML file") from error
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row for row in rows):
            raise ConfigError(
                f"--array={options.array}: expected a list of mappings such as {{model.init_args.width: 64}}"
            )
    axes = []
    for text in options.grid:
        key, equals, values = text.partition("=")
        if not equals or not all(values.split(",")):
            raise ConfigError(f"--grid={text}: expected KEY=VALUE,VALUE,...")
        axes.append([{key: value} for value in values.split(",")])
    if not options.array and not axes:
        return []
    return [
        dict(pair for part in (row, *parts) for pair in part.items())
        for row in rows
        for parts in itertools.product(*axes)
    ]


def _words(prepare: str) -> list[str]:
    try:
        return shlex.split(prepare)
    except ValueError as error:
        raise ConfigError(f"--prepare={prepare}: {error}. Quote its words as in a shell") from error


def _text(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def checked(arguments: Sequence[str], options: argparse.Namespace) -> Path:
    """Check that config, layout and dataset are consistent; return the run's directory."""
    from pipeline.data.batch_plan import Share
    from pipeline.runs import resume

    imports.load_lightning()
    from pipeline.training.config import parse_config, run_directory

    cli = parse_config(["--config", *arguments])
    config, kept = cli.config, resume.kept_config(cli)
    shape = Layout.of(options)
    shape.check(vars(config.trainer))
    settings = vars(config.data.init_args)
    if options.prepare:
        _check_preparation(_words(options.prepare), Path(str(settings["dataset"])))
    for nodes in range(shape.fewest, shape.nodes + 1):
        Share.of_config(settings, nodes * shape.tasks)
    waits = (options.after or "").isdigit() or options.prepare  # for a job that creates the dataset
    run = run_directory(config)
    data = None
    if not waits:
        model, module = cli.build_parts()
        data = resume.check_parts(model, module)
        if not options.after and (config["from"] or config.freeze):  # else a job trains the source first
            resume.initial_weights(Run(run), config, model, data.dataset)
    resume.check(Run(run), kept, data, config.allow_changes)
    if resume.is_finished(Run(run), kept):
        print(f"run {run.name} is finished: the job has nothing to train unless a limit changes", file=sys.stderr)
    profile = cluster.read_profile(options.profile) if options.profile else Profile()
    mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    cluster.check_shared([Path(str(settings["dataset"])), run], profile, mounts)
    return run


def _check_preparation(words: list[str], dataset: Path) -> None:
    """Raise ConfigError unless the preparation creates the dataset of the config."""
    made = [words[k + 1] for k, word in enumerate(words[:-1]) if word == "--output"]
    made += [word.removeprefix("--output=") for word in words if word.startswith("--output=")]
    if [Path(path).resolve() for path in made] != [dataset.resolve()]:
        raise ConfigError(
            f"--prepare: expected --output {dataset} (the dataset of the config), got {', '.join(made) or 'none'}. "
            "Change one of them, or override with `-- --data.init_args.dataset`"
        )


def _job(options: argparse.Namespace, elements: Sequence[Element], profile: Profile, name: str) -> Job:
    if not options.time:
        raise ConfigError("--time is required. Give the time limit of one start, such as --time 24:00:00")
    limit, needed = cluster.seconds(options.time), max(lead(element.run) for element in elements)
    if limit and limit < needed + STARTUP:  # 0 means unlimited
        raise ConfigError(
            f"--time={options.time}: expected more than {needed} s (to save) + {STARTUP} s (to start). Increase it"
        )
    if not TRAIN.is_file():
        raise ConfigError(f"{TRAIN} not found. Submit from a checkout of the project")
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
    """Return the options for a dependency on another job; none if its run has already finished."""
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
            raise ConfigError(f"--after={after}: the run has no job in the queue and has not finished. Submit it first")
        job = waiting.job
    return waiting_for(job)


def waiting_for(job: str) -> list[str]:
    """Return the options that start a job after another one has succeeded, and cancel it if that fails."""
    return [f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes"]


def _refuse_running(elements: Sequence[Element]) -> None:
    queued = queue.queue()
    for element in elements:
        if job := queue.live(element.run, queued):
            raise ConfigError(
                f"run {element.run.name} is already job {job.job} ({job.state}). Cancel it first with `unroll cancel`"
            )
