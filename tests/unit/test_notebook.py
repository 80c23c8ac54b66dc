"""The notebook runs, and holds the code of the page about Python."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CELLS = json.loads((DOCS / "python.ipynb").read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_and_the_page_have_the_same_code() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [block.rstrip() for block in blocks] == [code.rstrip() for code in CODE]
    assert all(cell.get("outputs") == [] for cell in CELLS if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, code in enumerate(CODE, 1):
        exec(compile(code, f"cell {number}", "exec"), names)
    assert names["metrics"]["val/loss"] > 0  # type: ignore[index]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
