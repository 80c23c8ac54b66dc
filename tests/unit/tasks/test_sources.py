"""Sources of a trained encoder are read as in training."""

from unicodedata import normalize

from data_prep.workspace import tokenizer
from pipeline.tasks.sources import text_source


def test_texts_in_any_unicode_form_give_the_same_tokens() -> None:
    words = tokenizer.build("word", ["café olé"], None)
    eos = words.token_to_id("<eos>")
    tokens, keep = text_source(words, eos, [normalize("NFD", "café"), "café olé"])
    assert tokens.tolist() == [[*words.encode("café").ids, eos, eos], [*words.encode("café olé").ids, eos]]
    assert keep.tolist() == [[True, True, False], [True, True, True]]
