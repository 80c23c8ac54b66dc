"""`unroll doctor`: what on this node, or on the nodes of a job, would make a run fail, and the mend.

unroll doctor                                   # here
srun --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 unroll doctor    # on those nodes, and between them
"""

import json
import os
import socket
import sys
from pathlib import Path

from pipeline.arguments import Parser
from pipeline.commands.doctor import bandwidth, checks
from pipeline.commands.doctor.checks import FAIL, OK, WARN, Finding
from pipeline.distributed import launch, slurm_environment
from pipeline.runs.run import RUNS

SLOW = {"nccl": 5.0, "gloo": 0.1}  # GB/s below which the exchange of gradients is likely to be what a step waits for


def main(argv: list[str]) -> int:
    """Tell a line for each check; exit code 1 where a run would fail.

    Raises:
        ConfigError: the step's nodes run unequal numbers of tasks.
    """
    parser = Parser(prog="unroll doctor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are to be (default: runs)")
    parser.add_argument("--json", action="store_true", help="a JSON object for each line")
    options = parser.parse_args(argv)
    slurm_environment.set_rank_variables()
    first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    rows, port = checks.ask_driver(), os.environ.get("MASTER_PORT")
    gpus = len(rows.splitlines())
    found = [collective(gpus)]  # before anything touches a GPU: its processes may be forked
    if first_here:
        # the processes of a step have met at their port by now
        wanted = None if launch.started_elsewhere() or port is None else int(port)
        found = [
            *check_node(options.runs, rows, wanted),
            *(found if launch.rank() == 0 or found[0].verdict == FAIL else []),
        ]
        print_findings(found, options.json)
    return int(any(finding.verdict == FAIL for finding in found))


def check_node(runs: Path, gpu_rows: str, port: int | None) -> list[Finding]:
    """Everything that concerns this node alone."""
    import torch

    from pipeline.tracking.settings import has_key

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [
        checks.versions(checks.installed()),
        checks.device_libraries(seen, len(gpu_rows.splitlines()), torch.version.cuda),
        *checks.health(gpu_rows),
        *(compute(device) for device in range(seen)),
        checks.shared_memory(),
        checks.open_files(),
        checks.check_file_system(runs),
        checks.network(port),
        checks.tracking(os.environ, has_key()),
        *checks.scheduler(checks.ask_scheduler()),
    ]


def compute(device: int) -> Finding:
    """Whether a GPU multiplies matrices as the processor does."""
    import torch

    left, right = torch.randn(2, 512, 512, dtype=torch.float64)
    try:
        apart = float(((left.cuda(device) @ right.cuda(device)).cpu() - left @ right).abs().max())
    except RuntimeError as error:
        return Finding(f"GPU {device}", FAIL, f"does not compute: {error}", "have the node drained; --exclude it")
    if apart > 1e-9:
        return Finding(f"GPU {device}", FAIL, f"a product is {apart:.1e} off", "have the node drained; --exclude it")
    return Finding(f"GPU {device}", OK, "computes what the processor does")


def collective(gpus: int) -> Finding:
    """How fast the processes of this step, or of this node, add up numbers."""
    library = "nccl" if gpus else "gloo"
    try:
        rate = bandwidth.measure_bandwidth(gpus)
    except Exception as error:  # whatever a library raises when processes do not meet
        said = f"{library}: {str(error).splitlines()[0]}"
        mend = "NCCL_DEBUG=INFO tells more; NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names the interface to take"
        return Finding("collective", FAIL, said, mend)
    said = f"{library}: {rate:.2f} GB/s over {os.environ.get('WORLD_SIZE', max(2, gpus))} processes"
    if rate < SLOW[library]:
        return Finding(
            "collective", WARN, said, "check the interface (NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE) and who else uses it"
        )
    return Finding("collective", OK, said)


def print_findings(found: list[Finding], as_json: bool) -> None:
    """One write a node: the lines of several do not mix."""
    host = socket.gethostname()
    if as_json:
        lines = [json.dumps({"host": host, **finding._asdict()}) for finding in found]
    else:
        place = f"{host}  " if launch.started_elsewhere() else ""
        lines = [
            f"{place}{each.verdict:5} {each.name:14} {each.said}{f' -> {each.mend}' if each.mend else ''}"
            for each in found
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
