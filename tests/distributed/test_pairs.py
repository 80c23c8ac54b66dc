"""Translation runs continue exactly, with the same losses and scores on any number of processes."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pipeline.cli import main
from pipeline.evaluation.metrics import Score
from tests.distributed.fixture_types import Fit, Rows, State
from tests.sweep import also

CONFIG = """
model:
  class_path: pipeline.models.assemblies.translators.{name}
  init_args:
    {{width: 16, depth: 1, dropout: {dropout}, optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}},
      evaluation: {{scores: [{{class_path: tests.distributed.test_pairs.Exact}}], tokens: 12, validation_rows: 20}}}}
data:
  class_path: pipeline.data.pairs.PairsDataModule
  init_args: {{dataset: {dataset}, global_batch_tokens: 120}}
"""


class Exact(Score):
    """The fraction of texts that equal one of their references."""

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return the fraction, and the number of texts."""
        right = [one in any_of for one, any_of in zip(hypotheses, references, strict=True)]
        return {"exact": sum(right) / len(right), "texts": float(len(right))}


@pytest.fixture
def translate(fit: Fit, tiny_pairs_dataset: Path, tmp_path: Path) -> Fit:
    """`translate(RUN, KEY, VALUE, ..., model=NAME)` is `fit` for a translator."""

    def translate(
        run: str, *overrides: object, model: str = "AttentionTranslator", exact: bool = False, **rest: object
    ) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        settings = {"name": model, "dropout": dropout, "optimizer": optimizer, "dataset": tiny_pairs_dataset}
        (tmp_path / f"{model}.yaml").write_text(CONFIG.format(**settings))
        return fit(run, *overrides, model=f"assemblies.translators.{model}", **rest)

    return translate


def assert_equal(one: dict[str, object], two: dict[str, object]) -> None:
    """Step, weights and optimizer are the same numbers."""
    assert one["global_step"] == two["global_step"]
    for part in ("state_dict", "optimizer_states"):
        left, right = (torch.utils._pytree.tree_leaves(state[part]) for state in (one, two))
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(left, right, strict=True)
        )


@pytest.mark.parametrize(
    ("model", "processes"),
    [
        *[("LSTMTranslator", 1), ("AttentionTranslator", 2), ("TransformerTranslator", 1)],
        *also(("LSTMTranslator", 2), ("AttentionTranslator", 1), ("TransformerTranslator", 2)),
    ],
)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(
    translate: Fit, state: State, model: str, processes: int
) -> None:
    keys = ["data.init_args.workers", 1 if model == "AttentionTranslator" else 0, "trainer.devices", processes]
    assert translate("straight", *keys, model=model) == 0
    assert translate("killed", *keys, model=model, die=(signal.SIGTERM, 4)) == 75
    assert translate("killed", *keys, model=model, die=(signal.SIGKILL, 9)) == 128 + signal.SIGKILL
    assert translate("killed", *keys, model=model) == 0
    assert_equal(state("straight"), state("killed"))


def test_a_run_moves_between_processes_and_micro_batches(translate: Fit, state: State, rows: Rows) -> None:
    assert translate("straight", exact=True) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_tokens", 30]
    assert translate("moved", exact=True, die=(signal.SIGTERM, 5)) == 75
    assert translate("moved", *two, exact=True, die=(signal.SIGTERM, 9)) == 75
    assert translate("moved", exact=True) == 0
    for name, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("moved")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    assert rows("moved")[-1]["tokens"] == rows("straight")[-1]["tokens"]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_source_is_written_from_once(translate: Fit, rows: Rows, processes: int, tmp_path: Path) -> None:
    assert translate("scored", "trainer.devices", processes, exact=True) == 0
    validated = [row for row in rows("scored") if "val/texts" in row]
    assert [row["val/texts"] for row in validated] == [20.0] * len(validated)
    assert validated
    samples = [row for row in map(json.loads, (tmp_path / "runs/scored/journal.jsonl").open()) if "samples" in row]
    assert len(samples[0]["samples"]) == 1  # see conftest.py
    assert all(0 <= row["train/padding"] < 1 for row in rows("scored") if "train/loss" in row)


def test_what_a_test_wrote_is_kept_signed_grouped_and_written_again_by_the_exported_model(
    translate: Fit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = "[pipeline.evaluation.text_scores.BLEU, pipeline.evaluation.text_scores.ExactMatch]"
    assert translate("a", "model.init_args.evaluation.scores", scores) == 0
    assert main(["test", "--run", "a"]) == 0
    printed = capfd.readouterr().out
    assert "test/exact_match" in printed
    assert "BLEU|nrefs:var|case:mixed|eff:no|tok:13a" in printed
    assert "generated texts: runs/a/written-test.jsonl" in printed.replace(str(tmp_path) + "/", "")
    rows = [json.loads(line) for line in (tmp_path / "runs/a/written-test.jsonl").open()]
    assert [row["row"] for row in rows] == [*range(len(rows))]
    assert main(["checkpoint", "export", "a", "--output", "out"]) == 0
    assert "| encoder | BidirectionalEncoder |" in Path("out/README.md").read_text()
    capfd.readouterr()
    sources = [row["source"] for row in rows[:3]]
    assert main(["generate", "out", "--prompt", *sources, "--tokens", "12", "--json"]) == 0
    again = [json.loads(line)["text"] for line in capfd.readouterr().out.splitlines()]
    assert again == [row["text"] for row in rows[:3]]
    assert main(["by-length", "a", "--groups", "2"]) == 0
    assert capfd.readouterr().out.count("\n") == 5
