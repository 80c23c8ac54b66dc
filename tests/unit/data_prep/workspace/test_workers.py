"""Work is divided among processes, which a script must be able to import."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "from data_prep.workspace.workers import in_order\nguard\n    print(list(in_order(abs, [-1, 2, -3], 2)))\n"


@pytest.mark.parametrize(
    ("guard", "code", "printed", "error"),
    [
        ('if __name__ == "__main__":', 0, "[1, 2, 3]\n", ""),
        ("if True:", 1, "", 'Put its calls below `if __name__ == "__main__":`, or use --workers 1\n'),
    ],
)
def test_a_script_that_would_start_itself_in_each_worker_is_refused(
    guard: str, code: int, printed: str, error: str, tmp_path: Path
) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.replace("guard", guard))
    home = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, env={"PYTHONPATH": str(home)})
    assert (done.returncode, done.stdout) == (code, printed)
    assert done.stderr.endswith(error)
    assert done.stderr.count("Traceback") == code
