"""Which token or label each row of an embedding or an output layer belongs to.

Two models whose tokenizers differ have the rows of their common tokens in different places.
"""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from pipeline.errors import CheckpointError

EOS, UNK = "<eos>", "<unk>"
VISIBLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))  # bytes that represent themselves
SPACE = "▁"  # begins a word in tokenizers that mark spaces


class Rows(NamedTuple):
    """The meaning of the rows of a parameter.

    Rows of tokens are in the order of their ids; one more row, such as a blank, may follow.
    """

    tokenizer: str = "tokenizer.json"
    """Name of the tokenizer's file in a run."""
    labels: bool = False
    """Whether the tokens are labels, of which each has a row, in alphabetical order."""
    before: int = 0
    """Rows before the labels, which mean the same in every model."""


def row_keys(rows: Rows, tokenizers: Mapping[str, Path], count: int) -> list[Hashable] | None:
    """Return a key for each of `count` rows, equal for the same token or label; None if a row's meaning is not known.

    Args:
        rows: the meaning of the rows.
        tokenizers: tokenizer files by their names in a run.
        count: number of rows.

    Raises:
        CheckpointError: the tokenizer cannot be read.
    """
    file = tokenizers.get(rows.tokenizer)
    tokenizer = None if file is None else _read(file)
    if rows.labels:
        labels = labels_of(tokenizer) if tokenizer is not None and count > rows.before else []
        found: list[Hashable] = [*range(rows.before), *labels]
        return found if len(found) == count else None
    if tokenizer is None:
        return None
    found = _token_keys(tokenizer)
    return found[:count] + [("after", k) for k in range(count - len(found))] if count - len(found) in (0, 1) else None


def row_name(key: Hashable) -> str:
    """Return a key as text."""
    return repr(key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key)


def labels_of(tokenizer: Tokenizer) -> list[str]:
    """Return the labels of a dataset, in the order of their classes."""
    return sorted(set(tokenizer.get_vocab()) - {EOS, UNK})


def _token_keys(tokenizer: Tokenizer) -> list[Hashable]:
    """Return the bytes of the text of each token, and the name of each special token, in the order of ids."""
    given = json.loads(tokenizer.to_str())
    special = {token["content"] for token in given["added_tokens"]} | {UNK}
    spells_bytes = '"ByteLevel"' in json.dumps([given["decoder"], given["pre_tokenizer"]])
    byte_of = _bytes_of_characters()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    found: list[Hashable] = [("none", k) for k in range(1 + max(vocabulary.values(), default=-1))]
    for token, number in vocabulary.items():
        if token in special:
            found[number] = token
        elif spells_bytes and all(character in byte_of for character in token):
            found[number] = bytes(byte_of[character] for character in token)
        else:
            found[number] = token.replace(SPACE, " ").encode()
    return found


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary represents."""
    itself = {value for part in VISIBLE for value in part}
    others = iter(range(0x100, 0x200))
    return {chr(value if value in itself else next(others)): value for value in range(256)}


def _read(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions
        raise CheckpointError(f"{file} cannot be read ({error}). Copy it from the dataset of the run") from error
