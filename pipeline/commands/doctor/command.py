"""`unroll doctor`: diagnose this node, or the nodes of a job, and suggest fixes.

unroll doctor                                                         # this node
srun --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 unroll doctor    # these nodes, and the network between them
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.commands.doctor import bandwidth, checks
from pipeline.commands.doctor.checks import FAIL, OK, WARN, Finding
from pipeline.distributed import launch, slurm_environment
from pipeline.runs.run import RUNS

REPORT = "report the node to its administrators, and --exclude it until then"
SLOW = {"nccl": 5.0, "gloo": 0.1}  # GB/s below which the gradient all-reduce likely limits the speed of training


def main(argv: list[str]) -> int:
    """Print a line per check; return 1 if a check fails.

    Raises:
        ConfigError: the nodes run different numbers of tasks.
    """
    parser = Parser(prog="unroll doctor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="directory of the runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    options = parser.parse_args(argv)
    slurm_environment.set_rank_variables()
    first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    rows, port = checks.query_driver(), os.environ.get("MASTER_PORT")
    gpus = len(rows.splitlines())
    found = [collective(gpus)]  # first, because it may fork: CUDA cannot be forked after its initialization
    if first_here:
        # Under srun the port is in use by now.
        rendezvous = None if launch.started_elsewhere() or port is None else int(port)
        found = [
            *check_node(options.runs, rows, rendezvous),
            *(found if launch.rank() == 0 or found[0].verdict == FAIL else []),
        ]
        print_findings(found, options.json)
    return int(any(finding.verdict == FAIL for finding in found))


def check_node(runs: Path, gpu_rows: str, port: int | None) -> list[Finding]:
    """Run all checks of a single node."""
    import torch

    from pipeline.tracking.settings import has_key

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [
        checks.versions(checks.installed()),
        checks.device_libraries(seen, len(gpu_rows.splitlines()), torch.version.cuda),
        *checks.health(gpu_rows),
        *(compute(device) for device in range(seen)),
        kernels(seen),
        checks.shared_memory(),
        checks.open_files(),
        checks.check_file_system(runs),
        checks.network(port),
        checks.tracking(os.environ, has_key()),
        *checks.scheduler(checks.query_scheduler()),
    ]


def compute(device: int) -> Finding:
    """Check that a GPU multiplies matrices with the same result as the CPU."""
    import torch

    left, right = torch.randn(2, 512, 512, dtype=torch.float64)
    try:
        difference = float(((left.cuda(device) @ right.cuda(device)).cpu() - left @ right).abs().max())
    except RuntimeError as error:
        return Finding(f"GPU {device}", FAIL, f"matrix product failed: {error}", REPORT)
    if difference > 1e-9:
        return Finding(f"GPU {device}", FAIL, f"matrix product differs from the CPU by {difference:.1e}", REPORT)
    return Finding(f"GPU {device}", OK, "matrix product equals that of the CPU")


def kernels(gpus: int) -> Finding:
    """List the fused kernels of attention and recurrence that torch can use on this node.

    Args:
        gpus: number of GPUs that torch can use.
    """
    import torch

    if not gpus:
        fused: Callable[[], bool] = torch.backends.mkldnn.is_available
        kernel, instructions = "oneDNN" if fused() else "native", torch.backends.cpu.get_cpu_capability()
        return Finding("kernels", OK, f"attention flash (CPU), recurrence {kernel}, instructions {instructions}")
    cuda = torch.backends.cuda
    switches: dict[str, Callable[[], bool]] = {
        "flash": cuda.flash_sdp_enabled,
        "memory-efficient": cuda.mem_efficient_sdp_enabled,
        "cuDNN": cuda.cudnn_sdp_enabled,
    }
    attention = ", ".join(name for name, usable in switches.items() if usable())
    number: Callable[[], int | None] = torch.backends.cudnn.version
    detail = f"attention {attention or 'math'}, recurrence {f'cuDNN {number()}' if number() else 'native'}"
    complete = bool(attention and number())
    return Finding("kernels", OK if complete else WARN, detail, "" if complete else "install a torch build with cuDNN")


def collective(gpus: int) -> Finding:
    """Measure the all-reduce bandwidth between the processes of this job step, or on this node."""
    library = "nccl" if gpus else "gloo"
    try:
        rate = bandwidth.measure_bandwidth(gpus)
    except Exception as error:  # libraries raise different types when processes cannot connect
        detail = f"{library}: {str(error).splitlines()[0]}"
        fix = "set NCCL_DEBUG=INFO for details; select the interface by NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME"
        return Finding("collective", FAIL, detail, fix)
    detail = f"{library}: {rate:.2f} GB/s over {os.environ.get('WORLD_SIZE', max(2, gpus))} processes"
    if rate < SLOW[library]:
        fix = "check the interface (NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE) and other load on it"
        return Finding("collective", WARN, detail, fix)
    return Finding("collective", OK, detail)


def print_findings(found: list[Finding], as_json: bool) -> None:
    """Print all findings in one write, so that lines of several nodes do not mix."""
    host = socket.gethostname()
    if as_json:
        lines = [json.dumps({"host": host, **finding._asdict()}) for finding in found]
    else:
        place = f"{host}  " if launch.started_elsewhere() else ""
        lines = [
            f"{place}{each.verdict:5} {each.name:14} {each.detail}{f' -> {each.fix}' if each.fix else ''}"
            for each in found
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
