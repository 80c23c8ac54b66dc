"""The real client, offline: one run over all attempts, all rows kept, and none of it can stop a training."""

import json
import os
import struct
import subprocess
import sys
import time
import warnings

import pytest
import wandb
from lightning.fabric.utilities.rank_zero import rank_zero_only
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from pipeline.tracking.patient import PatientWandbLogger, describe
from pipeline.tracking.weights_and_biases import Tracking, has_key, wandb_logger, wanted_mode

BLOCK = 32768  # bytes, of the LevelDB log format that the client writes


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone after the test
    yield
    wandb.teardown()


def records(path):
    """All records of a .wandb file: 7 bytes, then pieces of (crc, length, type, bytes) in blocks."""
    data, place, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full or last
            yield Record.FromString(whole)
            whole = b""


def rows(path):
    """The logged rows, and the run's record."""
    found, run = [], None
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
        if record.WhichOneof("record_type") == "run":
            run = record.run
    return found, run


def start(run_dir, **config):
    return wandb_logger(Tracking(tags=("a",)), run_dir, "id123456", "lstm", config)


def test_two_attempts_with_a_rewind_are_one_run_with_all_rows(tmp_path):
    run_dir = tmp_path / "run"
    for steps in ([10, 20, 30], [20, 30, 40]):
        logger = start(run_dir, git_commit="c0ffee", dataset="sum", parameters=12)
        for step in steps:
            logger.log_metrics({"train/loss": 1 / step, "tokens": step * 8}, step)
        logger.log_samples([{"prompt": "a", "text": "<b>"}], steps[-1])
        logger.finalize("success")
        logger.finish()
        time.sleep(1.1)  # the client names directories by the second
    files = sorted(run_dir.glob("wandb/offline-run-*/run-id123456.wandb"))
    (first, one), (second, two) = map(rows, files)
    assert [row["step"] for row in first + second] == [10, 20, 30, 30, 20, 30, 40, 40]
    assert [row["train/loss"] for row in second if "train/loss" in row] == [1 / 20, 1 / 30, 1 / 40]
    assert all("trainer/global_step" not in row for row in first + second)
    assert one.run_id == two.run_id == "id123456"
    assert (one.project, one.display_name, list(one.tags)) == ("unroll", "lstm", ["a"])
    config = {item.key: json.loads(item.value_json) for item in one.config.update}
    assert (config["git_commit"], config["dataset"], config["parameters"]) == ("c0ffee", "sum", 12)
    metrics = [r.metric for r in records(files[0]) if r.WhichOneof("record_type") == "metric"]
    assert [(m.glob_name, m.step_metric) for m in metrics if m.glob_name] == [("*", "step")]


def test_the_table_of_samples_holds_the_latest_of_all_steps(tmp_path):
    logger = start(tmp_path / "run")
    for step in range(1, 71):
        logger.log_samples([{"prompt": "p", "text": f"text {step}"}], step)
    logger.finish()
    tables = (tmp_path / "run").glob("wandb/offline-run-*/files/media/table/samples_*.json")
    last = max((json.loads(path.read_text())["data"] for path in tables), key=lambda data: data[-1][0])
    assert last == [[step, "p", f"text {step}"] for step in range(7, 71)]


def test_pictures_of_attention_are_kept_with_their_step(tmp_path):
    logger = start(tmp_path / "run")
    for step in (5, 9):
        logger.log_pictures([Image.new("RGB", (step, 4)), Image.new("RGB", (step, 3))], step)
    logger.finish()
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/run-id123456.wandb")
    found, _ = rows(file)
    sizes = [
        [row["step"], *(row[f"attention/{n}.{side}"] for n in (1, 2) for side in ("width", "height"))] for row in found
    ]
    assert sizes == [[5, 5, 4, 5, 3], [9, 9, 4, 9, 3]]
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/files/media/images/attention/*.png"))) == 4


def test_everything_stays_under_the_run_directory_and_says_nothing(tmp_path, capfd):
    logger = start(tmp_path / "run")
    logger.log_samples([{"prompt": "p", "text": "t"}], 1)
    logger.finish()
    assert list((tmp_path / "home").rglob("*")) == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["wandb"]
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_failing_client_is_told_once_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    monkeypatch.setattr("pipeline.tracking.patient.WAIT", 0.0)
    logger = start(tmp_path / "run")
    logger.log_metrics({"train/loss": 1.0}, 1)
    with monkeypatch.context() as patch:

        def broken(*_, **__):
            raise OSError("No space left for secret-key")

        patch.setattr(type(logger.experiment), "log", broken)
        with pytest.warns(UserWarning, match="No space left for \\*\\*\\*"):
            logger.log_metrics({"train/loss": 1.0}, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logger.log_samples([{"prompt": "p", "text": "t"}], 2)
    logger.log_metrics({"train/loss": 1.0}, 3)  # it recovers
    logger.finish()
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/run-id123456.wandb")
    assert [row["step"] for row in rows(file)[0]] == [1, 3]


def test_a_client_that_cannot_start_stops_nothing(tmp_path, monkeypatch):
    def broken(**_):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", broken)
    logger = start(tmp_path / "run")
    with pytest.warns(UserWarning, match="no service"):
        logger.log_metrics({"train/loss": 1.0}, 1)
    logger.experiment.log({"a": 1})
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    logger.finish()


def test_a_server_that_is_away_leaves_an_offline_record(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logger = start(tmp_path / "run")
    logger._wandb_init["settings"].init_timeout = 2
    begun = time.monotonic()
    with pytest.warns(UserWarning, match="recording offline") as told:
        logger.log_metrics({"train/loss": 1.0}, 1)
    logger.finish()
    assert time.monotonic() - begun < 60
    assert all("0" * 40 not in str(one.message) for one in told)
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/run-id123456.wandb")
    assert [row["step"] for row in rows(file)[0]] == [1]
    assert not any(b"0" * 40 in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_training_outlives_the_death_of_the_client_s_own_process(tmp_path):
    program = f"""
import os, signal, subprocess, time
from pathlib import Path
from pipeline.tracking.weights_and_biases import Tracking, wandb_logger
logger = wandb_logger(Tracking(), Path({str(tmp_path / "run")!r}), "id123456", "lstm", {{}})
logger.log_metrics({{"train/loss": 1.0}}, 1)
children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
for child in children:
    os.kill(int(child), signal.SIGKILL)
time.sleep(0.5)
for step in range(2, 2000):
    logger.log_metrics({{"train/loss": 1.0}}, step)
logger.finish()
print("killed", len(children), "trained on")
"""
    if sys.platform != "linux":
        pytest.skip("looks up children in /proc")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "trained on" in done.stdout
    assert "killed 0" not in done.stdout
    assert "Traceback" not in done.stderr


def test_other_ranks_open_nothing(tmp_path, monkeypatch):
    logger = start(tmp_path / "run")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.experiment.log({"x": 1})
    assert logger._experiment is None
    assert isinstance(logger, PatientWandbLogger)


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_online_needs_both_a_key_and_the_wish(environment, mode, tmp_path):
    assert wanted_mode({"HOME": str(tmp_path), **environment}) == mode


def test_the_wish_alone_is_answered_with_a_line_and_offline(tmp_path):
    with pytest.warns(UserWarning, match="no API key"):
        assert wanted_mode({"HOME": str(tmp_path), "WANDB_MODE": "online"}) == "offline"


def test_a_key_of_wandb_login_counts_for_its_server_only(tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
    assert has_key({"HOME": str(tmp_path)})
    assert not has_key({"HOME": str(tmp_path), "WANDB_BASE_URL": "https://wandb.example.org"})


def test_disabled_gives_no_logger(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert start(tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


def test_no_error_message_shows_a_key():
    for secret in ("0123456789abcdef" * 3, "wandb_v1_abcDEF123", "https://user:word@host/x"):
        told = describe(ValueError(f"refused {secret}."))
        assert secret not in told
        assert told.startswith("ValueError: refused ")
    assert "word" not in told
