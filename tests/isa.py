"""The tests marked `learns` or `numeric` as other processors run them: a table of instruction sets and threads.

python tests/isa.py                          every row of the matrix, with the arguments of pytest behind --
python tests/isa.py --rows avx2/AVX2/1       one row: ATEN_CPU_CAPABILITY/ONEDNN_MAX_CPU_ISA/threads
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ATEN = ("default", "avx2", "native")  # native: the variable is not set, and the processor decides
ONEDNN = ("SSE41", "AVX2", "AVX512_CORE", "native")
THREADS = ("1", "2")
ROWS = ["/".join(row) for row in itertools.product(ATEN, ONEDNN, THREADS)]
CHOSEN = ["tests/unit", "tests/golden", "tests/compile", "-m", "learns or numeric"]


def environment(row: str) -> dict[str, str]:
    """The variables of a row."""
    aten, onednn, threads = row.split("/")
    variables = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    chosen = dict(zip(VARIABLES, (aten, onednn, threads), strict=True))
    return variables | {name: value for name, value in chosen.items() if value != "native"}


VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")


def run(row: str, arguments: list[str]) -> bool:
    """Run the tests of one row and print its line; True where nothing failed and something passed."""
    workers = max(1, (os.cpu_count() or 1) // int(row.rpartition("/")[2]))
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--durations=25", *CHOSEN, *arguments]
    began = time.monotonic()
    done = subprocess.run(
        command, env=environment(row), capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    broken = counts.get("failed", 0) + counts.get("error", 0)
    seconds = time.monotonic() - began
    print(f"{row:28} {counts.get('passed', 0):6} {broken:6} {seconds:7.0f}", flush=True)
    if done.returncode:
        print(*re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.M) or [done.stdout[-4000:], done.stderr], sep="\n")
    return done.returncode == 0


def main() -> int:
    """Run the rows that were chosen; 1 if a test failed in one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS, metavar="ATEN/ONEDNN/THREADS")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, behind --")
    options = parser.parse_args()
    print(f"{'ATen / oneDNN / threads':28} {'passed':>6} {'failed':>6} {'seconds':>7}", flush=True)
    green = [run(row, options.pytest) for row in options.rows]
    return int(not all(green))


if __name__ == "__main__":
    sys.exit(main())
