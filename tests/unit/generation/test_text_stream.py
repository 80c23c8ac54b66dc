"""Incremental decoding equals decoding at once, with every tokenizer."""

import pytest
import torch

from pipeline.generation.text_stream import TextStream, text_of, written
from tests.unit import babbling
from tests.unit.babbling import CORPUS, byte_tokenizer, word_tokenizer

KINDS = ("word", "character", "bpe", "byte", "metaspace")


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_text_equal_what_decoding_at_once_adds_to_the_prompt(kind):
    tokenizer = getattr(babbling, f"{kind}_tokenizer")()
    for line in CORPUS:
        tokens = tokenizer.encode(line, add_special_tokens=False).ids
        for cut in range(len(tokens) + 1):
            before = tokenizer.decode(tokens[:cut])
            if before.endswith("\ufffd"):
                continue  # a prompt does not end inside a character
            assert before + text_of(tokenizer, 0, tokens[cut:], tokens[:cut]) == tokenizer.decode(tokens)


def test_random_bytes_are_decoded_as_at_once():
    tokenizer = byte_tokenizer()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        tokens = torch.randint(1, tokenizer.get_vocab_size(), (60,), generator=generator).tolist()
        assert text_of(tokenizer, 0, tokens) == tokenizer.decode(tokens)


def test_a_character_is_returned_with_its_last_byte():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, 0)
    pieces = [stream.push(token) for token in tokenizer.encode("a🦊é").ids]
    assert pieces == ["a", "", "", "", "🦊", "", "é"]
    assert stream.finish() == ""


def test_an_unfinished_character_is_returned_at_the_end_and_once():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, 0)
    written = "".join(stream.push(token) for token in tokenizer.encode("a🦊").ids[:-1])
    assert written == "a"
    assert set(stream.finish()) == {"\ufffd"}
    assert stream.finish() == ""


def test_eos_is_a_line_break_and_the_next_word_has_no_leading_space():
    tokenizer = word_tokenizer()
    the, cat = tokenizer.encode("the cat").ids
    assert text_of(tokenizer, 0, [cat, 0, the, cat], prompt=[the]) == " cat\nthe cat"
    assert text_of(tokenizer, 0, [the, cat], prompt=[cat, 0]) == "the cat"


class Spelled:
    """A tokenizer that decodes each token as its number and records its calls."""

    def __init__(self):
        self.calls = []

    def decode(self, tokens, skip_special_tokens=True):
        assert skip_special_tokens is False  # special tokens are decoded
        self.calls.append(list(tokens))
        return "".join(f"<{token}>" for token in tokens)


def test_the_last_sixteen_tokens_of_a_prompt_are_decoded_with_what_follows():
    tokenizer = Spelled()
    stream = TextStream(tokenizer, 99, prompt=range(30))
    assert stream.push(50) == "<50>"
    assert tokenizer.calls == [list(range(14, 30)), [*range(14, 30), 50]]
    assert stream.push(51) == "<51>"
    assert tokenizer.calls[2:] == [[50], [50, 51]]


def test_special_tokens_are_decoded_and_each_token_can_be_decoded_alone():
    assert text_of(Spelled(), 99, [1, 2, 99, 3]) == "<1><2>\n<3>"
    assert written(Spelled(), [4, 99]) == ["<4>", "<99>"]
    tokenizer = word_tokenizer()
    assert written(tokenizer, [0, *tokenizer.encode("the").ids]) == ["<eos>", "the"]


def test_pending_text_is_the_context_of_the_next_token():
    tokenizer = byte_tokenizer()
    fox = tokenizer.encode("\U0001f98a").ids
    stream = TextStream(tokenizer, 0)
    assert stream.push(fox[0]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.push(tokenizer.encode("a").ids[0]) == "a"
    words = TextStream(word_tokenizer(), 0)
    the, cat = word_tokenizer().encode("the cat").ids
    assert [words.push(the), words.finish(), words.push(cat)] == ["the", "", " cat"]
    assert stream.push(fox[0]) == ""
    assert stream.push(0) == "\ufffd\n"
    assert stream.push(tokenizer.encode("b").ids[0]) == "b"
