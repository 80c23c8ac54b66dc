"""The command line prints its help at once, and reports errors of the disk in one line."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.commands.fit import evaluation_arguments
from pipeline.dataset.facts import DataFacts
from pipeline.errors import ConfigError
from pipeline.evaluation.neural_cache import NeuralCache
from pipeline.runs.load import with_facts
from pipeline.training.fit import EvaluationOptions


def test_a_verb_alone_prints_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit"]) == 2
    assert "usage: unroll fit" in capsys.readouterr().out
    assert cli.main(["fits"]) == 2
    assert "unknown verb 'fits'" in capsys.readouterr().err


def test_an_evaluation_takes_its_run_as_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["--run", "lstm", "--seed_everything", "2"]
    how = EvaluationOptions()
    assert evaluation_arguments("validate", ["lstm", "--seed_everything", "2"]) == (expected, how)
    asked = ["lstm", "--split", "a", "--seed_everything", "2", "--checkpoint=last", "--json", "scores.json"]
    assert evaluation_arguments("test", asked) == (expected, EvaluationOptions("a", "last", Path("scores.json")))
    cached = EvaluationOptions(cache=NeuralCache(5, 0.1, 1.0))
    assert evaluation_arguments("test", ["lstm", "--cache=5,0.1,1", "--seed_everything", "2"]) == (expected, cached)
    for others in ([], ["--run", "lstm"], ["--config", "a.yaml"], ["a.yaml"]):
        assert evaluation_arguments("test", others) == (others, how)
    for verb in ("validate", "test"):
        assert cli.main([verb, "lstm", "--run=gru"]) == 2
        assert "lstm: expected one run, got also --run=gru. Omit one of them" in capsys.readouterr().err
        assert cli.main([verb, "nobody"]) == 4
        assert "no run 'nobody'" in capsys.readouterr().err
        assert cli.main([verb, "--help"]) == 0
        assert f"usage: unroll {verb} RUN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left on device. Free disk space"),
        (errno.EACCES, "Permission denied. Choose another path or change its permissions"),
    ],
)
def test_an_error_of_the_disk_is_one_line(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/data/x")

    module = types.ModuleType("compare")
    vars(module)["main"] = fail
    monkeypatch.setattr("importlib.import_module", lambda _: module)
    assert cli.main(["compare", "x"]) == 1
    assert capsys.readouterr().err.startswith(f"unroll: error: /data/x: {message}, then run the same command again.")


@pytest.mark.parametrize("verb", sorted(set(cli.VERBS) - {"prepare"}))
def test_a_misspelt_option_is_one_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--nonsense"]) == 2
    printed = capsys.readouterr()
    assert printed.out in ("", f"unroll {verb}: loading\n")
    assert printed.err.startswith("unroll: error: ")
    assert printed.err.count("\n") == 1


MEASURE_DENORMALS = """
import json, os, sys, threading, types
import torch
from torch.utils.data import DataLoader, Dataset
from pipeline import cli

def kept(size=1):  # number of products below the smallest normal number that are not zero
    return int((torch.full((size,), 1e-30) * torch.full((size,), 1e-10) != 0).sum())

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, inputs):
        return inputs.clone()
    @staticmethod
    def backward(context, gradient):
        found["backward"] = kept(2**20)
        return gradient

class Workers(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return kept()

def forked(work):
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reader, 10**6))

def measure():
    torch.set_num_threads(2)
    found.update(main=kept(), forked=forked(kept), loader=int(sum(DataLoader(Workers(), num_workers=1))))
    found["threads"] = kept(2**20)  # split between both threads
    Backward.apply(torch.ones(1, requires_grad=True)).backward()
    thread = threading.Thread(target=lambda: found.update(thread=kept()))
    thread.start()
    thread.join()
    left = torch.full((512, 512), 1e-30, requires_grad=True)
    right = torch.full((512, 512), 1e-13)
    product = left @ right
    found["product"] = int((product != 0).sum())
    product.sum().mul(1e-30).backward()
    found["gradient"] = int((left.grad != 0).sum())
    return found

found = {}
plain = forked(measure)  # the same in a process that does not flush denormals
sys.modules["verb"] = types.SimpleNamespace(main=lambda rest: verbs.update({verb: kept()}) or bool(measure()))
verbs = {}
for verb in cli.COMPUTING:
    cli.VERBS[verb] = ("verb", "")
    cli.main([verb, "RUN"])
    torch.set_flush_denormal(False)
print(json.dumps([plain, found, verbs]))
"""


def test_denormal_numbers_are_zero_in_every_thread_and_process_that_computes() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    ran = subprocess.run([sys.executable, "-c", MEASURE_DENORMALS], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    plain, flushed, verbs = json.loads(ran.stdout)
    assert set(plain) == {"main", "forked", "loader", "threads", "backward", "thread", "product", "gradient"}
    assert min(plain.values()) > 0
    assert flushed == dict.fromkeys(plain, 0)
    assert verbs == dict.fromkeys(cli.COMPUTING, 0)


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["prepare", "text", "--help"]])
def test_a_closed_pipe_is_not_an_error(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_classes_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    Path("mine_alone.py").write_text("class Mine: ...\n")
    with pytest.raises(ConfigError, match=r"class mine_alone\.Mine of the run was not found"):
        with_facts({"class_path": "mine_alone.Mine"}, DataFacts())
    assert cli.main(["fits"]) == 2
    assert with_facts({"class_path": "mine_alone.Mine"}, DataFacts(vocab_size=3))["init_args"] == {}


def test_signals_from_the_imports_to_the_last_moment_do_not_change_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "fit", "--config", "none.yaml"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "unroll fit: loading\n"  # the handlers are installed
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
    assert process.returncode == 2
