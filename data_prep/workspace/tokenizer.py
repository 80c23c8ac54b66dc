"""Tokenizers, made from the training text by the `tokenizers` library; each knows the end mark `<eos>`.

byte, bpe and unigram see the UTF-8 bytes of the text, so they give any text back exactly. character and word
know what the training text holds and read anything else as `<unk>`. Marks written in a text are read as text,
save for a word vocabulary, where `<unk>` and `<eos>` in the text are the marks themselves (as in the Penn
Treebank).

bpe: Sennrich et al. 2016, on bytes (Radford et al. 2019); unigram: Kudo 2018.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import ConfigError, DataError

EOS = "<eos>"
UNK = "<unk>"
VOCAB_SIZE = 8192  # of bpe and unigram, where none is asked for
Train = Callable[[Iterable[str], int | None, int], Tokenizer]  # the last: tokens that will be added


def byte(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """The 256 bytes, each its own id, and `<eos>`; nothing is learned from the texts."""
    tokenizer = Tokenizer(models.BPE(vocab={mark: value for value, mark in enumerate(_byte_marks())}, merges=[]))
    _reads_bytes(tokenizer, use_regex=False)
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def character(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """The characters of the texts after `<eos>` and `<unk>`; `vocab_size` keeps the most frequent."""
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
    """The words between white space, most frequent first; at most `vocab_size` with `<eos>` and `<unk>`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
    vocab = {token: index for index, token in enumerate([EOS, UNK, *_most_frequent(counts, vocab_size, others)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def label(texts: Iterable[str]) -> Tokenizer:
    """Each text is one token, whatever is in it; in the order of the alphabet after `<eos>` and `<unk>`."""
    vocab = {token: index for index, token in enumerate([EOS, UNK, *sorted(set(texts) - {EOS, UNK})])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.add_special_tokens([EOS])
    return tokenizer


def bpe(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """Byte pairs merged until there are `vocab_size` tokens."""
    trainer = trainers.BpeTrainer(
        vocab_size=_room(vocab_size, 257, others),
        special_tokens=[EOS],
        initial_alphabet=_byte_marks(),
        show_progress=False,
    )
    return _learned(Tokenizer(models.BPE()), texts, trainer)


def unigram(texts: Iterable[str], vocab_size: int | None = None, others: int = 0) -> Tokenizer:
    """The `vocab_size` pieces that make the texts likeliest; every byte is one of them."""
    trainer = trainers.UnigramTrainer(
        vocab_size=_room(vocab_size, 258, others),  # at 257 the trainer passes its limit and keeps every piece
        special_tokens=[EOS],
        initial_alphabet=_byte_marks(),
        show_progress=False,
    )
    return _learned(Tokenizer(models.Unigram()), texts, trainer)


TRAINED: dict[str, Train] = {
    "byte": byte,
    "character": character,
    "word": word,
    "bpe": bpe,
    "unigram": unigram,
}


def made(kind: str, texts: Iterable[str], vocab_size: int | None, mark: str | None = None) -> Tokenizer:
    """Train a tokenizer, or load an existing one.

    Args:
        kind: one of `TRAINED`, or a file.
        texts: of the training split; those of a file are not read.
        vocab_size: maximum number of tokens, marks included.
        mark: a text that is one token of every trained tokenizer.

    Raises:
        ConfigError: there cannot be so few tokens.
    """
    if kind not in TRAINED:
        found = load(Path(kind))
    else:
        marks = [mark] if mark else []
        found = TRAINED[kind](texts, vocab_size, len(marks))
        found.add_tokens(marks)
    if vocab_size and size(found) > vocab_size:
        raise ConfigError(f"--vocab-size {vocab_size}: tokenizer {kind} has {size(found)} tokens; use at least as many")
    return found


def load(path: Path) -> Tokenizer:
    """An existing tokenizer file, ready to encode a corpus; `<eos>` is added where it has none.

    Raises:
        DataError: the file is missing or no tokenizer.
    """
    if not path.is_file():
        raise DataError(f"there is no tokenizer file {path}; name one of {', '.join(TRAINED)} or a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise DataError(f"{path} is no tokenizer file: {error}") from error
    tokenizer.add_special_tokens([EOS])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # a mark in a corpus is text, never the end of a document
    return tokenizer


def size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: what an embedding needs."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def _learned(tokenizer: Tokenizer, texts: Iterable[str], trainer: trainers.Trainer) -> Tokenizer:
    _reads_bytes(tokenizer, use_regex=True)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([EOS])  # not before: its id would be one of the untrained model
    return tokenizer


def _reads_bytes(tokenizer: Tokenizer, use_regex: bool) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.decoder = decoders.ByteLevel()


def _byte_marks() -> list[str]:
    """The printable character that stands for each byte, in order: itself, or one from 256 on."""
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others: Iterator[int] = iter(range(0x100, 0x200))
    return [chr(value if value in itself else next(others)) for value in range(256)]


def _most_frequent(counts: Counter[str], vocab_size: int | None, others: int) -> list[str]:
    """Tokens by falling count, ties by code point, without the marks, for which there is room already."""
    limit = None if vocab_size is None else vocab_size - 2 - others
    if limit is not None and limit < 1:
        raise ConfigError(f"--vocab-size {vocab_size} leaves no room beside {EOS} and {UNK}; use at least {3 + others}")
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [token for token, _ in ranked if token not in (EOS, UNK)][:limit]


def _room(vocab_size: int | None, least: int, others: int) -> int:
    size, least = VOCAB_SIZE if vocab_size is None else vocab_size, least + others
    if size < least:
        raise ConfigError(f"--vocab-size {size} leaves no room beside the 256 bytes and {EOS}; use at least {least}")
    return size - others
