"""Redaction of API keys and of passwords in URLs from everything that is written or shown."""

import os
import re

OTHERS = r"hf_\w{20,}|gh[a-z]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}"  # of other services
KEY = re.compile(rf"\b(wandb_v\d\w+|[0-9a-f]{{40,}}|{OTHERS}|[^\s/@]+:[^\s/@]+(?=@))")


def without_keys(text: str) -> str:
    """Return the text with secrets redacted."""
    key = os.environ.get("WANDB_API_KEY")
    return KEY.sub("***", text.replace(key, "***") if key else text)


def error_line(error: BaseException) -> str:
    """Return the type and message of an error, on one line and with secrets redacted."""
    return without_keys(" ".join(f"{type(error).__name__}: {error}".split()))
