"""Commands import only what they use; each import takes tenths of a second."""

import os
import subprocess
import sys
from pathlib import Path

import data_prep
from pipeline import cli

UNUSED = {"scipy", "sklearn", "matplotlib", "pandas", "datasets", "wandb", "deepspeed", "gymnasium"}
UNUSED |= {"sacrebleu", "nltk", "tensorboard", "torchvision", "torchaudio", "transformers", "IPython", "pytest"}
LEARNING = {"torch", "lightning", "torchmetrics", "jsonargparse"}
PANDAS = {"prepare series", "prepare recall"}  # their options describe times


def imported_by(code: str, *arguments: str) -> tuple[set[str], str]:
    """Return the names of the packages that a program imports, and its output."""
    names = "{name.split('.')[0] for name in sys.modules}"
    program = f"import sys\n{code}\nsys.stdout.flush()\nprint(*{names}, file=sys.stderr)"
    environment = os.environ | {"WANDB_MODE": "disabled"}
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split()), done.stdout


def help_of(*commands: str) -> tuple[set[str], str]:
    code = (
        "from pipeline import cli\n"
        "for command in sys.argv[1:]:\n"
        "    try: cli.main([*command.split(), '--help'])\n"
        "    except SystemExit: pass\n"
    )
    return imported_by(code, *commands)


def test_the_help_of_no_command_waits_for_torch() -> None:
    commands = ["", *cli.VERBS, *(f"prepare {kind}" for kind in data_prep.MODALITIES)]
    found, printed = help_of(*(each for each in commands if each not in PANDAS))
    assert printed.count("usage: unroll") == len(commands) - len(PANDAS)
    assert found & (LEARNING | UNUSED) == set()
    assert help_of(*PANDAS)[0] & (LEARNING | UNUSED - {"pandas"}) == set()


def test_a_training_imports_neither_plots_nor_tables(tiny_text_dataset: Path, tmp_path: Path) -> None:
    keys = {
        "run": tmp_path / "run",
        "data.init_args.dataset": tiny_text_dataset,
        "data.init_args.context": 8,
        "data.init_args.global_batch_size": 2,
        "model.init_args.width": 8,
        "trainer.max_steps": 2,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
    }
    options = ["--config=text/lstm.yaml", *(f"--{key}={value}" for key, value in keys.items())]
    code = (
        "import gc\n"
        "from pipeline import cli\n"
        "assert cli.main(['fit', *sys.argv[1:]]) == 0\n"
        "print(gc.get_freeze_count())"
    )
    found, printed = imported_by(code, *options)
    assert "run run finished" in printed
    assert int(printed.splitlines()[-1]) > 100_000
    assert found >= LEARNING
    assert found & UNUSED == set()


def test_metrics_can_be_plotted_where_the_command_line_did_not_import_them() -> None:
    code = "from pipeline.tasks import task\nfrom torchmetrics.utilities import plot\nassert plot._MATPLOTLIB_AVAILABLE"
    assert "matplotlib" in imported_by(code)[0]


def test_garbage_is_collected_after_an_import_that_fails() -> None:
    code = (
        "import gc\n"
        "from pipeline.commands import imports\n"
        "try:\n"
        "    imports.load('nothing_of_this_name')\n"
        "except ImportError: pass\n"
        "assert gc.isenabled()"
    )
    imported_by(code)
