"""A profile says what every job on one cluster needs: configs/cluster/NAME.yaml."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS

PROFILES = CONFIGS / "cluster"
SECRET = re.compile("(key|token)s?$|secret|password", re.IGNORECASE)  # TOKENIZERS_PARALLELISM is none
OF_ONE_NODE = ("tmpfs", "ramfs", "devtmpfs")  # file systems in memory are no other node's
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Profile:
    """A cluster.

    Args:
        partition: as sbatch takes it.
        account: as sbatch takes it.
        qos: as sbatch takes it.
        modules: loaded before anything else.
        container: command in front of `unroll`, such as `apptainer exec --nv image.sif`.
        environment: variables for the job.
        directives: more options of sbatch, each beginning with two dashes.
        shared: directories that all nodes see; where there are none, only file systems in memory are refused.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    modules: list[str] = field(default_factory=list)
    container: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    directives: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)


def read_profile(name: str) -> Profile:
    """The profile NAME of configs/cluster, or the one in the file NAME.

    Raises:
        ConfigError: there is no such file, a key that no profile has, a value of another kind, or a secret.
    """
    import yaml

    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else PROFILES / f"{name}.yaml"
    if not file.is_file():
        there = sorted(path.stem for path in PROFILES.glob("*.yaml"))
        raise ConfigError(f"no cluster profile {file}; profiles: {', '.join(there)}")
    try:
        given = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {error}") from error
    kinds = {each.name: type(getattr(Profile(), each.name)) for each in fields(Profile)}
    if not isinstance(given, dict):
        raise ConfigError(f"{file} must hold keys of a profile: {', '.join(kinds)}")
    for key, value in given.items():
        if key not in kinds:
            raise ConfigError(f"{file}: no key {key!r} in a profile; keys: {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise ConfigError(f"{file}: {key} must be a {kinds[key].__name__}, not {value!r}")
    for variable in given.get("environment", {}):
        if SECRET.search(str(variable)):
            raise ConfigError(f"{file}: {variable} looks like a secret: export it in your shell, sbatch takes it along")
    for directive in given.get("directives", []):
        if not str(directive).startswith("--"):
            raise ConfigError(f"{file}: directive {directive!r} must begin with --")
    return Profile(**given)


def seconds(time: str) -> int:
    """A time limit in the forms of sbatch: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    Raises:
        ConfigError: it has another form.
    """
    form = TIME.fullmatch(time)
    if form is None:
        raise ConfigError(f"--time {time} is none of MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS")
    parts = [int(part) for part in form["parts"].split(":")]
    if form["days"] is not None:
        hours, minutes, rest = [*parts, 0, 0][:3]
        return ((int(form["days"]) * 24 + hours) * 60 + minutes) * 60 + rest
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def clock(seconds: float) -> str:
    """A duration as H:MM:SS, a form that sbatch takes too."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def check_shared(paths: Iterable[Path], profile: Profile, mounts: str) -> None:
    """Refuse paths that other nodes cannot see.

    Args:
        paths: of the dataset and of the run.
        profile: names the directories that are shared, if it does.
        mounts: the text of /proc/mounts.

    Raises:
        ConfigError: one of them lies elsewhere, or in memory.
    """
    for path in (path.resolve() for path in paths):
        if profile.shared:
            if not any(path.is_relative_to(Path(root).resolve()) for root in profile.shared):
                raise ConfigError(f"{path} is on none of the paths that the nodes share: {', '.join(profile.shared)}")
            continue
        if (kind := file_system_type(path, mounts)) in OF_ONE_NODE:
            raise ConfigError(f"{path} is in the memory of this node ({kind}): put it on a path that all nodes share")


def file_system_type(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path; empty where none is known to."""
    rows = [line.split() for line in mounts.splitlines()]
    over = [(len(row[1]), row[2]) for row in rows if len(row) > 2 and path.is_relative_to(row[1].replace("\\040", " "))]
    return max(over, key=lambda found: found[0])[1] if over else ""
