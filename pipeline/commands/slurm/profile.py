"""The profile of a cluster, configs/cluster/NAME.yaml: settings of all jobs on it."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS

PROFILES = CONFIGS / "cluster"
SECRET = re.compile("(key|token)s?$|secret|password", re.IGNORECASE)  # does not match TOKENIZERS_PARALLELISM
OF_ONE_NODE = ("tmpfs", "ramfs", "devtmpfs")  # file systems in the memory of one node
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Profile:
    """A cluster.

    Args:
        partition: --partition of sbatch.
        account: --account of sbatch.
        qos: --qos of sbatch.
        modules: environment modules to load first.
        container: command in front of `unroll`, such as `apptainer exec --nv image.sif`.
        environment: environment variables of the job.
        directives: additional options of sbatch, each beginning with two dashes.
        shared: directories that all nodes share; if empty, only file systems in memory are refused.
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
    """Read configs/cluster/NAME.yaml, or the file NAME.

    Raises:
        ConfigError: the file does not exist or is not YAML, or a key is unknown, has a wrong type or is a secret.
    """
    import yaml

    from pipeline.training.config_errors import UniqueKeys

    own = Path("configs/cluster") / f"{name}.yaml"
    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else own if own.is_file() else PROFILES / own.name
    if not file.is_file():
        available = sorted(path.stem for path in PROFILES.glob("*.yaml"))
        raise ConfigError(f"--profile={name}: {file} not found. Choose from {', '.join(available)}, or give a file")
    try:
        given = yaml.load(file.read_text(encoding="utf-8"), UniqueKeys) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    kinds = {each.name: type(getattr(Profile(), each.name)) for each in fields(Profile)}
    if not isinstance(given, dict):
        raise ConfigError(f"{file}: expected a mapping with keys from {', '.join(kinds)}")
    for key, value in given.items():
        if key not in kinds:
            raise ConfigError(f"{file}: unknown key {key!r}. Choose from {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise ConfigError(f"{file}: {key}={value!r}: expected {kinds[key].__name__}, got {type(value).__name__}")
    for variable in given.get("environment", {}):
        if not re.fullmatch(r"[A-Za-z_]\w*", str(variable), re.ASCII):
            raise ConfigError(f"{file}: environment: expected names of variables, got {variable!r}. Rename it")
        if SECRET.search(str(variable)):
            raise ConfigError(f"{file}: {variable} looks like a secret. Export it in your shell; sbatch passes it on")
    container = given.get("container", "")
    try:
        shlex.split(container)
    except ValueError as error:
        raise ConfigError(f"{file}: container={container!r}: {error}. Write it as in a shell") from error
    for directive in given.get("directives", []):
        if not str(directive).startswith("--"):
            raise ConfigError(f"{file}: directives: expected options that begin with --, got {directive!r}")
    return Profile(**given)


def seconds(time: str) -> int:
    """Read a time limit of sbatch: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    Raises:
        ConfigError: the time has another format.
    """
    form = TIME.fullmatch(time)
    if form is None:
        raise ConfigError(f"--time={time}: expected MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS")
    parts = [int(part) for part in form["parts"].split(":")]
    if form["days"] is not None:
        hours, minutes, rest = [*parts, 0, 0][:3]
        return ((int(form["days"]) * 24 + hours) * 60 + minutes) * 60 + rest
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)


def clock(seconds: float) -> str:
    """Format a duration as H:MM:SS, which sbatch accepts, too."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def check_shared(paths: Iterable[Path], profile: Profile, mounts: str) -> None:
    """Refuse paths that other nodes cannot access.

    Args:
        paths: paths of the dataset and of the run.
        profile: profile of the cluster.
        mounts: content of /proc/mounts.

    Raises:
        ConfigError: a path is outside of the shared directories, or on a file system in memory.
    """
    for path in (path.resolve() for path in paths):
        if profile.shared:
            if not any(path.is_relative_to(Path(root).resolve()) for root in profile.shared):
                raise ConfigError(f"{path} is not on a shared path. Move it to one of {', '.join(profile.shared)}")
            continue
        if (kind := file_system_type(path, mounts)) in OF_ONE_NODE:
            raise ConfigError(f"{path} is in the memory of this node ({kind}). Move it to a file system of all nodes")


def file_system_type(path: Path, mounts: str) -> str:
    """Return the type of the file system of a path; empty if unknown."""
    rows = [line.split() for line in mounts.splitlines()]
    over = [(len(row[1]), row[2]) for row in rows if len(row) > 2 and path.is_relative_to(row[1].replace("\\040", " "))]
    return max(over, key=lambda found: found[0])[1] if over else ""
