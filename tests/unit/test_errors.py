"""A failure in training gets the exit code of its class, and advice if there is any."""

import pytest
import torch

from pipeline import errors
from pipeline.errors import ConfigError, LostPeerError, OutOfMemoryError, UserError, classify


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_out_of_memory_comes_with_advice(error: Exception, processes: int) -> None:
    found = classify(error, processes)
    assert isinstance(found, OutOfMemoryError)
    for advice in ("per_device_batch_size", "accumulated", "checkpointing", "zero3"):
        assert advice in str(found)


def test_a_torn_connection_is_a_lost_peer_where_there_are_peers() -> None:
    error = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:8596")
    assert isinstance(classify(error, 2), LostPeerError)
    assert classify(error, 1) is error


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 28237) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 12, 13) exited unexpectedly",
    ],
)
def test_a_killed_loader_worker_is_a_lost_process_on_any_number_of_processes(message: str) -> None:
    assert [type(classify(RuntimeError(message), processes)) for processes in (1, 2)] == [LostPeerError] * 2
    caught = RuntimeError("Caught ValueError in DataLoader worker process 0.")
    assert classify(caught, 1) is caught


@pytest.mark.parametrize("error", [ConfigError("no such key"), ValueError("shape"), RuntimeError("size mismatch")])
def test_other_errors_are_returned_unchanged(error: Exception) -> None:
    assert classify(error, 2) is error


def test_every_class_has_an_exit_code_of_its_own_and_both_tables_name_it() -> None:
    from pathlib import Path

    classes = [UserError, *UserError.__subclasses__()]  # subclasses of these share the exit code of their base
    codes = {found.exit_code: found for found in classes}
    assert len(codes) == len(classes)
    assert errors.TRY_AGAIN not in codes
    page = (Path(__file__).parent.parent.parent / "docs/training.md").read_text()
    for code, found in codes.items():
        assert f"| {code} | " in page
        if found is not UserError:
            assert f"| {code} | {found.__name__} |" in (errors.__doc__ or "")


def test_data_in_a_message_makes_one_line_that_can_be_printed() -> None:
    assert errors.one_line("a\r\n\u2028\x1b[31m é\ud800\u200d") == "a\\r\\n\\u2028\\x1b[31m é\\ud800\u200d"
    assert errors.one_line("abcdef", 3) == "abc..."
