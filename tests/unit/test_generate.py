"""The verb `generate`: what a user types, what is written, and how a mistake is told."""

import importlib
import io
import json
import math
import sys
import types

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.decode import Greedy, Limits, generate
from pipeline.decode_text import TextStream, text_of
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generate import main

CORPUS = ["the cat sat on the mat .", "naïve café – 日本語 🦊🦊 the fox", "Ωmega\tand\nline breaks  twice"]


def word_tokenizer():
    words = sorted({word for line in CORPUS for word in line.split()})
    vocabulary = {token: number for number, token in enumerate(["<eos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def character_tokenizer():
    characters = sorted({character for line in CORPUS for character in line})
    vocabulary = {token: number for number, token in enumerate(["<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def bpe_tokenizer(size=300):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_tokenizer():
    return bpe_tokenizer(size=257)


def metaspace_tokenizer():
    tokenizer = Tokenizer(models.Unigram([("<eos>", 0.0), ("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0)], 1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    pieces = [(letter, -3.0) for letter in sorted({letter for line in CORPUS for letter in line})]
    tokenizer.model = models.Unigram([("<eos>", 0.0), ("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), *pieces], 1)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


TOKENIZERS = [word_tokenizer, character_tokenizer, bpe_tokenizer, byte_tokenizer, metaspace_tokenizer]


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_pieces_of_a_text_are_what_decoding_it_whole_adds_to_the_prompt(make):
    tokenizer = make()
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


class Babbler(torch.nn.Module):
    """A random next-token table: what a trained model would be, in one line."""

    def __init__(self, vocab_size):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("logits", torch.randn(vocab_size, vocab_size, generator=generator))

    def forward(self, tokens, state=None):
        return self.logits[tokens], (tokens[:, -1:],)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory with a word tokenizer; loading it gives a Babbler."""
    directory = tmp_path / "babble"
    directory.mkdir()
    tokenizer = word_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    loading = types.ModuleType("pipeline.run")
    loading.model = Babbler(tokenizer.get_vocab_size()).eval()
    loading.asked = []

    def find_run(name):
        if name != "babble":
            raise CheckpointError(f"no run {name!r}")
        return directory

    def load_model(path, checkpoint="best"):
        loading.asked.append((path, checkpoint))
        return loading.model

    loading.find_run, loading.load_model, loading.path = find_run, load_model, directory
    importlib.import_module("pipeline.exported")  # before, as it wants the real one
    monkeypatch.setitem(sys.modules, "pipeline.run", loading)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return loading


def expected_greedy(run, prompt, tokens):
    tokenizer = word_tokenizer()
    ids = tokenizer.encode(prompt).ids or [0]
    found = generate(run.model, [ids], Greedy(), Limits(tokens))[0][0]
    return prompt + text_of(tokenizer, 0, found, ids)


def test_one_text_is_streamed_after_its_prompt(run, capsys):
    assert main(["babble", "--prompt", "the cat", "--greedy", "--tokens", "7", "--no-stop"]) == 0
    assert capsys.readouterr().out == expected_greedy(run, "the cat", 7) + "\n"


def test_a_text_is_written_while_it_grows(run, monkeypatch):
    written = []

    class Terminal(io.StringIO):
        def flush(self):
            written.append(self.getvalue())

    monkeypatch.setattr(sys, "stdout", Terminal())
    main(["babble", "--prompt", "the", "--greedy", "--tokens", "5", "--no-stop"])
    lengths = [len(text) for text in written]
    assert len(written) == 5
    assert lengths == sorted(set(lengths))


def test_without_a_prompt_a_document_is_opened(run, capsys):
    assert main(["babble", "--greedy", "--tokens", "4", "--no-stop"]) == 0
    assert capsys.readouterr().out == expected_greedy(run, "", 4) + "\n"


def test_streamed_and_batched_texts_are_the_same(run, capsys):
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


def test_more_rows_than_a_batch_holds_come_in_order(run, capsys, tmp_path):
    lines = [["the", "cat sat", "on the mat"][number % 3] for number in range(150)]
    (tmp_path / "prompts.txt").write_text("\n".join(lines) + "\n")
    main(["babble", "--prompts", str(tmp_path / "prompts.txt"), "--tokens", "4", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == lines
    assert len({(row["prompt"], row["text"]) for row in rows}) == 3


def test_prompts_are_read_from_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\n\nsat"))
    main(["babble", "--prompts", "-", "--greedy", "--tokens", "3", "--no-stop"])
    expected = "".join(
        f"--- prompt {number}, text 1\n{expected_greedy(run, prompt, 3)}\n"
        for number, prompt in enumerate(["the cat", "", "sat"], start=1)
    )
    assert capsys.readouterr().out == expected


def test_a_text_stops_at_the_end_mark_unless_told_not_to(run, capsys):
    run.model.logits[:, 0] = 1e3
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


def test_the_beam_writes_its_best(run, capsys):
    options = ["--prompt", "the", "--beam", "3", "--tokens", "5", "--json"]
    main(["babble", *options, "--n-best", "3"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    three = [row["text"] for row in rows]
    assert len(set(three)) == 3
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    main(["babble", *options])
    assert json.loads(capsys.readouterr().out)["text"] == three[0]


def test_the_checkpoint_asked_for_is_loaded(run, capsys):
    main(["babble", "--tokens", "1"])
    main(["babble", "--tokens", "1", "--checkpoint", "last"])
    assert run.asked == [(run.path, "best"), (run.path, "last")]


def test_words_that_the_vocabulary_lacks_are_named_once(run, capsys):
    main(["babble", "--prompt", "the dog dog <unk> barks", "--tokens", "1"])
    warning = "unroll: warning: not in the vocabulary, read as <unk>: 'dog', 'barks'\n"
    assert capsys.readouterr().err == warning
    main(["babble", "--prompt", "the cat", "--tokens", "1"])
    assert capsys.readouterr().err == ""


def test_characters_that_the_vocabulary_lacks_are_named(run, capsys):
    tokenizer = character_tokenizer()
    tokenizer.save(str(run.path / "tokenizer.json"))
    run.model = Babbler(tokenizer.get_vocab_size())
    main(["babble", "--prompt", "the % cat", "--tokens", "1"])
    assert "read as <unk>: '%'\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "temperature=0.0 must be positive"),
        (["--temperature", "-1"], "temperature=-1.0 must be positive"),
        (["--top-p", "0"], r"top_p=0.0 must lie in \(0, 1\]"),
        (["--top-p", "1.5"], r"top_p=1.5 must lie in \(0, 1\]"),
        (["--top-k", "0"], "top_k=0 must be at least 1"),
        (["--beam", "0"], "must be at least 1|finds no more"),
        (["--tokens", "0"], "tokens=0 must be at least 1"),
        (["--tokens", "3", "--min-tokens", "4"], "at_least=4 must lie between"),
        (["--samples", "0"], "--samples 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be from 0 up"),
        (["--greedy", "--temperature", "1"], "--greedy and --temperature are different ways"),
        (["--greedy", "--beam", "2"], "--greedy and --beam are different ways"),
        (["--beam", "2", "--top-p", "0.5"], "--beam and --top-p are different ways"),
        (["--greedy", "--samples", "2"], "--greedy gives one text a prompt"),
        (["--beam", "2", "--samples", "2"], "a beam draws nothing; --n-best N writes its N best"),
        (["--beam", "2", "--n-best", "3"], "--n-best 3: from 1 to the width of the beam, 2"),
        (["--beam", "2", "--n-best", "0"], "--n-best 0: from 1 to the width"),
        (["--n-best", "2"], "--n-best is a setting of the beam"),
        (["--attention", "a.png"], "--attention draws one text: give one --prompt"),
        (["--attention", "a.png", "--prompt", "the", "cat"], "--attention draws one text"),
        (["--coverage-penalty", "1"], "--coverage-penalty is a setting of the beam"),
        (["--no-repeat", "-1"], "no_repeat=-1 must be at least 0"),
        (["--length-penalty", "1"], "--length-penalty is a setting of the beam"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_run_is_loaded(run, options, message):
    with pytest.raises(ConfigError, match=message):
        main(["babble", *options])
    assert run.asked == []


def test_missing_empty_and_binary_prompt_files_are_told(run, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"ab\xff\xfe")
    for name, message in [("none", "No such file"), ("empty", "empty"), ("binary", "byte 2 is not UTF-8")]:
        with pytest.raises(DataError, match=message):
            main(["babble", "--prompts", str(tmp_path / name)])


def test_a_missing_run_is_told(run):
    with pytest.raises(CheckpointError, match="no run 'bubble'"):
        main(["bubble"])


def test_a_missing_or_foreign_tokenizer_is_told(run):
    file = run.path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(file))
    with pytest.raises(CheckpointError, match="has no <eos>"):
        main(["babble"])
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        main(["babble"])


def test_a_model_that_diverged_is_told(run):
    run.model.logits[:] = math.nan
    with pytest.raises(CheckpointError, match=r"cannot generate with .*NaN"):
        main(["babble", "--prompt", "the"])


@pytest.fixture
def translator(run):
    """The run, with a model that reads sources and their tokenizer."""
    from pipeline.models.translators import AttentionTranslator

    tokenizer = word_tokenizer()
    tokenizer.save(str(run.path / "source_tokenizer.json"))
    size = tokenizer.get_vocab_size()
    torch.manual_seed(3)
    run.model = AttentionTranslator(vocab_size=size, source_vocab_size=size, width=16).eval()
    return run


def test_a_source_is_written_from_and_not_repeated(translator, capsys):
    """Alone, in company, as JSON and by a beam of one: the same most probable text."""
    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())[:3]
    sources = [words[0], " ".join(words), f"{words[2]} {words[1]}"]
    alone = []
    for source in sources:
        assert main(["babble", "--prompt", source, "--tokens", "5"]) == 0
        alone.append(capsys.readouterr().out.removesuffix("\n"))
    assert main(["babble", "--prompt", *sources, "--tokens", "5", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == alone
    assert main(["babble", "--prompt", *sources, "--tokens", "5", "--beam", "1", "--json"]) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == alone


def test_nothing_is_written_twice_and_what_was_not_looked_at_counts(translator, capsys):
    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())
    options = ["babble", "--prompt", " ".join(words[:4]), "--tokens", "9", "--beam", "4", "--n-best", "4", "--json"]
    found = []
    short = ["--tokens", "2"]
    for more in ([], ["--no-repeat", "1"], short, [*short, "--coverage-penalty", "2"]):
        assert main([*options, *more]) == 0
        found.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    free, once, brief, covered = found
    assert any(len(set(row["tokens"])) < len(row["tokens"]) for row in free)
    assert all(len(set(row["tokens"])) == len(row["tokens"]) for row in once)
    assert max(row["score"] for row in covered) < max(row["score"] for row in brief)


def test_attention_is_drawn_token_against_token(translator, capsys, tmp_path):
    from PIL import Image

    from pipeline.attention_pictures import CELL, label

    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())[:3]
    options = ["babble", "--prompt", " ".join(words), "--tokens", "5", "--min-tokens", "5", "--beam", "2"]
    main(options)
    text = capsys.readouterr().out
    main([*options, "--attention", str(tmp_path / "a.png")])
    assert capsys.readouterr().out == text
    left, top = (max(label(word).width for word in side) for side in (text.split(), [*words, "<eos>"]))
    assert Image.open(tmp_path / "a.png").size == (left + 4 * CELL, top + 5 * CELL)
    with pytest.raises(ConfigError, match=r"--attention .*a\.none cannot be written as a picture"):
        main([*options, "--attention", str(tmp_path / "a.none")])


def test_what_looks_at_no_source_or_once_draws_no_attention(translator, tmp_path):
    from pipeline.models.translators import LSTMTranslator

    size = word_tokenizer().get_vocab_size()
    translator.model = LSTMTranslator(vocab_size=size, source_vocab_size=size, width=16, depth=1).eval()
    options = ["babble", "--prompt", "the", "--attention", str(tmp_path / "a.png")]
    for settings in (options, [*options[:3], "--beam", "2", "--coverage-penalty", "1"]):
        with pytest.raises(CheckpointError, match="a VectorDecoder reads its source once"):
            main(settings)
    translator.model = Babbler(size).eval()
    with pytest.raises(ConfigError, match=r"--attention: .* continues texts"):
        main(options)


def test_coverage_is_of_a_source(run):
    with pytest.raises(CheckpointError, match="coverage_penalty wants a model that writes from a source"):
        main(["babble", "--prompt", "the", "--beam", "2", "--coverage-penalty", "1"])


def test_a_run_without_its_sources_tokenizer_is_refused(translator):
    (translator.path / "source_tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"source_tokenizer\.json cannot be read"):
        main(["babble", "--prompt", "a"])


def test_a_chat_gives_each_reply_the_last_turns(translator, capsys, monkeypatch):
    heard = []
    begin = translator.model.begin
    monkeypatch.setattr(translator.model, "begin", lambda source: heard.append(source[0][0].tolist()) or begin(source))
    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())[:2]
    (translator.path / "run.json").write_text(json.dumps({"dataset": {"dialogue": {"mark": words[0], "history": 2}}}))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{words[0]}\n\n{words[1]}\n"))
    assert main(["babble", "--chat", "--greedy", "--tokens", "3"]) == 0
    replies = capsys.readouterr().out.splitlines()
    assert len(replies) == len(heard) == 2
    encode = lambda text: word_tokenizer().encode(text).ids  # noqa: E731
    eos = word_tokenizer().token_to_id("<eos>")
    assert heard == [[*encode(words[0]), eos], [*encode(f"{replies[0]} {words[0]} {words[1]}"), eos]]


@pytest.mark.parametrize("record", [None, {"dataset": {}}])
def test_who_was_not_trained_to_talk_says_so(translator, record):
    if record is not None:
        (translator.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="no run on dialogues"):
        main(["babble", "--chat"])


def test_a_model_that_continues_texts_does_not_talk(run):
    with pytest.raises(ConfigError, match="continues texts"):
        main(["babble", "--chat"])
