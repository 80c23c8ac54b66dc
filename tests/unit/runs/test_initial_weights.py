"""A model takes what fits of other weights: tensors by name, rows by the text of their tokens. The rest is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from tokenizers import Tokenizer

from data_prep.workspace import tokenizer as tokenizers
from pipeline.errors import CheckpointError
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.runs.initial_weights import start_from
from pipeline.runs.vocabulary_rows import Rows, row_keys
from pipeline.tasks.token_prediction import TokenHead

WORDS, OTHERS = "ab cd é", "dc é xy"


def saved(tokenizer: Tokenizer, folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return {"tokenizer.json": folder / "tokenizer.json"}


def keys_of(kind: str, folder: Path, text: str = WORDS) -> dict[object, int]:
    tokenizer = tokenizers.build(kind, [text] * 9, 400 if kind in ("bpe", "unigram") else None)
    keys = row_keys(Rows(), saved(tokenizer, folder / kind), tokenizers.size(tokenizer))
    assert keys is not None
    return {key: row for row, key in enumerate(keys)}


def test_tokens_of_every_kind_of_tokenizer_are_their_bytes(tmp_path: Path) -> None:
    found = {kind: keys_of(kind, tmp_path) for kind in ("byte", "character", "word", "bpe", "unigram")}
    assert found["byte"] == {**{bytes([value]): value for value in range(256)}, "<eos>": 256}
    assert set(found["character"]) == {"<eos>", "<unk>", b" ", b"a", b"b", b"c", b"d", "é".encode()}
    assert set(found["word"]) == {"<eos>", "<unk>", b"ab", b"cd", "é".encode()}
    assert {b"a", b"d", "<eos>"} <= found["bpe"].keys() & found["unigram"].keys() & found["character"].keys()
    assert b" cd" in found["bpe"]


def test_rows_of_labels_follow_the_levels_and_a_blank_follows_the_tokens(tmp_path: Path) -> None:
    files = saved(tokenizers.label(["up", "down"]), tmp_path)
    assert row_keys(Rows(labels=True), files, 2) == ["down", "up"]
    assert row_keys(Rows(labels=True, before=3), files, 5) == [0, 1, 2, "down", "up"]
    assert row_keys(Rows(labels=True, before=3), files, 3) == [0, 1, 2]
    assert row_keys(Rows(labels=True, before=3), files, 4) is None
    assert row_keys(Rows(), files, 5) == ["<eos>", "<unk>", b"down", b"up", ("after", 0)]
    assert row_keys(Rows(), files, 6) is None
    assert row_keys(Rows(), {}, 4) is None


def model(size: int, tied: bool = True, **options: int) -> LSTMLanguageModel:
    torch.manual_seed(size)
    return LSTMLanguageModel(vocab_size=size, head=TokenHead(tied=tied), width=8, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of weights beside its tokenizer."""
    tokenizer = tokenizers.build("character", [WORDS], None)
    saved(tokenizer, tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    save_model(model(tokenizers.size(tokenizer)), str(file))
    return file


def tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


@pytest.mark.numeric
def test_rows_are_taken_by_token_and_new_ones_keep_their_initial_values(source: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.build("character", [OTHERS], None)
    files = saved(tokenizer, tmp_path / "mine")
    mine, fresh = (model(tokenizers.size(tokenizer)) for _ in range(2))
    found = start_from(mine, source, files)
    there, before, after = (
        tensors(source),
        *(Tokenizer.from_file(str(each)).get_vocab() for each in both(source, files)),
    )
    assert after.keys() - before.keys() == {"x", "y"}
    embedding = there.get("embedding.weight", there.get("output.weight"))
    for token, row in after.items():
        expected = embedding[before[token]] if token in before else fresh.embedding.weight[row]
        assert torch.equal(mine.embedding.weight[row], expected)
    assert torch.equal(mine.network.layers[0].kernel.weight_ih_l0, there["network.layers.0.kernel.weight_ih_l0"])
    assert found.lines()[1] == "embedding.weight: 6 of 8 rows by the text of tokens; new: 'x', 'y'"
    assert not found.new
    assert not found.unused
    assert found.record()["matched"] == {"embedding.weight": [6, 8], "output.bias": [6, 8]}


def both(source: Path, files: dict[str, Path]) -> tuple[Path, Path]:
    return source.with_name("tokenizer.json"), files["tokenizer.json"]


def test_what_does_not_fit_and_what_is_not_used_is_named(source: Path) -> None:
    files = {"tokenizer.json": source.with_name("tokenizer.json")}
    deeper = model(8, depth=4)
    lines = start_from(deeper, source, files).lines()
    assert lines[1].startswith(
        "newly initialized: network.layers.*.kernel.weight_ih_l0 (not in the source) (2 tensors), "
    )
    save_file({**tensors(source), "head.weight": torch.ones(2), "network.norm.weight": torch.ones(3)}, source)
    found = start_from(model(8), source, files)
    assert found.lines()[-1] == "not used: head.weight, network.norm.weight"
    values = tensors(source)
    save_file({**values, "output.bias": torch.ones(8, 2)}, source)
    assert start_from(model(8), source, files).new == {"output.bias": "expected shape (8,), got (8, 2)"}


@pytest.mark.numeric
def test_tied_weights_start_untied_ones_and_the_reverse(source: Path) -> None:
    files = {"tokenizer.json": source.with_name("tokenizer.json")}
    untied = model(8, tied=False)
    assert not start_from(untied, source, files).new
    assert torch.equal(untied.output.weight, untied.embedding.weight)
    with torch.no_grad():
        untied.output.weight += 1
    save_model(untied, str(source))
    tied = model(8)
    assert start_from(tied, source, files).lines()[-1] == "not used: output.weight"
    assert torch.equal(tied.embedding.weight, untied.embedding.weight)


def test_without_a_tokenizer_rows_are_taken_by_position_only_if_their_number_is_equal(source: Path) -> None:
    files = {"tokenizer.json": source.with_name("mine.json")}
    source.with_name("tokenizer.json").rename(files["tokenizer.json"])
    found = start_from(model(8), source, files)
    assert found.lines()[1].startswith("rows of tokens by position, as the source has no tokenizer: embedding.weight")
    tokenizer = tokenizers.build("character", [OTHERS * 2 + "z"], None)
    tokenizer.save(str(files["tokenizer.json"]))
    found = start_from(model(9), source, files)
    assert found.new["output.bias"] == "expected 9 rows, got 8, whose tokens are not known"


def test_weights_of_another_model_or_none_are_refused(source: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        start_from(model(8), source.with_name("nothing.safetensors"))
    save_file({"wte": torch.ones(8, 3)}, source)
    with pytest.raises(CheckpointError, match="has no tensor of this model: expected tensors such as embedding"):
        start_from(model(8), source)
    source.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        start_from(model(8), source)
