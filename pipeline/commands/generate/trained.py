"""A trained model that `unroll generate` uses: what it is, then its weights, its tokenizer and its labels."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from pipeline.errors import CheckpointError, ConfigError

EOS, UNK = "<eos>", "<unk>"


class Trained(NamedTuple):
    """A run or an exported model whose weights are not read yet."""

    name: str
    """As the user gives it."""
    run: Path
    task: Any
    """Without storage for its weights: for what it declares."""

    @classmethod
    def find(cls, name: str) -> "Trained":
        """Look at the config of a run or of an exported model.

        Raises:
            CheckpointError: there is none, or its config is damaged.
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
    """A run or an exported model: where it is, the model in eval mode, and the device it is on.

    Raises:
        CheckpointError: no such run or checkpoint.
        ConfigError: a checkpoint is asked for where there is none to choose.
    """
    import torch

    from pipeline.runs import export
    from pipeline.runs.load import load_model
    from pipeline.runs.run import find_run

    whole = export.is_exported(Path(name))
    if whole and checkpoint != "best":
        raise ConfigError(f"--checkpoint {checkpoint}: the exported model {name} has one set of weights")
    run = Path(name) if whole else find_run(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return run, (export.load_export(run) if whole else load_model(run, checkpoint)).to(device), device


def vocabulary(file: Path) -> tuple[Tokenizer, int]:
    """A run's tokenizer and its end mark.

    Raises:
        CheckpointError: there is none in the run.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions
        raise CheckpointError(f"{file} cannot be read ({error}): copy it from the dataset of the run") from error
    eos = tokenizer.token_to_id(EOS)
    if eos is None:
        raise CheckpointError(f"{file} has no {EOS}: it is not the tokenizer of a dataset prepared here")
    tokenizer.encode_special_tokens = True  # as in preparation: a mark in a prompt is text
    return tokenizer, eos


def labels_of(tokenizer: Tokenizer) -> list[str]:
    """The labels of a dataset, in the order of their classes."""
    return sorted(set(tokenizer.get_vocab()) - {EOS, UNK})


def tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a text, with a warning for what the vocabulary lacks."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.token_to_id(UNK)
    spans = zip(encoding.ids, encoding.offsets, strict=True)
    lacking = dict.fromkeys(text[start:stop] for token, (start, stop) in spans if token == unknown)
    lacking.pop(UNK, None)  # written by the user
    if lacking:
        words = ", ".join(map(repr, lacking))
        print(f"unroll: warning: not in the vocabulary, read as {UNK}: {words}", file=sys.stderr)
    return list(encoding.ids)
