"""The checks of `unroll doctor` on one node: each function returns a finding and, for a problem, its fix."""

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

from pipeline.tracking.settings import MODES, ONLINE

OK, WARN, FAIL = "ok", "warn", "FAIL"
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
PACKAGES = ("torch", "lightning", "torchmetrics", "wandb", "datasets", "tokenizers", "safetensors", "numpy")
PROBE = 64 * 2**20  # bytes written and read to measure a file system
SLOW = 50e6  # bytes per second
ROOM, SHORT = 1e9, 10e9  # free bytes below which the check fails, and warns
SHARED = 1e9  # recommended bytes of shared memory for loader workers and NCCL
FILES = 4096  # recommended limit of open files
SMI = ("index", "name", "memory.total", "memory.used", "temperature.gpu", "ecc.errors.uncorrected.volatile.total")


class Finding(NamedTuple):
    """The result of a check."""

    name: str
    verdict: str
    detail: str
    fix: str = ""


def versions(installed: Mapping[str, str | None]) -> Finding:
    """Check that all required packages are installed, none of them in a known malicious version.

    Args:
        installed: version of each package; None if missing.
    """
    bad = [f"{name} {version}" for name, version in installed.items() if version in MALICIOUS.get(name, ())]
    missing = [name for name, version in installed.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    if bad:
        fix = "delete the environment, replace all passwords and keys on this machine, then run `make setup`"
        return Finding("packages", FAIL, f"{', '.join(bad)} is a malicious release", fix)
    if missing:
        return Finding("packages", FAIL, f"not installed: {', '.join(missing)}", "run `make setup`")
    return Finding("packages", OK, detail)


def installed() -> dict[str, str | None]:
    """Return the installed version of each package."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def device_libraries(seen_by_torch: int, seen_by_driver: int, build: str | None) -> Finding:
    """Check that torch can use all GPUs of the driver.

    Args:
        seen_by_torch: number of GPUs that torch can use.
        seen_by_driver: number of GPUs that the driver lists.
        build: CUDA version of the torch build; None for a CPU build.
    """
    detail = f"torch (CUDA {build or 'none'}) can use {seen_by_torch} of {seen_by_driver} GPUs"
    if seen_by_torch >= seen_by_driver:
        return Finding("devices", OK, detail if seen_by_driver else "no GPU: runs train on the CPU")
    fix = (
        "check the driver and CUDA_VISIBLE_DEVICES"
        if build
        else "install a torch build for this driver: make setup TORCH=..."
    )
    return Finding("devices", FAIL, detail, fix)


def health(rows: str) -> list[Finding]:
    """Check memory, temperature and memory errors of each GPU.

    Args:
        rows: CSV output of nvidia-smi without header and units, columns SMI.
    """
    found = []
    for row in rows.splitlines():
        index, name, whole, taken, heat, errors = (cell.strip() for cell in row.split(","))
        total, used = (float(cell) if cell.isdigit() else 0.0 for cell in (whole, taken))  # some are [N/A]
        detail = f"{name}, {used / 1e3:.1f} of {total / 1e3:.0f} GB in use, {heat} °C"
        if errors.isdigit() and int(errors):
            fix = "defective memory: report the node to its administrators, and --exclude it until then"
            found.append(Finding(f"GPU {index}", FAIL, f"{detail}, {errors} uncorrected memory errors", fix))
        elif used > 0.05 * total:
            found.append(Finding(f"GPU {index}", WARN, detail, "find the process that uses its memory with nvidia-smi"))
        else:
            found.append(Finding(f"GPU {index}", OK, detail))
    return found


def query_driver() -> str:
    """Return the output of nvidia-smi; empty if it is not available."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Check the size of shared memory, through which loader workers and NCCL exchange data."""
    if not folder.is_dir():
        return Finding("shared memory", OK, "none on this system")
    size = shutil.disk_usage(folder).total
    detail = f"{size / 1e9:.1f} GB in {folder}"
    fix = "start the container with more (docker --shm-size=8g), or set data.init_args.workers to 0"
    return Finding("shared memory", OK if size >= SHARED else WARN, detail, "" if size >= SHARED else fix)


def open_files() -> Finding:
    """Check the limit of open files: a process opens one per shard, worker and connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= FILES or soft == resource.RLIM_INFINITY
    return Finding(
        "open files", OK if enough else WARN, f"limit {soft}", "" if enough else f"run `ulimit -n {min(hard, 65536)}`"
    )


def check_file_system(folder: Path) -> Finding:
    """Check that the directory of the runs supports writing, locking and renaming, and measure speed and free space.

    Args:
        folder: the directory, which need not exist.
    """
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    fix = "give --run a writable path on a shared file system"
    file = place / f".unroll-doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        written, read = _rates(file)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("file system", FAIL, f"{place}: {error}", fix)
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
    detail = f"{place}: writes {written / 1e6:,.0f} and reads {read / 1e6:,.0f} MB/s, {free / 1e9:,.0f} GB free"
    if free < ROOM:
        return Finding("file system", FAIL, detail, "free disk space: checkpoints could not be saved")
    if free < SHORT:
        return Finding("file system", WARN, detail, "free disk space, or decrease checkpoints.keep_last")
    if written < SLOW:
        return Finding("file system", WARN, detail, "save less often: increase checkpoints.every_minutes")
    return Finding("file system", OK, detail)


def _rates(file: Path) -> tuple[float, float]:
    """Return bytes per second for writes flushed to disk, and for reads, which may be cached."""
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
    """Check that the host name resolves and that the rendezvous port is free.

    Args:
        port: rendezvous port of this job; None for any free port.
    """
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        fix = "add it to DNS or /etc/hosts, or export MASTER_ADDR"
        return Finding("ports", FAIL, f"host name {host} cannot be resolved", fix)
    try:
        with socket.socket() as probe:
            probe.bind(("", port or 0))
            bound = probe.getsockname()[1]
    except OSError as error:
        return Finding("ports", FAIL, f"port {port}: {error}", "export MASTER_PORT with a free port")
    detail = f"{host} is {address}, port {bound} is free"
    if address.startswith("127."):
        return Finding("ports", WARN, detail, "multi-node runs require a host name that other nodes can resolve")
    return Finding("ports", OK, detail)


def tracking(environment: Mapping[str, str], key: bool, seconds: float = 5.0) -> Finding:
    """Check that Weights & Biases is reachable if it is enabled; only a wrong mode fails, as runs train without it.

    Args:
        environment: variables that select mode and server.
        key: whether an API key is present; it is never printed.
        seconds: timeout of the connection.
    """
    mode = environment.get("WANDB_MODE", "offline") or "offline"
    if mode.lower() not in MODES:
        return Finding("W&B", FAIL, f"WANDB_MODE={mode} is not a mode", "use online, offline or disabled")
    if MODES[mode.lower()] != ONLINE:
        return Finding("W&B", OK, f"{mode}: nothing is sent during training (set WANDB_MODE=online to send)")
    if not key:
        return Finding("W&B", WARN, "WANDB_MODE=online without an API key: runs are recorded offline", "wandb login")
    server = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), timeout=seconds).close()
    except OSError as error:
        fix = "unset WANDB_MODE on nodes without network, and run `unroll sync` on a machine that has it"
        return Finding("W&B", WARN, f"{server.hostname}:{port} cannot be reached ({error})", fix)
    return Finding("W&B", OK, f"{server.hostname}:{port} is reachable, API key found")


def scheduler(config: str | None) -> list[Finding]:
    """Check Slurm's configuration for settings that cost training time.

    Args:
        config: output of `scontrol show config`; None without Slurm.
    """
    if config is None:
        return [Finding("Slurm", OK, "not available (only `unroll submit` and related commands require it)")]
    rows = (line.split("=", 1) for line in config.splitlines() if "=" in line)
    known = {key.strip(): value.strip() for key, value in rows}
    found = [Finding("Slurm", OK, f"{known.get('SLURM_VERSION', '?')}, cluster {known.get('ClusterName', '?')}")]
    wait = int(known.get("KillWait", "30 sec").split()[0])
    if wait < 30:
        fix = "save often (checkpoints.every_minutes): a preempted job has only this time to save"
        found.append(Finding("Slurm", WARN, f"KillWait is {wait} s", fix))
    if known.get("JobRequeue") == "0":
        found.append(Finding("Slurm", OK, "JobRequeue=0: the batch scripts set --requeue themselves"))
    return found


def query_scheduler() -> str | None:
    """Return Slurm's configuration; None if Slurm is missing or does not respond."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout if shown.returncode == 0 else None
