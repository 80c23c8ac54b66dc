"""`unroll generate` with models of text pairs: translations, attention and dialogues."""

import io
import json
import sys

import pytest
import torch

from pipeline.commands.generate.command import main
from pipeline.errors import CheckpointError, ConfigError
from tests.unit.babbling import Babbler, word_tokenizer


@pytest.fixture
def translator(babbler):
    """The run with a translation model and the tokenizer of its sources."""
    from pipeline.models.assemblies.translators import AttentionTranslator

    tokenizer = word_tokenizer()
    tokenizer.save(str(babbler.path / "source_tokenizer.json"))
    size = tokenizer.get_vocab_size()
    torch.manual_seed(3)
    babbler.model = AttentionTranslator(vocab_size=size, source_vocab_size=size, width=16).eval()
    return babbler


def test_a_translation_does_not_repeat_its_source(translator, capsys):
    """The most probable text is the same alone, in a batch, as JSON and with a beam of one."""
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


@pytest.mark.parametrize("options", [[], ["--beam", "2"], ["--json"]])
def test_a_translation_without_a_source_is_one_error_with_an_example(translator, options):
    with pytest.raises(ConfigError, match=r"Give the source: unroll generate babble --prompt 'your text'$"):
        main(["babble", *options])


def test_no_repeat_and_coverage_penalty_change_the_search(translator, capsys):
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


def test_attention_is_drawn_token_against_token(translator, capsys, tmp_path, monkeypatch):
    from PIL import Image

    from pipeline.evaluation.plots.attention import CELL, against

    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())[:3]
    options = ["babble", "--prompt", " ".join(words), "--tokens", "5", "--min-tokens", "5", "--beam", "2"]
    main(options)
    text = capsys.readouterr().out
    drawn = []
    monkeypatch.setattr(
        "pipeline.commands.generate.writer.against", lambda *given: drawn.append(against(*given)) or drawn[-1]
    )
    main([*options, "--attention", str(tmp_path / "a.png")])
    assert capsys.readouterr().out == text
    [axes] = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == text.split()
    assert [label.get_text() for label in axes.get_xticklabels()] == [*words, "<eos>"]
    width, height = Image.open(tmp_path / "a.png").size
    assert width > 4 * CELL  # the cells and their labels
    assert height > 5 * CELL
    with pytest.raises(ConfigError, match=r"--attention: expected a file that ends in \.png or \.jpg, got .*a\.none"):
        main([*options, "--attention", str(tmp_path / "a.none")])


def test_models_without_attention_are_refused(translator, tmp_path):
    from pipeline.models.assemblies.translators import LSTMTranslator

    size = word_tokenizer().get_vocab_size()
    translator.model = LSTMTranslator(vocab_size=size, source_vocab_size=size, width=16, depth=1).eval()
    options = ["babble", "--prompt", "the", "--attention", str(tmp_path / "a.png")]
    for settings in (options, [*options[:3], "--beam", "2", "--coverage-penalty", "1"]):
        with pytest.raises(ConfigError, match="decoder=VectorDecoder: expected a decoder with attention"):
            main(settings)
    translator.model = Babbler(size).eval()
    with pytest.raises(ConfigError, match=r"--attention: .* is a language model without a source"):
        main(options)


def test_coverage_requires_a_source(babbler):
    with pytest.raises(ConfigError, match="coverage_penalty requires a model with attention"):
        main(["babble", "--prompt", "the", "--beam", "2", "--coverage-penalty", "1"])


def test_a_run_without_a_source_tokenizer_is_refused(translator):
    (translator.path / "source_tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"source_tokenizer\.json cannot be read"):
        main(["babble", "--prompt", "a"])


def test_each_reply_of_a_chat_reads_the_last_turns(translator, capsys, monkeypatch):
    sources = []
    begin = translator.model.begin
    monkeypatch.setattr(
        translator.model, "begin", lambda source: sources.append(source[0][0].tolist()) or begin(source)
    )
    words = sorted(word for word in word_tokenizer().get_vocab() if word.isalpha())[:2]
    (translator.path / "run.json").write_text(json.dumps({"dataset": {"dialogue": {"mark": words[0], "history": 2}}}))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"\ufeff{words[0]}\n\n{words[1]}\n"))
    assert main(["babble", "--chat", "--greedy", "--tokens", "3"]) == 0
    replies = capsys.readouterr().out.splitlines()
    assert len(replies) == len(sources) == 2
    encode = lambda text: word_tokenizer().encode(text).ids  # noqa: E731
    eos = word_tokenizer().token_to_id("<eos>")
    assert sources == [[*encode(words[0]), eos], [*encode(f"{replies[0]} {words[0]} {words[1]}"), eos]]


@pytest.mark.parametrize("record", [None, {"dataset": {}}])
def test_chat_requires_a_run_on_dialogues(translator, record):
    if record is not None:
        (translator.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="was not trained on dialogues"):
        main(["babble", "--chat"])


def test_chat_refuses_a_language_model(babbler):
    with pytest.raises(ConfigError, match="is a language model"):
        main(["babble", "--chat"])


def test_a_chat_has_one_reply_per_line(babbler):
    for options in (["--samples", "2"], ["--json"], ["--beam", "2", "--n-best", "2"]):
        with pytest.raises(
            ConfigError, match=rf"^{options[-2 if options[-1] == '2' else -1]} cannot be combined with --chat"
        ):
            main(["babble", "--chat", *options])
