"""`unroll sync` makes one continuous run of attempts without a network, and uploads their artifacts."""

import fcntl
import json
import os
import threading
import time
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import sync
from pipeline.errors import ConfigError
from pipeline.evaluation.plots.spectrogram import with_spectrogram
from pipeline.runs.journal import FILE
from pipeline.tracking import progress
from pipeline.tracking.artifacts import PATCH
from pipeline.tracking.journal_logger import JournalLogger


def checkpoint(written, step, *aliases):
    """Publish a checkpoint."""
    place = f"checkpoints/step-{step:08d}"
    (written.run.path / place).mkdir(parents=True)
    (written.run.path / place / "manifest.json").write_text(json.dumps({"step": step, "files": {}}))
    (written.run.path / place / "rank-00000.safetensors").write_text(f"weights {step}")
    written.event("checkpoint", step, path=place, aliases=aliases, metrics={"val/loss": 1 / step})


def model(written):
    """Export a model."""
    place = written.run.path.parent / "exported"
    place.mkdir()
    for name in ("README.md", "config.yaml", "model.safetensors"):
        (place / name).write_text(name)
    written.event("model", 30, path=str(place), metrics={})


def aliases(server, name):
    """Return the aliases of each version of an artifact, in the order of creation."""
    versions = [made for made in server.artifacts.values() if made["artifactCollectionName"] == name]
    return [{alias["alias"] for alias in made["aliases"]} for made in versions]


def test_attempts_become_one_run_without_gaps_or_repeats_and_a_second_sync_sends_nothing(written, server, capsys):
    written.attempt(0).rows(10, 20, 30).attempt(20).rows(30, 40).samples(40).attempt(40).rows(50)
    run = str(written.run.path)
    for lines in (6, 0):
        assert sync.main([run]) == 0
        assert f"{lines} lines" in capsys.readouterr().out
    sent = server.rows["id123456"]
    assert [row["step"] for row in sent] == [10, 20, 30, 40, 40, 50]
    assert [row["train/loss"] for row in sent if "train/loss" in row] == [10.1, 20.1, 30.2, 40.2, 50.3]
    written.rows(60)
    assert sync.main([run]) == 0
    assert server.rows["id123456"][-1]["step"] == 60
    assert [row["attempt"] for row in sent] == [1, 1, 2, 2, 2, 3, 3]
    assert server.events == []  # no system metrics: this machine did not train


def test_rows_carry_the_time_of_their_measurement(written, server):
    written.attempt(0).rows(10)
    assert sync.main([str(written.run.path)]) == 0
    time_of_row = json.loads((written.run.path / FILE).read_text().splitlines()[1])["time"]
    assert server.rows["id123456"][0]["_timestamp"] == datetime.fromisoformat(time_of_row).timestamp()


def test_the_table_of_samples_holds_the_latest_of_all_steps(written, server, monkeypatch):
    monkeypatch.setattr("pipeline.tracking.wandb_payloads.SAMPLES_SHOWN", 3)
    written.attempt(0)
    for step in range(1, 6):
        written.samples(step)
    assert sync.main([str(written.run.path)]) == 0
    tables = [json.loads(body)["data"] for name, body in server.files.items() if name.endswith("table.json")]
    last = max(tables, key=lambda data: data[-1][0])
    assert last == [[step, "p", f"text {step}"] for step in (3, 4, 5)]


def test_histograms_of_gradients_are_histograms(written, server):
    written.attempt(0).event("gradients", 10, gradients={"weight": {"counts": [1, 2], "edges": [0.0, 0.5, 1.0]}})
    assert sync.main([str(written.run.path)]) == 0
    [row] = server.rows["id123456"]
    assert row["gradients/weight"] == {"_type": "histogram", "values": [1, 2], "bins": [0.0, 0.5, 1.0]}


def test_a_diagnosis_is_tables_and_numbers(written, server):
    gates = {"layers.0 renew_id": {"mean": 0.5, "low": 0.25, "high": 0.0}}
    found = {"gradient": [1.0, 0.5], "loss": [None, 2.0], "gates": gates, "attention": {}, "memory": 1, "field": 2}
    written.attempt(0).event("diagnosis", 10, diagnosis=found)
    assert sync.main([str(written.run.path)]) == 0
    [row] = server.rows["id123456"]
    assert (row["diagnosis/effective_memory"], row["diagnosis/receptive_field"]) == (1, 2)
    tables = [json.loads(body)["data"] for name, body in server.files.items() if name.endswith("table.json")]
    expected = [[0, 1.0], [1, 0.5]], [[0, None], [1, 2.0]], [["layers.0 renew_id", 0.5, 0.25, 0.0]]
    assert all(table in tables for table in expected)
    assert "diagnosis/attention" not in row


def test_pictures_are_pictures(written, server):
    written.attempt(0)
    journal = JournalLogger(written.run.path)
    journal.log_pictures([Image.new("RGB", (5, 4))], 10)
    journal.log_drawing("forecast", "<svg></svg>", 10)
    assert sync.main([str(written.run.path)]) == 0
    row, drawing = server.rows["id123456"]
    assert (drawing["step"], drawing["forecast"]["_type"]) == (10, "html-file")
    assert (row["step"], row["attention/1"]["width"], row["attention/1"]["height"]) == (10, 5, 4)


def test_sounds_are_sent_with_their_spectrograms(written, server):
    written.attempt(0)
    tone = np.sin(np.arange(800) / 4).astype(np.float32) / 2
    JournalLogger(written.run.path).log_sounds([with_spectrogram(tone, 8000)], 10)
    assert sync.main([str(written.run.path)]) == 0
    [row] = server.rows["id123456"]
    assert (row["step"], row["sounds/1"]["_type"]) == (10, "audio-file")
    assert (row["spectrograms/1"]["width"], row["spectrograms/1"]["height"]) == (3 * 7, 3 * 129)


def test_dataset_checkpoints_and_model_are_artifacts_of_the_run_by_reference(written, server):
    written.attempt(0).rows(10)
    checkpoint(written, 10, "last", "best")
    written.rows(20)
    checkpoint(written, 20, "last")
    model(written)
    (written.run.path / PATCH).write_text("diff")
    assert sync.main([str(written.run.path)]) == 0
    made = {one["artifactTypeName"]: digest for digest, one in server.artifacts.items()}
    assert set(made) == {"dataset", "checkpoint", "model", "code"}
    assert server.used == [made["dataset"]]
    assert json.loads(server.artifacts[made["dataset"]]["metadata"])["checksum"] == "c0ffee"
    makers = {one["artifactTypeName"]: one["runName"] for one in server.artifacts.values()}
    assert makers == {"dataset": None, "checkpoint": "id123456", "model": "id123456", "code": "id123456"}
    assert aliases(server, "run-checkpoint") == [{"latest", "last", "best"}, {"latest", "last"}]
    assert set(server.committed) == set(server.artifacts)
    listed = json.loads(server.files[f"{made['model']}.manifest"])["contents"]
    where = (written.run.path.parent / "exported" / "model.safetensors").as_uri()
    assert listed["files/model.safetensors"]["ref"] == where
    assert not any(name.endswith("safetensors") for name in server.files)


def test_a_checkpoint_that_was_removed_is_not_an_artifact(written, server):
    written.attempt(0).rows(10).event("checkpoint", 10, path="checkpoints/step-00000010", aliases=["last"], metrics={})
    assert sync.main([str(written.run.path)]) == 0
    assert aliases(server, "run-checkpoint") == []


def test_upload_sends_the_files_of_the_last_and_the_best_checkpoint(written, server):
    written.attempt(0).rows(10)
    for step, names in ((10, ("last", "best")), (20, ("last",)), (30, ("last",))):
        checkpoint(written, step, *names)
    model(written)
    assert sync.main([str(written.run.path), "--upload"]) == 0
    sent = {body.split(b"\n", 1)[1] for body in server.bodies if b".safetensors\n" in body}
    assert {b"weights 10", b"weights 30", b"model.safetensors"} <= sent


def test_a_run_is_followed_until_it_has_finished(written, server):
    written.attempt(0).rows(10)
    written.run.write(attempts=[{"number": 1, "reason": None}])

    def finish_training():
        while not (written.run.path / "wandb" / "sent").exists():
            time.sleep(0.05)
        written.rows(20)
        written.run.write(attempts=[{"number": 1, "reason": "finished"}])

    training = threading.Thread(target=finish_training)
    training.start()
    assert sync.main([str(written.run.path), "--watch", "--every", "0.1"]) == 0
    training.join()
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20]


def test_two_processes_never_send_one_run(written, server):
    written.attempt(0).rows(10)
    (written.run.path / "wandb").mkdir()
    held = (written.run.path / "wandb" / ".lock").open("a")
    child = os.fork()
    if child == 0:
        fcntl.lockf(held, fcntl.LOCK_EX)
        time.sleep(60)
        os._exit(0)
    try:
        while True:
            try:
                fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(held, fcntl.LOCK_UN)
            except OSError:
                break
        with pytest.raises(ConfigError, match="another process is sending this run"):
            sync.main([str(written.run.path)])
        assert server.rows == {}
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_missing_key_or_server_is_reported_in_one_line(written, server, monkeypatch):
    written.attempt(0).rows(10)
    monkeypatch.setattr(sync, "PATIENCE", 2.0)
    server.refuse = {"": 401}
    with pytest.raises(ConfigError, match="could not be sent") as raised:
        sync.main([str(written.run.path)])
    assert "5ecre7" not in str(raised.value)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ConfigError, match="API key not found"):
        sync.main([str(written.run.path)])
    with pytest.raises(ConfigError, match="--watch: expected one RUN"):
        sync.main(["a", "b", "--watch"])


def test_a_server_that_cannot_be_reached_is_named_at_once_and_the_missing_rows_are_counted(
    written, server, monkeypatch, capsys
):
    monkeypatch.setattr(sync, "PATIENCE", 0.5)
    monkeypatch.setattr(sync, "AGAIN", 0.2)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    written.attempt(0).rows(10, 20)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"2 rows are missing .*: .*Connection refused.* Run `unroll sync"):
        sync.main([str(written.run.path)])
    assert time.monotonic() - began < 10
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("run run: ServerError: request to http://127.0.0.1:9/graphql failed")
    assert first.endswith("retrying in 0.2 s")


def test_a_server_that_accepts_nothing_is_reported_while_waiting(written, server, monkeypatch, capsys):
    monkeypatch.setattr(sync, "PATIENCE", 3.0)
    monkeypatch.setattr(progress, "QUIET", 0.2)
    monkeypatch.setattr(progress, "PAUSE", 0.2)
    server.refuse = {"file_stream": 429}
    written.attempt(0).rows(10, 20)
    with pytest.raises(ConfigError, match=r"2 rows are missing in Weights & Biases: .*received nothing for 3 s"):
        sync.main([str(written.run.path)])
    assert f"run run: waiting for {server.address}, 2 rows are left\n" in capsys.readouterr().out
    server.refuse = {}
    assert sync.main([str(written.run.path)]) == 0
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20]


def test_artifacts_without_an_answer_do_not_hold_the_rows_back(written, server, monkeypatch, capsys):
    monkeypatch.setattr(sync, "PATIENCE", 2.0)
    server.refuse = {"mutation CreateArtifact ": 500}  # the client then repeats its request for minutes
    written.attempt(0).rows(10, 20)
    assert sync.main([str(written.run.path)]) == 0
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20]
    assert "no answer to the artifacts in 2 s; sending the rows without them" in capsys.readouterr().out


def test_no_file_and_no_request_holds_the_key(written, server, tmp_path):
    written.attempt(0).rows(10).samples(10)
    checkpoint(written, 10, "last", "best")
    assert sync.main([str(written.run.path), "--upload"]) == 0
    key = b"5ecre7" * 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if key in path.read_bytes()] == []
    assert [body for body in server.bodies if key in body] == []
    assert len(files) > 10


def test_an_unreadable_picture_does_not_hold_up_later_lines(written, server, capsys):
    written.attempt(0).rows(10)
    (written.run.path / "pictures").mkdir()
    (written.run.path / "pictures" / "torn.png").write_bytes(b"half of")
    written.event("pictures", 10, pictures={"attention/1": "pictures/torn.png"}).rows(20)
    assert sync.main([str(written.run.path)]) == 0
    assert [row["step"] for row in server.rows["id123456"]] == [10, 20]
    assert "UnidentifiedImageError" in capsys.readouterr().out
