"""Tracking is offline without WANDB_MODE=online and a key; no output and no file contains a key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb.sdk.lib.wbauth import write_netrc_auth

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.tracking.redact import error_line, without_keys
from pipeline.tracking.settings import api_key, has_key, record_variables, tracking_mode, wandb_labels
from pipeline.tracking.wandb_logger import wandb_logger
from pipeline.tracking.wandb_session import files_in
from tests.unit.tracking.conftest import KEY


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
def test_online_requires_both_a_key_and_the_mode(environment, mode, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking_mode() == mode


def test_another_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(ConfigError, match="WANDB_MODE=onlin: expected online, offline or disabled, got onlin"):
        tracking_mode()


def test_settings_that_the_client_rejects_are_one_error(written):
    written.config(project="a/b")
    with pytest.raises(ConfigError, match=r"tracking: .*'a/b'"):
        wandb_logger(written.run)


def test_online_without_a_key_warns_and_is_offline(monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.warns(UserWarning, match="no API key"):
        assert tracking_mode() == "offline"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("server", ["https://api.wandb.ai", "https://wandb.example.org", "http://localhost:8080"])
def test_a_key_of_wandb_login_counts_for_its_server_only(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    write_netrc_auth(host=server, api_key=KEY)  # as `wandb login` does
    monkeypatch.setenv("WANDB_BASE_URL", server + "/")
    assert api_key() == KEY
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "another")
    assert api_key() == "another"


@pytest.mark.parametrize("password", ["short", "not a key", ""])
@pytest.mark.parametrize("server", ["https://api.wandb.ai", "http://api.wandb.ai", "nonsense"])
def test_an_invalid_key_is_none(password, server, monkeypatch):
    Path(os.environ["HOME"], ".netrc").write_text(f"machine api.wandb.ai login user password {password}\n")
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert not has_key()


def test_the_client_is_not_imported_to_look_for_a_key():
    code = (
        "import sys; from pipeline.tracking.settings import has_key, tracking_mode\n"
        "print(tracking_mode(), has_key(), 'wandb' in sys.modules)"
    )
    environment = {**os.environ, "WANDB_API_KEY": KEY}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "offline True False\n"


def test_variables_of_the_client_count_and_the_config_wins(written, monkeypatch):
    names = ["PROJECT", "ENTITY", "RUN_GROUP", "NAME", "NOTES", "JOB_TYPE"]
    for name in names:
        monkeypatch.setenv(f"WANDB_{name}", name.lower())
    monkeypatch.setenv("WANDB_TAGS", "a, b")
    written.config(project=None)
    expected = {"project": "project", "entity": "entity", "group": "run_group", "tags": ["a", "b"], "name": "name"}
    expected |= {"notes": "notes", "job_type": "job_type"}
    assert wandb_labels(written.run) == expected
    record_variables(written.run)
    for name in [*names, "TAGS"]:
        monkeypatch.setenv(f"WANDB_{name}", "other")  # as on a login node that runs `unroll sync`
    record_variables(Run(written.run.path))
    assert wandb_labels(Run(written.run.path))["project"] == "project"
    written.config(project="mine", tags=["c"])
    assert wandb_labels(written.run) == {
        **expected,
        "notes": "notes",
        "job_type": "job_type",
        "project": "mine",
        "tags": ["c"],
    }


def test_without_config_and_variables_a_run_has_its_own_name(written):
    written.config(project=None)
    assert wandb_labels(written.run) == {"project": "unroll", "entity": None, "name": "run", "tags": []}


def test_the_files_of_the_client_are_where_the_variables_say(written, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_CACHE_DIR", "/elsewhere")
    before = dict(os.environ)
    with files_in(tmp_path):
        assert (os.environ["WANDB_CACHE_DIR"], os.environ["WANDB_DATA_DIR"]) == ("/elsewhere", str(tmp_path / "data"))
        assert os.environ["HOME"] == before["HOME"]
    monkeypatch.setenv("HOME", "/nowhere")
    with files_in(tmp_path):
        assert os.environ["HOME"] == str(tmp_path)
    assert dict(os.environ) == {**before, "HOME": "/nowhere"}


def test_disabled_gives_no_logger(written, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = sorted(written.run.path.iterdir())
    assert wandb_logger(written.run) is None
    assert sorted(written.run.path.iterdir()) == before


def test_no_error_message_contains_a_key(monkeypatch):
    for secret in ("0123456789abcdef" * 3, "wandb_v1_abcDEF123", "https://user:word@host/x"):
        line = error_line(ValueError(f"refused {secret}."))
        assert secret not in line
        assert line.startswith("ValueError: refused ")
    assert "word" not in line
    for secret in ("hf_" + "a1" * 17, "ghp_" + "b2" * 18, "sk-proj-" + "c3" * 20, "AKIA" + "D4" * 8):
        assert without_keys(f"key='{secret}'") == "key='***'"
    assert without_keys("disk-and-task-and-more-words-that-are-long") == "disk-and-task-and-more-words-that-are-long"
    monkeypatch.setenv("WANDB_API_KEY", "local-short")
    assert without_keys("key = 'local-short'") == "key = '***'"
