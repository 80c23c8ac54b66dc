"""Load a trained model for `unroll generate`: its task, its weights, its tokenizer and its labels."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.errors import CheckpointError, ConfigError

EOS, UNK = "<eos>", "<unk>"


class Trained(NamedTuple):
    """A run or an exported model, without weights."""

    name: str
    """The user's argument."""
    run: Path
    task: Any
    """Built on the meta device, for its class attributes."""

    @classmethod
    def find(cls, name: str) -> "Trained":
        """Build the task of a run or an exported model from its config.

        Raises:
            CheckpointError: the run does not exist, or its config is damaged.
        """
        import torch

        from pipeline.runs import export
        from pipeline.runs.load import skeleton
        from pipeline.runs.run import find_run

        if not export.is_exported(Path(name)):
            return cls(name, run := find_run(name), skeleton(run))
        with torch.device("meta"):
            return cls(name, Path(name), export.build(Path(name)))

    def __str__(self) -> str:
        return f"{self.run} ({type(self.task).__name__})"


def open_model(name: str, checkpoint: str) -> tuple[Path, Any, str]:
    """Load a run or an exported model; return its directory, the model in eval mode, and its device.

    Raises:
        CheckpointError: the run or its checkpoint does not exist.
        ConfigError: a checkpoint is selected for an exported model, which has only one.
    """
    import torch

    from pipeline.runs import export
    from pipeline.runs.load import load_model
    from pipeline.runs.run import find_run

    whole = export.is_exported(Path(name))
    if whole and checkpoint != "best":
        raise ConfigError(f"--checkpoint={checkpoint}: the exported model {name} has no checkpoints. Omit --checkpoint")
    run = Path(name) if whole else find_run(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return run, (export.load_export(run) if whole else load_model(run, checkpoint)).to(device), device


def vocabulary(file: Path) -> tuple[Tokenizer, int]:
    """Read a tokenizer; return it with its EOS token.

    Raises:
        CheckpointError: the file is missing, damaged or not made by `unroll prepare`.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions
        raise CheckpointError(f"{file} cannot be read ({error}). Copy it from the dataset of the run") from error
    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        raise CheckpointError(f"{file} has no {EOS} token. Copy the tokenizer from the dataset of the run")
    tokenizer.encode_special_tokens = True  # as in preparation: special tokens in a prompt are plain text
    return tokenizer, eos


def labels_of(tokenizer: Tokenizer) -> list[str]:
    """Return the labels of a dataset, in the order of their classes."""
    return sorted(set(tokenizer.get_vocab()) - {EOS, UNK})


def unknown_label(run: Path, labels: list[str]) -> str:
    """Return the part of an error message that lists the labels of a run."""
    known = f"choose from {', '.join(labels)}" if labels else "omit --prompt, as it was trained without labels"
    return f"not a label of {run}; {known}"


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a text; print a warning for words that are not in the vocabulary."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.token_to_id(UNK)
    spans = zip(encoding.ids, encoding.offsets, strict=True)
    lacking = dict.fromkeys(text[start:stop] for token, (start, stop) in spans if token == unknown)
    lacking.pop(UNK, None)  # typed by the user
    if lacking:
        words = ", ".join(map(repr, lacking))
        print(f"unroll: warning: not in the vocabulary, read as {UNK}: {words}", file=sys.stderr)
    return list(encoding.ids)
