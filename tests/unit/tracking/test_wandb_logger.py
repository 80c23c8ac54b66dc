"""With the real client, all attempts are one run, no row is lost, and training never waits."""

import json
import resource
import struct
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from pipeline.commands import sync
from pipeline.tracking import wandb_logger
from tests.timeouts import scaled
from tests.unit.tracking.live import live, start, until

BLOCK = 32768  # bytes, of the LevelDB log format that the client writes


def records(path):
    """Yield all records of a .wandb file: 7 bytes, then chunks of (crc, length, type, bytes) in blocks."""
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
    """Return the logged rows and the run's record."""
    found, run = [], None
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
        if record.WhichOneof("record_type") == "run":
            run = record.run
    return found, run


def test_offline_attempts_write_their_own_rows_and_are_one_run(written):
    live(written.attempt(0), "offline", 10, 20, 30).finish()
    time.sleep(1.1)  # the client's directory names have a resolution of one second
    live(written.attempt(20), "offline", 30, 40).finish()
    files = sorted(written.run.path.glob("wandb/offline-run-*/run-id123456.wandb"))
    (first, one), (second, two) = map(rows, files)
    assert [row["step"] for row in first] == [10, 20, 30]
    assert [(row["step"], row["train/loss"], row["tokens"]) for row in second] == [(30, 30.2, 240), (40, 40.2, 320)]
    assert one.run_id == two.run_id == "id123456"
    assert (one.project, one.display_name) == ("unroll", "run")
    config = {item.key: json.loads(item.value_json) for item in one.config.update}
    assert (config["git_commit"], config["dataset"]["checksum"], config["parameters"]) == ("c0ffee", "c0ffee", 12)
    assert config["from"] == {"run": "base", "step": 40}
    metrics = [r.metric for r in records(files[0]) if r.WhichOneof("record_type") == "metric"]
    assert [(m.glob_name, m.step_metric) for m in metrics if m.glob_name] == [("*", "step")]


def test_the_client_s_own_reader_makes_one_run_of_the_offline_files(written, server):
    live(written.attempt(0), "offline", 10, 20).finish()
    time.sleep(1.1)
    live(written.attempt(20), "offline", 30).finish()
    files = sorted(str(path) for path in written.run.path.glob("wandb/offline-run-*"))
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *files]
    subprocess.run(command, check=True, capture_output=True, timeout=scaled(60), cwd=written.run.path)
    assert list(server.rows) == ["id123456"]
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20, 30]


def test_online_attempts_with_a_rewind_are_one_run_without_gap_or_repeat(written, server):
    live(written.attempt(0), "online", 10, 20, 30).finish()
    written.samples(30)  # written while no client was running
    live(written.attempt(20), "online", 30, 40).finish()
    sent = server.rows["id123456"]
    assert list(server.rows) == ["id123456"]
    assert [(row["step"], row.get("train/loss")) for row in sent] == [(10, 10.1), (20, 20.1), (30, 30.1), (40, 40.2)]
    assert [row["_step"] for row in sent] == sorted({row["_step"] for row in sent})
    assert server.configs["id123456"]["parameters"] == {"value": 12}
    assert server.events  # the client measures the machine itself


def test_the_elements_of_an_array_are_runs_of_one_group(written, server):
    for number in (1, 2):
        written.run.write(wandb_id=f"element{number}")
        written.config(group="sweep")
        live(written.attempt(0), "online", 10).finish()
    groups = {(given["name"], given["groupName"]) for given in server.runs if given["groupName"]}
    assert groups == {("element1", "sweep"), ("element2", "sweep")}


def test_with_upload_the_files_of_a_checkpoint_are_sent_before_a_finished_run_ends(written, server):
    written.config(upload=True)
    place = written.run.path / "checkpoints" / "step-00000010"
    place.mkdir(parents=True)
    for name, text in {"manifest.json": "{}", "rank-00000.safetensors": "weights"}.items():
        (place / name).write_text(text)
    written.attempt(0).rows(10)
    written.event("checkpoint", 10, path="checkpoints/step-00000010", aliases=["last"], metrics={})
    start(written, "online").finish()
    [digest] = [one for one, made in server.artifacts.items() if made["artifactTypeName"] == "checkpoint"]
    assert digest in server.committed
    assert server.files["rank-00000.safetensors"] == b"weights"


def clients():
    """Return the ids of the client's processes that are children of this one."""
    found = []
    for child in [child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()]:
        with suppress(OSError):  # it ended
            found += [child] if Path(f"/proc/{child}/exe").readlink().name == "wandb-core" else []
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks up children in /proc")
def test_training_does_not_wait_for_a_hanging_server_and_leaves_no_client_behind(written, server, monkeypatch):
    monkeypatch.setattr(wandb_logger, "LEAVING", 2.0)
    server.hang = True
    logger = live(written.attempt(0), "online", *range(100))
    until(lambda: server.bodies)
    with pytest.warns(UserWarning, match="100 rows of run run have not arrived in Weights & Biases: `unroll sync "):
        logger.finish(75)
    assert server.rows == {}
    assert clients() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks up children in /proc")
def test_training_survives_the_death_of_the_client_s_process(written, monkeypatch):
    monkeypatch.setattr(wandb_logger, "LEAVING", 3.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "offline", 10)
        until(clients)
        wandb_logger.end_client()
        for step in range(20, 30):
            written.rows(step)
            logger.log_metrics({}, step)
        logger.finish()
    assert len([one for one in caught if "`unroll sync " in str(one.message)]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="uses prlimit to simulate a full disk for the client")
def test_a_full_disk_for_the_client_loses_no_row(written, server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = live(written.attempt(0), "offline", 10)
        until(clients)
        for client in clients():
            resource.prlimit(int(client), resource.RLIMIT_FSIZE, (0, 0))
        written.rows(20, 30)
        logger.log_metrics({}, 30)
        logger.finish()
    assert sync.main([str(written.run.path)]) == 0
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20, 30]


@pytest.mark.parametrize("status", [401, 500])
def test_a_rejecting_server_is_reported_once_and_retried(written, server, monkeypatch, status):
    monkeypatch.setattr(wandb_logger, "WAIT", 0.2)
    monkeypatch.setattr("pipeline.tracking.wandb_session.INIT", 2)
    server.refuse = {"": status}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "online", 10, 20)
        until(lambda: caught)
        server.refuse = {}
        until(lambda: (written.run.path / "wandb" / "sent").exists())
        logger.finish()
    assert sum("`unroll sync " in str(one.message) for one in caught) == 1
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20]


def test_a_broken_client_does_not_fail_training(written, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")

    def broken(**_):
        raise OSError("No space left for secret-key")

    monkeypatch.setattr(wandb, "init", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "offline", 10)
        until(lambda: caught)
        logger.finish()
    assert [str(one.message).split(": ", 1)[1] for one in caught] == ["OSError: No space left for ***"]


def test_everything_stays_under_the_run_directory_and_nothing_is_printed(written, server, capfd):
    live(written.attempt(0).samples(0), "online", 10).finish()
    assert list((written.run.path.parent / "home").rglob("*")) == []
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
