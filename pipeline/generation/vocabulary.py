"""The vocabulary of a trained model: its tokenizer and EOS token."""

import sys
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.errors import CheckpointError
from pipeline.runs.vocabulary_rows import EOS, UNK


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
