"""Tokenizers restore the text, have each special token once, and are trained on the training text alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from data_prep.workspace import tokenizer
from data_prep.workspace.tokenizer import bpe, byte, character, label, unigram, word
from pipeline.errors import ConfigError, DataError

SAMPLE = ["The cat sat on the mat. " * 4, "Ein Käfig voller Narren, naïve 戦場 😀\n\ttabs  and spaces ", "the the cat"]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["<eos>", "a<eos>b <unk>", "Ġ▁<0x41>\ufeff", "\r\n \u2028\x00", "e\u0301 é"]
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """Return each kind of tokenizer, trained, saved and loaded as in a preparation."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for kind, size in {"byte": None, "character": None, "word": None, "bpe": 300, "unigram": 300}.items():
        tokenizer.build(kind, iter(SAMPLE), size).save(str(folder / kind))
        found[kind] = tokenizer.load(folder / kind)
    return found


def round_trip(made: Tokenizer, text: str) -> str:
    return made.decode(made.encode(text, add_special_tokens=False).ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
@given(text=ANY_TEXT)
@settings(max_examples=60, deadline=None)
def test_decoding_restores_any_text(loaded: dict[str, Tokenizer], kind: str, text: str) -> None:
    assert round_trip(loaded[kind], text) == text


@given(text=st.text(st.sampled_from(sorted(set("".join(SAMPLE)) | set("<eos>")))))
@settings(max_examples=60, deadline=None)
def test_decoding_restores_text_of_known_characters(text: str) -> None:
    made = character([*SAMPLE, "<eos>"])
    made.encode_special_tokens = True
    assert round_trip(made, text) == text


def test_bytes_are_their_own_ids(loaded: dict[str, Tokenizer]) -> None:
    text = "aé\n😀\x00 <eos>"
    assert loaded["byte"].encode(text).ids == list(text.encode())
    assert loaded["byte"].token_to_id("<eos>") == 256


def test_characters_are_sorted_by_code_point_after_the_special_tokens() -> None:
    made = character(["hello", "abc"])
    assert made.get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2, "b": 3, "c": 4, "e": 5, "h": 6, "l": 7, "o": 8}
    assert made.encode("oh!").ids == [8, 6, 1]


def test_words_are_sorted_by_count_and_special_tokens_in_the_text_are_encoded_as_such(
    loaded: dict[str, Tokenizer],
) -> None:
    made = word(["b a <unk> b", "c <unk> b a"])
    assert made.get_vocab() == {"<eos>": 0, "<unk>": 1, "b": 2, "a": 3, "c": 4}
    assert made.encode("c  <unk> z\tb").ids == [4, 1, 1, 2]
    assert made.decode([4, 1, 2, 0], skip_special_tokens=True) == "c <unk> b"


def test_the_vocabulary_limit_includes_the_special_tokens() -> None:
    assert word(["a a a b b c"], 4).get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2, "b": 3}
    assert character(["aaabbc"], 4).get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2, "b": 3}
    assert tokenizer.size(bpe(SAMPLE, 270)) == 270


@pytest.mark.parametrize("kind", tokenizer.TRAINED)
def test_every_kind_has_eos_and_dense_ids(loaded: dict[str, Tokenizer], kind: str) -> None:
    vocab = loaded[kind].get_vocab(with_added_tokens=True)
    assert sorted(vocab.values()) == list(range(tokenizer.size(loaded[kind])))
    assert loaded[kind].decode([vocab["<eos>"]], skip_special_tokens=True) == ""


def test_learned_tokens_are_longer_than_bytes() -> None:
    texts = [f"{first}{second}" for first in ("walk", "talk", "jump", "lift") for second in ("ing", "ed", "er", "s")]
    for train in (bpe, unigram):
        assert len(train(texts * 9, 290).encode("jumping lifted").ids) <= 14 / 2


@pytest.mark.parametrize("train", [bpe, unigram])
def test_eos_is_one_token_and_the_first(train: tokenizer.Train) -> None:
    made = train(SAMPLE, 300, 0)
    tokens = [made.id_to_token(index) for index in range(tokenizer.size(made))]
    assert tokens[0] == "<eos>"
    assert len(set(tokens)) == len(tokens)


def test_bpe_is_the_same_each_time() -> None:
    assert bpe(SAMPLE, 300).to_str() == bpe(SAMPLE, 300).to_str()


def test_eos_is_added_to_an_existing_tokenizer(tmp_path: Path) -> None:
    from tokenizers import models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.token_to_id("<eos>"), tokenizer.size(loaded)) == (2, 3)


@pytest.mark.parametrize(("train", "size"), [(bpe, 256), (unigram, 257), (unigram, 100), (word, 2), (character, 1)])
def test_a_vocabulary_that_is_too_small_is_refused(train: tokenizer.Train, size: int) -> None:
    with pytest.raises(ConfigError, match=f"--vocab-size={size}: too small for"):
        train(SAMPLE, size, 0)


@pytest.mark.parametrize("mark", [None, "__eou__"])
@pytest.mark.parametrize("kind", tokenizer.TRAINED)
def test_there_are_never_more_tokens_than_allowed(kind: str, mark: str | None) -> None:
    """The unigram trainer exceeds its limit if the limit leaves no piece besides the bytes."""
    texts = [*SAMPLE, *(f"number {number} of many words __eou__" for number in range(200))]
    least = {"byte": 257, "bpe": 257, "unigram": 258}.get(kind, 3) + (mark is not None)
    for vocab_size in (2, least - 1):
        with pytest.raises(ConfigError, match=rf"^--vocab-size={vocab_size}\b.*Use at least {least}"):
            tokenizer.build(kind, texts, vocab_size, mark)
    for vocab_size in (*range(least, least + 6), 300):
        made = tokenizer.build(kind, texts, vocab_size, mark)
        assert (vocab_size if kind == "bpe" else 3) <= tokenizer.size(made) <= vocab_size
        assert mark is None or len(made.encode(f"1{mark}2").ids) == 3


def test_an_existing_tokenizer_is_not_cut_to_a_size(tmp_path: Path) -> None:
    byte(()).save(str(tmp_path / "tokenizer.json"))
    made = tokenizer.build(str(tmp_path / "tokenizer.json"), (), 257, "mark")
    assert (tokenizer.size(made), made.token_to_id("mark")) == (257, None)
    with pytest.raises(ConfigError, match=r"--vocab-size=256: tokenizer .*tokenizer.json has 257 tokens. Use at least"):
        tokenizer.build(str(tmp_path / "tokenizer.json"), (), 256)


def test_a_missing_or_foreign_tokenizer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--tokenizer=.*none\.json: no such file"):
        tokenizer.load(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(DataError, match=r"--tokenizer=.*odd\.json: not a file of the `tokenizers` library"):
        tokenizer.load(tmp_path / "odd.json")


def test_bytes_are_marked_as_in_gpt_2() -> None:
    # Radford et al. 2019: printable bytes are their own characters, the others are code points from 256 up.
    marks = tokenizer._byte_characters()
    assert [marks[byte] for byte in (0x20, 0x00, 0x0A, 0x7F, 0xAD)] == ["Ġ", "Ā", "Ċ", "ġ", "Ń"]
    assert len(set(marks)) == 256
    assert [marks[byte] for byte in (0x21, 0x7E, 0xA1, 0xAC, 0xAE, 0xFF)] == list("!~¡¬®ÿ")
    assert set(pre_tokenizers.ByteLevel.alphabet()) == set(marks)


def test_trained_tokens_do_not_cross_words_and_byte_tokens_are_not_divided() -> None:
    made = bpe(["to be or not to be"] * 50, 400)
    assert not any("Ġ" in token.removeprefix("Ġ") for token in made.get_vocab())
    assert json.loads(made.to_str())["pre_tokenizer"]["use_regex"] is True
    for kind in (made, unigram(SAMPLE, 300), byte(())):
        described = json.loads(kind.to_str())
        assert described["pre_tokenizer"]["add_prefix_space"] is False
        assert described["decoder"]["type"] == "ByteLevel"
    assert json.loads(byte(()).to_str())["pre_tokenizer"]["use_regex"] is False  # One piece is encoded faster.


def test_trained_vocabularies_have_8192_tokens_by_default() -> None:
    assert tokenizer._trained_size(None, 257, 0) == 8192
    assert tokenizer._trained_size(None, 257, 1) == 8191
    assert bpe(SAMPLE, 257).get_vocab_size() == 257


def test_ties_are_broken_by_code_point() -> None:
    assert set(word(["c b a c"], 4).get_vocab()) == {"<eos>", "<unk>", "c", "a"}
    assert set(character(["cbac"], 3).get_vocab()) == {"<eos>", "<unk>", "c"}
    assert word(["<unk> <unk> a a b"], 3).get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2}


def test_each_label_is_one_token_in_the_order_of_the_alphabet() -> None:
    made = label(["two words", "one", "two words", "<eos>"])
    assert made.get_vocab() == {"<eos>": 0, "<unk>": 1, "one": 2, "two words": 3}
    assert [made.encode(text).ids for text in ("two words", "one", "two")] == [[3], [2], [1]]


def test_a_loaded_tokenizer_neither_pads_nor_truncates_and_encodes_special_tokens_as_text(tmp_path: Path) -> None:
    made = byte(())
    made.enable_padding(length=50)
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode("abcde<eos>").ids == list(b"abcde<eos>")
    assert tokenizer.TRAINED.keys() == {"byte", "character", "word", "bpe", "unigram"}
