"""What is written piece by piece is what decoding it whole gives, with every tokenizer."""

import pytest
import torch

from pipeline.decode_text import TextStream, text_of
from tests.unit import babbling
from tests.unit.babbling import CORPUS, byte_tokenizer, word_tokenizer

KINDS = ("word", "character", "bpe", "byte", "metaspace")


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_text_are_what_decoding_it_whole_adds_to_the_prompt(kind):
    tokenizer = getattr(babbling, f"{kind}_tokenizer")()
    for line in CORPUS:
        tokens = tokenizer.encode(line, add_special_tokens=False).ids
        for cut in range(len(tokens) + 1):
            before = tokenizer.decode(tokens[:cut])
            if before.endswith("\ufffd"):
                continue  # no prompt ends in the middle of a character
            assert before + text_of(tokenizer, 0, tokens[cut:], tokens[:cut]) == tokenizer.decode(tokens)


def test_random_bytes_are_written_as_decoding_them_whole_writes_them():
    tokenizer = byte_tokenizer()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        tokens = torch.randint(1, tokenizer.get_vocab_size(), (60,), generator=generator).tolist()
        assert text_of(tokenizer, 0, tokens) == tokenizer.decode(tokens)


def test_a_character_is_written_when_its_last_byte_has_come():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, 0)
    pieces = [stream.push(token) for token in tokenizer.encode("a🦊é").ids]
    assert pieces == ["a", "", "", "", "🦊", "", "é"]
    assert stream.finish() == ""


def test_an_unfinished_character_is_written_at_the_end_and_once():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, 0)
    written = "".join(stream.push(token) for token in tokenizer.encode("a🦊").ids[:-1])
    assert written == "a"
    assert set(stream.finish()) == {"\ufffd"}
    assert stream.finish() == ""


def test_an_end_mark_breaks_the_line_and_the_next_word_follows_without_a_space():
    tokenizer = word_tokenizer()
    the, cat = tokenizer.encode("the cat").ids
    assert text_of(tokenizer, 0, [cat, 0, the, cat], prompt=[the]) == " cat\nthe cat"
    assert text_of(tokenizer, 0, [the, cat], prompt=[cat, 0]) == "the cat"
