"""Texts that a task writes in an evaluation: each process its own rows, scored all together."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.evaluation.metrics import Score
from pipeline.files import write_durably
from pipeline.generation.text_stream import text_of

NOTHING: Mapping[str, str] = {}


class Written:
    """Texts by row of the split under evaluation."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.kept: Path | None = None  # where the texts of the last evaluation are

    def add(
        self, data: Any, split_name: str, ids: Sequence[int], rows: int | None, write: Callable[[list[int]], Any]
    ) -> None:
        """Write a text for each row of which the first sample is in a batch.

        Args:
            data: the DataModule.
            split_name: of the samples.
            ids: of the batch.
            rows: only the first so many of the split are written for; all where it is None.
            write: gives the tokens for places in the batch.
        """
        split = data.dataset.splits[split_name]
        found = [(at, split.row_of(sample), sample) for at, sample in enumerate(ids) if sample >= 0]
        mine = [(at, row) for at, row, sample in found if split.first_samples[row] == sample]
        mine = [(at, row) for at, row in mine if rows is None or row < rows]
        if not mine:
            return
        for (_, row), tokens in zip(mine, write([at for at, _ in mine]), strict=True):
            self.texts[row] = text_of(data.tokenizer, data.dataset.target.eos, tokens)

    def score(
        self, task: Any, split_name: str, scores: Sequence[Score], beside: Mapping[str, str] = NOTHING
    ) -> dict[str, float]:
        """What the scores say of the texts of all processes, which are forgotten.

        Args:
            task: what wrote them.
            split_name: of the rows.
            scores: how they are scored.
            beside: texts that are scored beside them, each in the place of all; by what their scores' names begin with.
        """
        texts = self._everyone(task.trainer.world_size)
        split = task.trainer.datamodule.dataset.splits[split_name]
        references = [split.references(row) for row in texts]
        values: dict[str, float] = {}
        said = {"": [*texts.values()], **{name: [text] * len(texts) for name, text in beside.items()}}
        for which, written in said.items() if texts else ():
            for score in scores:
                values |= {f"{which}{name}": value for name, value in score(written, references).items()}
        if texts and task.trainer.state.fn != "fit" and task.trainer.is_global_zero:
            self._keep(task.trainer, texts, references, split_name)
        return values

    def report(self, scores: Sequence[Score]) -> list[str]:
        """How scores are computed that come in several ways, and where the texts are."""
        signed = [score.signature() for score in scores]
        return [f"  {line}" for line in (*signed, self.kept and f"the texts: {self.kept}") if line]

    def _keep(self, trainer: Any, texts: dict[int, str], references: Sequence[Sequence[str]], split_name: str) -> None:
        """Write the texts into the run, a line of JSON each, with their sources and what they should have been."""
        data = trainer.datamodule
        split = data.dataset.splits[split_name]
        lines = []
        for (row, text), right in zip(texts.items(), references, strict=True):
            source = {} if data.shown is None else {"source": split.value(data.shown, row)}
            lines.append(
                json.dumps({"row": row, **source, "text": text, "references": right}, ensure_ascii=False) + "\n"
            )
        self.kept = Path(trainer.default_root_dir) / f"written-{split_name}.jsonl"
        write_durably(self.kept, lambda path: path.write_text("".join(lines), encoding="utf-8"))

    def _everyone(self, processes: int) -> dict[int, str]:
        """The texts of all processes, by row in order."""
        mine, self.texts = self.texts, {}
        if processes == 1:
            return dict(sorted(mine.items()))
        parts: list[Any] = [None] * processes
        torch.distributed.all_gather_object(parts, mine)
        return dict(sorted((row, text) for part in parts for row, text in part.items()))
