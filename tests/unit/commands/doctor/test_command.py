"""`unroll doctor` reports problems with their fixes, and returns 1 if there are any."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands.doctor import bandwidth, checks
from pipeline.commands.doctor import command as doctor
from pipeline.commands.doctor.checks import FAIL, OK, WARN, Finding

GOOD = dict.fromkeys(checks.PACKAGES, "1.0")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_a_healthy_machine_is_reported_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "collective", lambda gpus: Finding("collective", OK, f"{gpus} GPUs"))
    monkeypatch.setattr(checks, "query_scheduler", lambda: None)
    monkeypatch.setattr(checks, "query_driver", lambda: "")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert doctor.main(["--runs", str(tmp_path / "runs"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["packages", "devices", "kernels", "shared memory", "open files", "file system", "ports", "W&B", "Slurm"]
    names.append("collective")
    assert [each["name"] for each in found] == names
    assert {each["host"] for each in found} == {socket.gethostname()}
    assert FAIL not in {each["verdict"] for each in found}
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_returns_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(gpus: int) -> float:
        raise RuntimeError("no response\nat all")

    monkeypatch.setattr(bandwidth, "measure_bandwidth", refuse)
    assert doctor.main(["--runs", str(tmp_path)]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if "collective" in line]
    assert line.startswith("FAIL  collective     gloo: no response -> set NCCL_DEBUG=INFO")


def test_the_bandwidth_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    assert bandwidth.measure_bandwidth(0) > 0


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_malicious_release_is_named(version: str) -> None:
    assert checks.versions(GOOD).verdict == OK
    found = checks.versions({**GOOD, "lightning": version})
    assert (found.verdict, found.detail) == (FAIL, f"lightning {version} is a malicious release")


def test_a_missing_package_is_named() -> None:
    found = checks.versions({**GOOD, "wandb": None})
    assert (found.verdict, found.detail, found.fix) == (FAIL, "not installed: wandb", "run `make setup`")


def test_gpus_that_torch_does_not_see_are_a_failure() -> None:
    assert checks.device_libraries(4, 4, "12.4").verdict == OK
    assert checks.device_libraries(0, 0, None).verdict == OK
    assert "make setup TORCH" in checks.device_libraries(0, 4, None).fix
    assert checks.device_libraries(2, 4, "12.4").verdict == FAIL


def test_each_gpu_is_checked_by_the_report_of_its_driver() -> None:
    rows = "0, H100, 80000, 4, 31, 0\n1, H100, 80000, 4, 31, 3\n2, H100, 80000, 9000, 60, [N/A]\n"
    found = checks.health(f"{rows}3, GB10, [N/A], [N/A], 40, 0\n")
    verdicts = [("GPU 0", OK), ("GPU 1", FAIL), ("GPU 2", WARN), ("GPU 3", OK)]
    assert [(each.name, each.verdict) for each in found] == verdicts
    assert "3 uncorrected memory errors" in found[1].detail


def test_a_file_system_without_space_or_permission_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SLOW", 0)
    monkeypatch.setattr(checks, "PROBE", 2**20)
    monkeypatch.setattr(checks, "ROOM", 1e30)
    assert checks.check_file_system(tmp_path).verdict == FAIL
    monkeypatch.setattr(checks, "ROOM", 0)
    monkeypatch.setattr(checks, "SHORT", 0)
    assert checks.check_file_system(tmp_path / "not" / "there").verdict == OK
    monkeypatch.setattr(checks, "SLOW", 1e30)
    assert checks.check_file_system(tmp_path).verdict == WARN
    (file := tmp_path / "file").touch()
    assert checks.check_file_system(file).verdict == FAIL


def test_little_shared_memory_and_few_files_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SHARED", 1e30)
    assert checks.shared_memory(tmp_path).verdict == WARN
    monkeypatch.setattr(checks, "FILES", 10**9)
    monkeypatch.setattr(checks.resource, "getrlimit", lambda _: (1024, 4096))
    assert checks.open_files() == Finding("open files", WARN, "limit 1024", "run `ulimit -n 4096`")


def test_a_port_that_is_taken_is_a_failure(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.socket, "gethostbyname", lambda _: "10.0.0.1")
    assert checks.network(None).verdict == OK
    taken = checks.network(server.getsockname()[1])
    assert taken.verdict == FAIL
    assert "MASTER_PORT" in taken.fix
    monkeypatch.setattr(checks.socket, "gethostbyname", lambda _: "127.0.1.1")
    assert checks.network(None).verdict == WARN


def test_an_unreachable_wandb_server_is_only_a_warning(server: socket.socket) -> None:
    where = {"WANDB_MODE": "online", "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
    assert checks.tracking({}, key=False).verdict == OK
    assert "onlin is not a mode" in checks.tracking({"WANDB_MODE": "onlin"}, key=True).detail
    assert checks.tracking(where, key=False).fix == "wandb login"
    assert checks.tracking(where, key=True).verdict == OK
    server.close()
    assert "cannot be reached" in checks.tracking(where, key=True).detail


def test_a_cluster_without_time_to_save_is_a_warning() -> None:
    config = "ClusterName             = big\nKillWait                = {} sec\nSLURM_VERSION           = 23.11.4\n"
    assert [each.verdict for each in checks.scheduler(config.format(30))] == [OK]
    slow = checks.scheduler(config.format(5))
    assert [each.verdict for each in slow] == [OK, WARN]
    assert slow[0].detail == "23.11.4, cluster big"
