"""What a run and the data of an evaluation must have in common."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.errors import CheckpointError, DataError
from pipeline.runs.match import Data, check_evaluation, check_use, history
from pipeline.runs.resume import _describe
from pipeline.runs.run import Run

CONFIG = {"trainer": {}, "model": {}, "data": {"init_args": {"dataset": "data"}}}
KINDS = {
    "series": ({"covariates": ["price"]}, {"covariates": ["day"]}, "covariates: expected ['price']"),
    "audio": ({"rate": 8000, "labels": ["a", "b"]}, {"rate": 8000, "labels": ["b", "a"]}, "labels: expected"),
    "pixels": ({"levels": 2, "binarised": "at half"}, {"levels": 16}, "levels: expected 2, got 16"),
}


def trained_on(run: Run, dataset: Dataset) -> Run:
    run.create(linked={"vocab_size": 257}, dataset=_describe(dataset))
    (run.path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    for name, file in dataset.tokenizers.items():
        shutil.copyfile(file, run.path / name)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_other_data_of_another_meaning_is_refused(run: Run, dataset: Path, kind: str) -> None:
    before, after, message = KINDS[kind]
    opened = Dataset.open(dataset)
    mine = replace(opened, manifest={**opened.manifest, kind: before}, checksum="mine")
    trained_on(run, mine)
    other = replace(opened, manifest={**opened.manifest, kind: after}, checksum="other")
    with pytest.raises(DataError) as raised:
        check_evaluation(run, CONFIG, Data(other, DataFacts(257), 1), named=True)
    assert message in str(raised.value)
    same = replace(opened, manifest={**opened.manifest, kind: {**before, "binarised": "seed 1"}}, checksum="other")
    check_evaluation(run, CONFIG, Data(same, DataFacts(257), 1), named=True)


def test_data_of_other_sizes_is_refused(run: Run, dataset: Path) -> None:
    opened = Dataset.open(dataset)
    trained_on(run, opened)
    with pytest.raises(CheckpointError, match="vocab_size=300: expected 257 as in run one, got 300"):
        check_evaluation(run, CONFIG, Data(opened, DataFacts(300), 1), named=False)


def test_a_run_without_recorded_tokenizers_is_used(run: Run, dataset: Path) -> None:
    trained_on(run, Dataset.open(dataset))
    (run.path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected the tokenizer of run one, got no file\. Copy it from"):
        check_use(run)
    del run.record["dataset"]["tokenizers"]
    check_use(run)


def test_the_history_of_a_run_names_what_changed_its_results(run: Run, dataset: Path) -> None:
    trained_on(run, Dataset.open(dataset))
    lr = "model.init_args.optimizer.init_args.lr"
    run.begin_attempt(1, 0)
    run.begin_attempt(1, 5, changes={"trainer.devices": [1, 2]})
    run.begin_attempt(1, 9, changes={"trainer.max_steps": [10, 20], "guard.spike": [None, 20.0], lr: [0.1, 0.01]})
    later = f"guard.spike=20.0, previously None; {lr}=0.01, previously 0.1"
    assert history(run) == [f"run one changed in attempt 3: {later}"]
    assert history(Run(run.path, {"attempts": [{"number": 1}], "dataset": {"path": "gone", "checksum": "0"}})) == []
