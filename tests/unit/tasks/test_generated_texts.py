"""Evenly spaced rows of a split are scored in a validation, and compared with baselines in a test."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from lightning.pytorch import Trainer
from tokenizers import Tokenizer

from data_prep.pairs import command as pairs
from pipeline.callbacks.progress_lines import validation_line
from pipeline.cli import main
from pipeline.data.audio import AudioDataModule
from pipeline.data.captions import ImageCaptionDataModule
from pipeline.data.pairs import PairsDataModule
from pipeline.evaluation.text_scores import ErrorRate
from pipeline.tasks.generated_texts import GeneratedTexts, baselines, is_scored, paired_tokens
from pipeline.tasks.task import Task


@pytest.mark.parametrize(("rows", "limit"), [(10, 4), (29, 20), (7, 7), (5, 9), (1000, 256), (3, 0)])
def test_as_many_rows_as_the_limit_are_drawn_at_equal_distances(rows: int, limit: int) -> None:
    drawn = [row for row in range(rows) if is_scored(row, rows, limit)]
    assert len(drawn) == min(rows, limit)
    apart = {after - before for before, after in itertools.pairwise(drawn)}
    assert apart <= {rows // max(limit, 1), rows // max(limit, 1) + 1, 1}
    assert not drawn or drawn[-1] == rows - 1


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of letters and phonemes: c is usually K, and after s it is silent, so that the lengths differ."""
    rows = ["cab\tK AH B", "cad\tK AH D", "ace\tAH S EH", "cad\tK AH D", "scab\tS AH B", "bad\tB AH D"]
    folder = tmp_path_factory.mktemp("spelling")
    (folder / "train.tsv").write_text("\n".join(rows))
    (folder / "test.tsv").write_text("dac\tD AH K\nbz\tB Z\nabc\tAH B S\ncab\tK AH B\n")
    files = ["--train", "train.tsv", "--validation", "test.tsv", "--test", "test.tsv"]
    files = [option if option.startswith("--") else str(folder / option) for option in files]
    tokens = ["--source-tokenizer", "character", "--target-tokenizer", "word", "--no-deduplicate"]
    assert pairs.main([*files, *tokens, "--output", str(folder / "data")]) == 0
    return folder / "data"


def test_the_baselines_are_the_commonest_target_and_the_commonest_token_of_each_token(spelling: Path) -> None:
    data = PairsDataModule(spelling)
    split, source = data.dataset.splits["test"], Tokenizer.from_file(str(data.dataset.source.file))
    letters = {source.decode([token]): data.tokenizer.decode([found]) for token, found in paired_tokens(data).items()}
    assert letters == {"a": "AH", "b": "B", "c": "K", "d": "D", "e": "EH"}  # c is S once; scab has another length
    written = {name: [write(row) for row in range(split.rows)] for name, write in baselines(data, "test").items()}
    assert written["commonest_"] == ["K AH D"] * 4
    assert written["per_token_"] == ["D AH K", "B " + written["per_token_"][1].split()[1], "AH B K", "K AH B"]


def test_without_pairs_of_equal_length_there_is_only_the_commonest_target(
    tiny_audio_dataset: Path, tiny_captions_dataset: Path
) -> None:
    for data in (AudioDataModule(tiny_audio_dataset), ImageCaptionDataModule(tiny_captions_dataset)):
        assert [*baselines(data, "test")] == ["commonest_"]


def evaluated(data: PairsDataModule, rows: int | None, folder: Path) -> tuple[GeneratedTexts, dict[str, float]]:
    """Score the reversal of the right text for these rows, as in `unroll test`."""
    texts, split = GeneratedTexts(), data.dataset.splits["test"]
    texts.add(
        data, "test", [*range(split.samples)], rows, lambda places: [split.target(at).tolist()[::-1] for at in places]
    )
    state = SimpleNamespace(fn="test")
    trainer = SimpleNamespace(world_size=1, state=state, is_global_zero=True, default_root_dir=folder)
    task = Mock(spec=Task, trainer=trainer, data=data)
    return texts, texts.score(task, "test", [ErrorRate()], baselines(data, "test"))


def test_a_sample_of_the_texts_is_scored_and_counted(spelling: Path, tmp_path: Path) -> None:
    data = PairsDataModule(spelling)
    texts, found = evaluated(data, 2, tmp_path)  # the rows bz and cab
    assert texts.scored == "scored 2 of 4 texts"
    assert texts.report() == [f"  generated texts: {tmp_path / 'written-test.jsonl'} (2 of 4)"]
    assert found["word_error_rate"] == pytest.approx(100 * 4 / 5)
    assert found["commonest_word_error_rate"] == pytest.approx(100 * 4 / 5)
    assert found["per_token_wrong_texts"] == 50.0
    texts, _ = evaluated(data, None, tmp_path)
    assert texts.scored == ""
    assert texts.report()[0].endswith("(4 of 4)")


def test_the_line_of_a_validation_names_the_number_of_scored_texts() -> None:
    trainer = Mock(spec=Trainer, callback_metrics={"val/loss": 1.5, "val/bleu": 20.0}, global_step=7)
    line = "validation at step 7: loss 1.5000, bleu 20.0000"
    assert validation_line(trainer, SimpleNamespace(scored="")) == line
    assert validation_line(trainer, SimpleNamespace(scored="scored 2 of 4 texts")) == f"{line} (scored 2 of 4 texts)"


def test_a_test_scores_texts_by_default_and_a_validation_does_not(
    spelling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    options = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", f"--data.init_args.dataset={spelling}"]
    options += ["--model.init_args.width=8", "--model.init_args.evaluation.validation_rows=3"]
    config = Path(__file__).parents[3] / "configs" / "pairs" / "attention.yaml"
    assert main(["fit", f"--config={config}", "--run=spell", *options]) == 0
    printed = capsys.readouterr().out
    assert "validation at step 1: loss " in printed
    assert "bleu" not in printed
    assert main(["test", "spell"]) == 0
    printed = capsys.readouterr().out
    names = {line.split()[0].removeprefix("test/") for line in printed.splitlines() if line.startswith("  test/")}
    scores = {"bleu", "word_error_rate", "wrong_texts"}
    assert scores | {f"{of}_{name}" for of in ("commonest", "per_token") for name in scores} <= names
    assert "written-test.jsonl (3 of 4)" in printed
    assert main(["by-length", "spell", "--groups", "1"]) == 0
