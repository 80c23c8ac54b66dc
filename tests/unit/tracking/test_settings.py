"""Offline unless a wish and a key are there; nothing that is shown or kept holds a key."""

import pytest

from pipeline.tracking.redact import describe, without_keys
from pipeline.tracking.settings import has_key, wanted_mode
from pipeline.tracking.wandb_logger import wandb_logger


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


def test_disabled_gives_no_logger(written, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = sorted(written.run.path.iterdir())
    assert wandb_logger(written.run) is None
    assert sorted(written.run.path.iterdir()) == before


def test_no_error_message_shows_a_key(monkeypatch):
    for secret in ("0123456789abcdef" * 3, "wandb_v1_abcDEF123", "https://user:word@host/x"):
        told = describe(ValueError(f"refused {secret}."))
        assert secret not in told
        assert told.startswith("ValueError: refused ")
    assert "word" not in told
    for secret in ("hf_" + "a1" * 17, "ghp_" + "b2" * 18, "sk-proj-" + "c3" * 20, "AKIA" + "D4" * 8):
        assert without_keys(f"key='{secret}'") == "key='***'"
    assert without_keys("disk-and-task-and-more-words-that-are-long") == "disk-and-task-and-more-words-that-are-long"
    monkeypatch.setenv("WANDB_API_KEY", "local-short")
    assert without_keys("key = 'local-short'") == "key = '***'"
