"""`unroll generate`: its options, its output and its error messages."""

import io
import json
import math
import sys

import pytest
from tokenizers import Tokenizer, models

from pipeline.commands.generate.command import main
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Greedy, Limits, generate
from pipeline.generation.text_stream import text_of
from tests.unit.babbling import Babbler, character_tokenizer, word_tokenizer


def expected_greedy(babbler, prompt, tokens):
    tokenizer = word_tokenizer()
    ids = tokenizer.encode(prompt).ids or [0]
    found = generate(babbler.model, [ids], Greedy(), Limits(tokens))[0][0]
    return prompt + text_of(tokenizer, 0, found, ids)


def test_one_text_is_streamed_after_its_prompt(babbler, capsys):
    assert main(["babble", "--prompt", "the cat", "--greedy", "--tokens", "7", "--no-stop"]) == 0
    assert capsys.readouterr().out == expected_greedy(babbler, "the cat", 7) + "\n"


def test_a_text_is_written_while_it_grows(babbler, monkeypatch):
    written = []

    class Terminal(io.StringIO):
        def flush(self):
            written.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Terminal())
    main(["babble", "--prompt", "the", "--greedy", "--tokens", "5", "--no-stop"])
    lengths = [len(text) for text in written]
    assert len(written) == 5
    assert lengths == sorted(set(lengths))


def test_without_a_prompt_a_document_is_opened(babbler, capsys):
    assert main(["babble", "--greedy", "--tokens", "4", "--no-stop"]) == 0
    assert capsys.readouterr().out == expected_greedy(babbler, "", 4) + "\n"


def test_streamed_and_batched_texts_are_the_same(babbler, capsys):
    options = ["--tokens", "9", "--temperature", "0.7", "--top-k", "20", "--top-p", "0.9", "--seed", "3"]
    main(["babble", "--prompt", "the cat", *options])
    alone = capsys.readouterr().out
    main(["babble", "--prompt", "on the mat", "the cat", *options, "--samples", "2", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        ("on the mat", 0), ("on the mat", 1), ("the cat", 0), ("the cat", 1)
    ]  # fmt: skip
    assert "the cat" + rows[2]["text"] + "\n" == alone
    assert rows[2]["text"] != rows[3]["text"]


def test_more_rows_than_a_batch_holds_come_in_order(babbler, capsys, tmp_path):
    lines = [["the", "cat sat", "on the mat"][number % 3] for number in range(150)]
    (tmp_path / "prompts.txt").write_text("\n".join(lines) + "\n")
    main(["babble", "--prompts", str(tmp_path / "prompts.txt"), "--tokens", "4", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == lines
    assert len({(row["prompt"], row["text"]) for row in rows}) == 3


def test_prompts_are_read_from_standard_input(babbler, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfthe cat\n\r\nsat")))
    main(["babble", "--prompts", "-", "--greedy", "--tokens", "3", "--no-stop"])
    expected = "".join(
        f"--- prompt {number}, text 1\n{expected_greedy(babbler, prompt, 3)}\n"
        for number, prompt in enumerate(["the cat", "", "sat"], start=1)
    )
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_line_ends_are_not_part_of_a_prompt(babbler, capsys, tmp_path, newline):
    (tmp_path / "a.txt").write_text("the cat\nsat\n", encoding="utf-8-sig", newline=newline)
    main(["babble", "--prompts", str(tmp_path / "a.txt"), "--json"])
    assert [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()] == ["the cat", "sat"]
    main(["babble", "--prompt", "\ufeffthe cat", "--json"])
    assert json.loads(capsys.readouterr().out)["prompt"] == "the cat"


def test_a_text_stops_at_eos_unless_disabled(babbler, capsys):
    babbler.model.logits[:, 0] = 1e3
    options = ["--prompt", "the", "--greedy", "--tokens", "3"]
    main(["babble", *options])
    assert capsys.readouterr().out == "the\n"
    main(["babble", *options, "--no-stop"])
    assert capsys.readouterr().out == "the\n\n\n\n"
    main(["babble", *options, "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "prompt": "the", "sample": 0, "text": "", "tokens": [0], "ended": True
    }  # fmt: skip
    main(["babble", *options, "--json", "--min-tokens", "3"])
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 3


def test_the_beam_writes_its_best(babbler, capsys):
    options = ["--prompt", "the", "--beam", "3", "--tokens", "5", "--json"]
    main(["babble", *options, "--n-best", "3"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    three = [row["text"] for row in rows]
    assert len(set(three)) == 3
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    main(["babble", *options])
    assert json.loads(capsys.readouterr().out)["text"] == three[0]


def test_the_selected_checkpoint_is_loaded(babbler, capsys):
    main(["babble", "--tokens", "1"])
    main(["babble", "--tokens", "1", "--checkpoint", "last"])
    assert babbler.loaded == [(babbler.path, "best"), (babbler.path, "last")]


def test_words_missing_from_the_vocabulary_are_named_once(babbler, capsys):
    main(["babble", "--prompt", "the dog dog <unk> barks", "--tokens", "1"])
    warning = "unroll: warning: not in the vocabulary, read as <unk>: 'dog', 'barks'\n"
    assert capsys.readouterr().err == warning
    main(["babble", "--prompt", "the cat", "--tokens", "1"])
    assert capsys.readouterr().err == ""


def test_characters_missing_from_the_vocabulary_are_named(babbler, capsys):
    tokenizer = character_tokenizer()
    tokenizer.save(str(babbler.path / "tokenizer.json"))
    babbler.model = Babbler(tokenizer.get_vocab_size())
    main(["babble", "--prompt", "the % cat", "--tokens", "1"])
    assert "read as <unk>: '%'\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "temperature=0.0 must be positive"),
        (["--temperature", "-1"], "temperature=-1.0 must be positive"),
        (["--top-p", "0"], r"top_p=0.0 must be in \(0, 1\]"),
        (["--top-p", "1.5"], r"top_p=1.5 must be in \(0, 1\]"),
        (["--top-k", "0"], "top_k=0 must be at least 1"),
        (["--beam", "0"], "must be at least 1|finds no more"),
        (["--tokens", "0"], "tokens=0 must be at least 1"),
        (["--tokens", "3", "--min-tokens", "4"], "at_least=4 must be between"),
        (["--samples", "0"], "--samples=0: expected at least 1"),
        (["--seed", "-1"], "--seed=-1: expected a number from 0"),
        (["--greedy", "--temperature", "1"], "--greedy and --temperature are different decoding methods"),
        (["--greedy", "--beam", "2"], "--greedy and --beam are different decoding methods"),
        (["--beam", "2", "--top-p", "0.5"], "--beam and --top-p are different decoding methods"),
        (["--greedy", "--samples", "2"], "--greedy has one text per prompt"),
        (["--beam", "2", "--samples", "2"], "--beam does not sample. Use --n-best N"),
        (["--beam", "2", "--n-best", "3"], "--n-best=3: expected 1 to the width of the beam, 2"),
        (["--beam", "2", "--n-best", "0"], "--n-best=0: expected 1 to the width"),
        (["--n-best", "2"], "--n-best requires --beam"),
        (["--attention", "a.png"], "--attention: expected one --prompt"),
        (["--attention", "a.png", "--prompt", "the", "cat"], "--attention: expected one --prompt"),
        (["--coverage-penalty", "1"], "--coverage-penalty requires --beam"),
        (["--no-repeat", "-1"], "no_repeat=-1 must be at least 0"),
        (["--lm", "other"], r"--lm: .*babble \(Babbler\). Its options: --prompt, "),
        (["--audio", "a.wav"], "--audio: not an option of"),
        (["--seconds=1"], "--seconds: not an option of.*see `unroll generate babble --help`"),
        (["--tokens", "many"], "invalid int value: 'many'"),
        (["--prompt", "a", "--chat"], "not allowed with argument --prompt"),
        (["--length-penalty", "1"], "--length-penalty requires --beam"),
    ],
)
def test_invalid_options_are_refused_before_the_run_is_loaded(babbler, options, message):
    with pytest.raises(ConfigError, match=message):
        main(["babble", *options])
    assert babbler.loaded == []


def test_missing_empty_and_binary_prompt_files_are_reported(babbler, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"ab\xff\xfe")
    (tmp_path / "utf16").write_text("the cat\n", encoding="utf-16")
    messages = {"none": "No such file", "empty": "empty", "binary": "byte 2 is not UTF-8", "utf16": "iconv -f UTF-16"}
    for name, message in messages.items():
        with pytest.raises(DataError, match=message):
            main(["babble", "--prompts", str(tmp_path / name)])


def test_a_missing_run_is_reported(babbler):
    with pytest.raises(CheckpointError, match="no run 'bubble'"):
        main(["bubble"])


def test_a_missing_or_foreign_tokenizer_is_reported(babbler):
    file = babbler.path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(file))
    with pytest.raises(CheckpointError, match="has no <eos>"):
        main(["babble"])
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        main(["babble"])


def test_a_model_that_diverged_is_reported(babbler):
    babbler.model.logits[:] = math.nan
    with pytest.raises(CheckpointError, match=r"cannot generate with .*NaN"):
        main(["babble", "--prompt", "the"])
