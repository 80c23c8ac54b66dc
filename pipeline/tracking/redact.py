"""No key of Weights & Biases, and no password of an address, in anything that is written or shown."""

import os
import re

OTHERS = r"hf_\w{20,}|gh[a-z]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}"  # of those that code may hold
KEY = re.compile(rf"\b(wandb_v\d\w+|[0-9a-f]{{40,}}|{OTHERS}|[^\s/@]+:[^\s/@]+(?=@))")


def without_keys(text: str) -> str:
    """The text with whatever looks like a key struck out."""
    key = os.environ.get("WANDB_API_KEY")
    return KEY.sub("***", text.replace(key, "***") if key else text)


def error_line(error: BaseException) -> str:
    """Type and message of an error, on one line and without keys."""
    return without_keys(" ".join(f"{type(error).__name__}: {error}".split()))
