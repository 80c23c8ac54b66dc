"""Whatever the W&B server or its client does, no row is missing in the end and none arrives twice."""

import sys
import warnings

import pytest

from pipeline.commands import sync
from pipeline.errors import ConfigError
from pipeline.tracking import arrivals, wandb_logger
from pipeline.tracking.wandb_logger import PatientWandbLogger
from tests.unit.tracking.live import live, until


def losses(server, run="id123456"):
    """Return the steps of the rows that the server has, in its order."""
    return [row["step"] for row in server.rows[run] if "train/loss" in row]


def messages(caught):
    return [str(one.message) for one in caught]


@pytest.fixture
def hurried(monkeypatch):
    """Shorten all waits of the logger."""
    for name, seconds in {"CHECK": 1.5, "WAIT": 0.2, "PACE": 0.05, "SHIPPING": 0.5, "LEAVING": 8.0}.items():
        monkeypatch.setattr(wandb_logger, name, seconds)
    monkeypatch.setattr("pipeline.tracking.wandb_session.FINISH", 2.0)
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "1")  # the client sends every 15 s


def test_rows_that_a_server_does_not_accept_are_counted_and_sent_by_sync(written, server, monkeypatch, hurried):
    monkeypatch.setattr(wandb_logger, "LEAVING", 4.0)
    server.refuse = {"file_stream": 429}
    with pytest.warns(UserWarning, match="3 rows of run run have not arrived in Weights & Biases: `unroll sync /"):
        live(written.attempt(0), "online", 10, 20, 30).finish()
    assert server.rows == {"id123456": []}
    server.refuse = {}
    assert sync.main([str(written.run.path)]) == 0
    assert losses(server) == [10, 20, 30]


def test_a_slow_server_receives_each_row_once(written, server, hurried):
    server.delay = 0.1
    logger = live(written.attempt(0), "online", 10, 20, 30)
    until(lambda: (written.run.path / "wandb" / "sent").exists())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.finish()
    assert losses(server) == [10, 20, 30]


@pytest.mark.parametrize("status", [403, 500])
def test_an_artifact_that_is_refused_does_not_end_the_rows(written, server, hurried, status):
    server.refuse = {"mutation CreateArtifact ": status}  # after 500 the client repeats its request for minutes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "online", 10)
        until(lambda: any(b"CreateArtifact " in body for body in server.bodies))
        written.rows(20, 30)
        logger.log_metrics({}, 30)
        logger.finish()
    assert losses(server) == [10, 20, 30]
    refused = [text for text in messages(caught) if "did not accept the artifact of the dataset" in text]
    assert len(refused) == len(caught) == (1 if status == 403 else 0)


def test_a_deleted_run_is_reported_once_and_gets_a_new_id(written, server, hurried):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "online", 10, 20)
        until(lambda: losses(server) if "id123456" in server.rows else [])
        server.delete("id123456")
        until(lambda: any("deleted" in text for text in messages(caught)))
        written.rows(30)
        logger.log_metrics({}, 30)
        logger.finish()
    [text] = [text for text in messages(caught) if "gets no more rows" in text]
    assert "W&B run unroll/id123456 was deleted" in text
    assert f"`unroll sync {written.run.path} --new-id`" in text
    with pytest.raises(ConfigError, match="--new-id"):
        sync.main([str(written.run.path)])
    assert sync.main([str(written.run.path), "--new-id"]) == 0
    [new] = server.rows
    assert new != "id123456"
    assert losses(server, new) == [10, 20, 30]


def test_a_deleted_run_is_recognized_by_the_server_s_refusal(written, server, monkeypatch):
    monkeypatch.setattr(sync, "PATIENCE", 2.0)
    written.attempt(0).rows(10)
    server.deleted.add("id123456")  # sent from another copy of the run, so nothing is known here
    with pytest.raises(ConfigError, match=r"id123456 was deleted.*--new-id"):
        sync.main([str(written.run.path)])


def test_rows_that_the_server_forgot_are_sent_again_by_the_next_attempt(written, server):
    live(written.attempt(0), "online", 10, 20, 30).finish()
    server.rewind("id123456", 1)
    live(written.attempt(30), "online", 40).finish()
    assert losses(server) == [10, 20, 30, 40]


def test_a_stream_that_the_server_ended_begins_again(written, server, hurried):
    logger = live(written.attempt(0), "online", 10)
    until(lambda: losses(server) if "id123456" in server.rows else [])
    server.refuse = {"file_stream": 403}  # the client then drops all rows without an error
    written.rows(20, 30)
    logger.log_metrics({}, 30)
    until(lambda: any(b"file_stream" in body and b"30.1" in body for body in server.bodies))
    server.refuse = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        until(lambda: losses(server) == [10, 20, 30])
        logger.finish()
    assert losses(server) == [10, 20, 30]
    assert "have not arrived" not in "".join(messages(caught))


@pytest.mark.skipif(sys.platform != "linux", reason="looks up children in /proc")
def test_rows_of_a_killed_client_arrive_once(written, server, hurried):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "online", 10, 20)
        until(lambda: (written.run.path / "wandb" / "sent").exists())
        wandb_logger.end_client()
        written.rows(30)
        logger.log_metrics({}, 30)
        until(lambda: losses(server) == [10, 20, 30])
        logger.finish()
    assert losses(server) == [10, 20, 30]
    assert len(caught) <= 2  # of the artifact and of the row that the killed client was sending


def test_the_end_of_a_run_tries_once_more_instead_of_waiting(written, server):
    server.refuse = {"": 503}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = live(written.attempt(0), "online", 10, 20)
        until(lambda: caught)
        server.refuse = {}
        logger.finish()  # within a back-off of a minute
    assert len(caught) == 1
    assert losses(server) == [10, 20]


def test_the_back_off_begins_again_after_a_success(written, monkeypatch):
    logger = PatientWandbLogger(written.run, "online")
    waits = []
    monkeypatch.setattr(logger._ending, "wait", lambda seconds: waits.append(seconds) or len(waits) > 5)
    written.attempt(0)
    (written.run.path / "wandb").mkdir()

    def send():
        if len(waits) == 3:  # some rows arrive before this failure
            arrivals.remember(written.run, "me", 7)
        if len(waits) == 5:
            return True
        raise OSError("no network")

    monkeypatch.setattr(logger, "_send", send)
    with pytest.warns(UserWarning, match="no network"):
        logger._work()
    assert waits == [60, 120, 240, 60, 120]
