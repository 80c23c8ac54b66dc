"""Tokenizers, trained on the training text by the `tokenizers` library; each has the EOS token `<eos>`.

byte, bpe and unigram encode the UTF-8 bytes of a text, so decoding restores any text exactly. character and word
cover the training text and encode anything else as `<unk>`. Special tokens that appear in a text are encoded as
text, except by a word vocabulary, where `<unk>` and `<eos>` are the tokens themselves (as in the Penn Treebank).

bpe: Sennrich et al. 2016, on bytes (Radford et al. 2019); unigram: Kudo 2018.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import ConfigError, DataError

EOS = "<eos>"
UNK = "<unk>"
VOCAB_SIZE = 8192  # default of bpe and unigram
Train = Callable[[Iterable[str], int | None, int], Tokenizer]  # texts, vocabulary size, tokens to be added later


def byte(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Return a tokenizer whose ids are the 256 byte values, and `<eos>`; the texts are not used."""
    vocab = {character: value for value, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    _use_bytes(tokenizer, use_regex=False)
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def character(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Return a tokenizer of `<eos>`, `<unk>` and the characters of the texts; `vocab_size` keeps the most frequent."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(_most_frequent(counts, vocab_size, others))
    vocab = {token: index for index, token in enumerate([EOS, UNK, *kept])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=UNK))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def word(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Return a tokenizer of `<eos>`, `<unk>` and the words between white space, most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
    vocab = {token: index for index, token in enumerate([EOS, UNK, *_most_frequent(counts, vocab_size, others)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def label(texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer of `<eos>`, `<unk>` and each distinct text as one token, in alphabetical order."""
    vocab = {token: index for index, token in enumerate([EOS, UNK, *sorted(set(texts) - {EOS, UNK})])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def bpe(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Return a byte-pair encoding with `vocab_size` tokens."""
    trainer = trainers.BpeTrainer(
        vocab_size=_trained_size(vocab_size, 257, others),
        special_tokens=[EOS],
        initial_alphabet=_byte_characters(),
        show_progress=False,
    )
    return _trained(Tokenizer(models.BPE()), texts, trainer)


def unigram(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Return a unigram model with `vocab_size` tokens, among them all bytes."""
    trainer = trainers.UnigramTrainer(
        vocab_size=_trained_size(vocab_size, 258, others),  # at 257 the trainer exceeds its limit and keeps every piece
        special_tokens=[EOS],
        initial_alphabet=_byte_characters(),
        show_progress=False,
    )
    return _trained(Tokenizer(models.Unigram()), texts, trainer)


TRAINED: dict[str, Train] = {
    "byte": byte,
    "character": character,
    "word": word,
    "bpe": bpe,
    "unigram": unigram,
}


def build(kind: str, texts: Iterable[str], vocab_size: int | None, mark: str | None = None) -> Tokenizer:
    """Train a tokenizer, or load an existing one.

    Args:
        kind: one of `TRAINED`, or the path of a tokenizer file.
        texts: the training split; not read for a tokenizer file.
        vocab_size: maximum number of tokens, special tokens included.
        mark: a text that becomes one token of a trained tokenizer.

    Raises:
        ConfigError: `vocab_size` is too small.
    """
    if kind not in TRAINED:
        found = load(Path(kind))
    else:
        marks = [mark] if mark else []
        found = TRAINED[kind](texts, vocab_size, len(marks))
        found.add_tokens(marks)
    if vocab_size and size(found) > vocab_size:
        raise ConfigError(
            f"--vocab-size={vocab_size}: tokenizer {kind} has {size(found)} tokens. Use at least {size(found)}"
        )
    return found


def lowercased(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that converts texts to lower case first, so that prompts are read as the training texts."""
    given = json.loads(tokenizer.to_str())
    lower, former = {"type": "Lowercase"}, given["normalizer"]
    if "Lowercase" in json.dumps(former):
        return tokenizer
    given["normalizer"] = {"type": "Sequence", "normalizers": [lower, former]} if former else lower
    for token in given["added_tokens"]:
        token["normalized"] = False  # The mark between turns stays as it is.
    found = Tokenizer.from_str(json.dumps(given))
    found.encode_special_tokens = True
    return found


def load(path: Path) -> Tokenizer:
    """Load a tokenizer file, ready to encode a corpus; `<eos>` is added if it is missing.

    Raises:
        DataError: the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise DataError(f"--tokenizer={path}: no such file. Choose {', '.join(TRAINED)} or a tokenizer.json file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise DataError(f"--tokenizer={path}: not a file of the `tokenizers` library ({error})") from error
    tokenizer.add_special_tokens([EOS])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # `<eos>` written in a corpus is text, not the end of a document
    if isinstance(tokenizer.model, models.BPE) and not json.loads(tokenizer.to_str())["model"]["merges"]:
        tokenizer.model._resize_cache(0)  # its entries would be whole texts, of which few repeat
    return tokenizer


def size(tokenizer: Tokenizer) -> int:
    """Return the largest id plus one, the number of rows of an embedding."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def unknown_id(tokenizer: Tokenizer) -> int:
    """Return the id of `<unk>`, -1 if there is none."""
    found: int | None = tokenizer.token_to_id(UNK)
    return -1 if found is None else found


def _trained(tokenizer: Tokenizer, texts: Iterable[str], trainer: trainers.Trainer) -> Tokenizer:
    _use_bytes(tokenizer, use_regex=True)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([EOS])  # after training, else its id is one of the untrained model
    return tokenizer


def _use_bytes(tokenizer: Tokenizer, use_regex: bool) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.decoder = decoders.ByteLevel()


def _byte_characters() -> list[str]:
    """Return a printable character for each byte, in order: the byte itself, or a code point from 256 up."""
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others: Iterator[int] = iter(range(0x100, 0x200))
    return [chr(value if value in itself else next(others)) for value in range(256)]


def _most_frequent(counts: Counter[str], vocab_size: int | None, others: int) -> list[str]:
    """Return tokens by decreasing count, ties by code point, without the special tokens."""
    limit = None if vocab_size is None else vocab_size - 2 - others
    if limit is not None and limit < 1:
        raise ConfigError(
            f"--vocab-size={vocab_size}: too small for any token besides {EOS} and {UNK}. Use at least {3 + others}"
        )
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [token for token, _ in ranked if token not in (EOS, UNK)][:limit]


def _trained_size(vocab_size: int | None, minimum: int, others: int) -> int:
    size, minimum = VOCAB_SIZE if vocab_size is None else vocab_size, minimum + others
    if size < minimum:
        raise ConfigError(f"--vocab-size={size}: too small for the 256 bytes and {EOS}. Use at least {minimum}")
    return size - others
