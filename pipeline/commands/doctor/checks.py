"""What a doctor looks at on one node: each check is a function that tells what it found, and the mend."""

import contextlib
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

OK, WARN, FAIL = "ok", "warn", "FAIL"
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
PACKAGES = ("torch", "lightning", "torchmetrics", "wandb", "datasets", "tokenizers", "safetensors", "numpy")
PROBE = 64 * 2**20  # bytes that are written and read
SLOW = 50e6  # bytes a second
ROOM, SHORT = 1e9, 10e9  # bytes free: too few, few
SHARED = 1e9  # bytes of shared memory that loaders and NCCL are glad of
FILES = 4096  # open files
SMI = ("index", "name", "memory.total", "memory.used", "temperature.gpu", "ecc.errors.uncorrected.volatile.total")


class Finding(NamedTuple):
    """What a check found."""

    name: str
    verdict: str
    said: str
    mend: str = ""


def versions(installed: Mapping[str, str | None]) -> Finding:
    """The packages that a run needs, none of them a malicious upload.

    Args:
        installed: version of each package; None for what is missing.
    """
    bad = [f"{name} {version}" for name, version in installed.items() if version in MALICIOUS.get(name, ())]
    missing = [name for name, version in installed.items() if version is None]
    said = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    if bad:
        mend = "remove the environment, change the passwords and keys that this machine knew, then make setup"
        return Finding("packages", FAIL, f"{', '.join(bad)} was a malicious upload", mend)
    if missing:
        return Finding("packages", FAIL, f"not installed: {', '.join(missing)}", "make setup")
    return Finding("packages", OK, said)


def installed() -> dict[str, str | None]:
    """The version of each package."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def device_libraries(seen_by_torch: int, seen_by_driver: int, build: str | None) -> Finding:
    """torch sees the GPUs that the driver sees.

    Args:
        seen_by_torch: GPUs.
        seen_by_driver: GPUs.
        build: the CUDA that torch was built for.
    """
    said = f"torch (CUDA {build or 'none'}) sees {seen_by_torch} of {seen_by_driver} GPUs"
    if seen_by_torch >= seen_by_driver:
        return Finding("devices", OK, said if seen_by_driver else "no GPU: runs train on the CPU")
    how = (
        "a build of torch for this driver: make setup TORCH=..." if not build else "the driver and CUDA_VISIBLE_DEVICES"
    )
    return Finding("devices", FAIL, said, f"check {how}")


def health(rows: str) -> list[Finding]:
    """Each GPU by what nvidia-smi says of it.

    Args:
        rows: its CSV without head and units, columns SMI.
    """
    found = []
    for row in rows.splitlines():
        index, name, whole, taken, heat, errors = (cell.strip() for cell in row.split(","))
        total, used = (float(cell) if cell.isdigit() else 0.0 for cell in (whole, taken))  # some say [N/A]
        said = f"{name}, {used / 1e3:.1f} of {total / 1e3:.0f} GB in use, {heat} C"
        if errors.isdigit() and int(errors):
            mend = "have the node drained: memory is broken; --exclude it meanwhile"
            found.append(Finding(f"GPU {index}", FAIL, f"{said}, {errors} uncorrected memory errors", mend))
        elif used > 0.05 * total:
            found.append(Finding(f"GPU {index}", WARN, said, "another program holds memory there: nvidia-smi names it"))
        else:
            found.append(Finding(f"GPU {index}", OK, said))
    return found


def ask_driver() -> str:
    """What nvidia-smi says; nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Loader workers and NCCL hand data over in it."""
    if not folder.is_dir():
        return Finding("shared memory", OK, "none on this system")
    size = shutil.disk_usage(folder).total
    said = f"{size / 1e9:.1f} GB in {folder}"
    mend = "start the container with more (docker --shm-size=8g), or data.init_args.workers 0"
    return Finding("shared memory", OK if size >= SHARED else WARN, said, "" if size >= SHARED else mend)


def open_files() -> Finding:
    """A process holds a file for each shard, worker and connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= FILES or soft == resource.RLIM_INFINITY
    return Finding(
        "open files", OK if enough else WARN, f"limit {soft}", "" if enough else f"ulimit -n {min(hard, 65536)}"
    )


def check_file_system(folder: Path) -> Finding:
    """The directory of the runs can be written, locked and renamed in, at a rate, with room.

    Args:
        folder: it, or what will hold it.
    """
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    mend = "give --run a path on a shared file system that you may write"
    file = place / f".unroll-doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        written, read = _rates(file)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("file system", FAIL, f"{place}: {error}", mend)
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
    said = f"{place}: writes {written / 1e6:,.0f} and reads {read / 1e6:,.0f} MB/s, {free / 1e9:,.0f} GB free"
    if free < ROOM:
        return Finding("file system", FAIL, said, "free some room: checkpoints would not be saved")
    if free < SHORT:
        return Finding("file system", WARN, said, "free some room, or lower checkpoints.keep_last")
    if written < SLOW:
        return Finding("file system", WARN, said, "save less often: checkpoints.every_minutes")
    return Finding("file system", OK, said)


def _rates(file: Path) -> tuple[float, float]:
    """Bytes a second written through to the disk, and read (which may come from memory)."""
    data = os.urandom(2**20)
    began = time.perf_counter()
    with file.open("wb") as probe:
        fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in range(PROBE // len(data)):
            probe.write(data)
        probe.flush()
        os.fsync(probe.fileno())
    written = time.perf_counter()
    file.rename(file.with_suffix(".renamed")).rename(file)
    file.read_bytes()
    return PROBE / (written - began), PROBE / (time.perf_counter() - written)


def network(port: int | None) -> Finding:
    """Other nodes can find this one, and a port is free for them to meet at.

    Args:
        port: at which this job's processes meet; None for any.
    """
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        mend = "add it to DNS or /etc/hosts, or export MASTER_ADDR"
        return Finding("ports", FAIL, f"this node's own name {host} has no address", mend)
    try:
        with socket.socket() as probe:
            probe.bind(("", port or 0))
            bound = probe.getsockname()[1]
    except OSError as error:
        return Finding("ports", FAIL, f"port {port}: {error}", "export MASTER_PORT=another one")
    said = f"{host} is {address}, port {bound} is free"
    if address.startswith("127."):
        return Finding("ports", WARN, said, "for several nodes: this name must lead to an address that they can reach")
    return Finding("ports", OK, said)


def tracking(environment: Mapping[str, str], key: bool, seconds: float = 5.0) -> Finding:
    """Weights & Biases can be reached, where it is to be; never more than a warning: runs go on without it.

    Args:
        environment: names mode and server.
        key: whether one is there; it is never shown.
        seconds: to wait for the server.
    """
    mode = environment.get("WANDB_MODE", "offline") or "offline"
    if mode != "online":
        return Finding("W&B", OK, f"{mode}: nothing is sent; WANDB_MODE=online sends while training")
    if not key:
        return Finding("W&B", WARN, "WANDB_MODE=online, but no key: runs are recorded offline", "wandb login")
    server = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), timeout=seconds).close()
    except OSError as error:
        mend = "leave WANDB_MODE out on nodes without network and send later, from one that has it"
        return Finding("W&B", WARN, f"{server.hostname}:{port} cannot be reached from here ({error})", mend)
    return Finding("W&B", OK, f"{server.hostname}:{port} answers, and a key is there")


def scheduler(config: str | None) -> list[Finding]:
    """What of Slurm's configuration would make a run lose time.

    Args:
        config: what `scontrol show config` prints; None where there is no Slurm.
    """
    if config is None:
        return [Finding("Slurm", OK, "not here: `unroll submit` wants a login node, training does not")]
    rows = (line.split("=", 1) for line in config.splitlines() if "=" in line)
    known = {key.strip(): value.strip() for key, value in rows}
    said = f"{known.get('SLURM_VERSION', '?')}, cluster {known.get('ClusterName', '?')}"
    found = [Finding("Slurm", OK, said)]
    wait = int(known.get("KillWait", "30 sec").split()[0])
    if wait < 30:
        mend = "save often (checkpoints.every_minutes): after a preemption there is no more time than that"
        found.append(Finding("Slurm", WARN, f"KillWait is {wait} s", mend))
    if known.get("JobRequeue") == "0":
        found.append(Finding("Slurm", OK, "JobRequeue=0: the batch scripts ask for --requeue themselves"))
    return found


def ask_scheduler() -> str | None:
    """Slurm's configuration; None where there is no Slurm, or it does not answer."""
    try:
        asked = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout if asked.returncode == 0 else None
