"""Texts generated in an evaluation: each process generates its own rows, and all are scored together."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.evaluation.metrics import Score
from pipeline.files import write_durably
from pipeline.generation.text_stream import text_of

if TYPE_CHECKING:
    from pipeline.data.module import PlannedDataModule
    from pipeline.tasks.task import Task


class GeneratedTexts:
    """Generated texts, by row of the split under evaluation."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.kept: Path | None = None  # file with the texts of the last evaluation

    def add(
        self,
        data: "PlannedDataModule",
        split_name: str,
        ids: Sequence[int],
        rows: int | None,
        write: Callable[[list[int]], list[list[int]]],
    ) -> None:
        """Generate a text for each row whose first sample is in a batch.

        Args:
            data: the DataModule.
            split_name: name of the split.
            ids: samples of the batch.
            rows: number of rows to generate for, evenly spaced over the split; None for all.
            write: returns the tokens for positions in the batch.
        """
        split = data.dataset.splits[split_name]
        found = [(at, split.row_of(sample), sample) for at, sample in enumerate(ids) if sample >= 0]
        mine = [(at, row) for at, row, sample in found if split.first_samples[row] == sample]
        if rows is not None:
            mine = [(at, row) for at, row in mine if is_scored(row, split.rows, rows)]
        if not mine:
            return
        for (_, row), tokens in zip(mine, write([at for at, _ in mine]), strict=True):
            self.texts[row] = text_of(data.tokenizer, data.dataset.target.eos, tokens)

    def score(
        self, task: "Task", split_name: str, scores: Sequence[Score], constants: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Return the scores of the texts of all processes, and clear the texts.

        Args:
            task: the task that generated them.
            split_name: name of the split.
            scores: the scores to compute.
            constants: constant texts to score in place of the generated ones, by the prefix of their scores' names.
        """
        texts = self._gather(task.trainer.world_size)
        split = task.data.dataset.splits[split_name]
        references = [split.references(row) for row in texts]
        values: dict[str, float] = {}
        hypotheses = {"": [*texts.values()], **{name: [text] * len(texts) for name, text in (constants or {}).items()}}
        for prefix, generated in hypotheses.items() if texts else ():
            for score in scores:
                values |= {f"{prefix}{name}": value for name, value in score(generated, references).items()}
        if texts and task.trainer.state.fn != "fit" and task.trainer.is_global_zero:
            self._keep(task, texts, references, split_name)
        return values

    def report(self, scores: Sequence[Score]) -> list[str]:
        """Return the signatures of the scores that have variants, and the file with the texts."""
        signatures = [score.signature() for score in scores]
        return [f"  {line}" for line in (*signatures, self.kept and f"generated texts: {self.kept}") if line]

    def _keep(self, task: "Task", texts: dict[int, str], references: Sequence[Sequence[str]], split_name: str) -> None:
        """Write the texts to a JSON Lines file in the run, with their sources and references."""
        split = task.data.dataset.splits[split_name]
        lines = []
        for (row, text), right in zip(texts.items(), references, strict=True):
            source = {} if task.data.shown is None else {"source": split.value(task.data.shown, row)}
            lines.append(
                json.dumps({"row": row, **source, "text": text, "references": right}, ensure_ascii=False) + "\n"
            )
        self.kept = Path(task.trainer.default_root_dir) / f"written-{split_name}.jsonl"
        write_durably(self.kept, lambda path: path.write_text("".join(lines), encoding="utf-8"))

    def _gather(self, processes: int) -> dict[int, str]:
        """Return the texts of all processes, in the order of the rows."""
        mine, self.texts = self.texts, {}
        if processes == 1:
            return dict(sorted(mine.items()))
        parts: list[dict[int, str]] = [{} for _ in range(processes)]
        torch.distributed.all_gather_object(parts, mine)
        return dict(sorted((row, text) for part in parts for row, text in part.items()))


def is_scored(row: int, rows: int, limit: int) -> bool:
    """Return whether a row is one of `limit` evenly spaced rows out of `rows`; all are if there are no more."""
    return limit >= rows or (row + 1) * limit // rows > row * limit // rows


def commonest_target(data: "PlannedDataModule") -> str:
    """Return the most common target of the training split, the first one among ties: a baseline of scores."""
    split = data.dataset.splits["train"]
    counts: Counter[str] = Counter(text for row in range(split.rows) for text in split.references(row))
    return counts.most_common(1)[0][0]
