"""Texts generated in an evaluation: each process generates its own rows, and all are scored together."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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
        self.scores: Sequence[Score] = ()  # of the last evaluation
        self.counted = ""  # number of texts of the last evaluation, and of rows of its split
        self.is_sample = False  # whether that is a part of the rows

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
        self,
        task: "Task",
        split_name: str,
        scores: Sequence[Score],
        baselines: Mapping[str, Callable[[int], str]] | None = None,
    ) -> dict[str, float]:
        """Return the scores of the texts of all processes, and clear the texts.

        Args:
            task: the task that generated them.
            split_name: name of the split.
            scores: the scores to compute.
            baselines: functions from a row to a text to score in place of the generated one, by the prefix of the
                names of their scores.
        """
        texts = self._gather(task.trainer.world_size)
        split = task.data.dataset.splits[split_name]
        references = [split.references(row) for row in texts]
        self.scores, self.is_sample = scores, 0 < len(texts) < split.rows
        self.counted = f"{len(texts):,} of {split.rows:,}"
        values: dict[str, float] = {}
        hypotheses = {"": [*texts.values()]}
        hypotheses |= {name: [write(row) for row in texts] for name, write in (baselines or {}).items()}
        for prefix, generated in hypotheses.items() if texts else ():
            for score in scores:
                values |= {f"{prefix}{name}": value for name, value in score(generated, references).items()}
        if texts and task.trainer.state.fn != "fit" and task.trainer.is_global_zero:
            self._keep(task, texts, references, split_name)
        return values

    @property
    def scored(self) -> str:
        """How many texts the last evaluation scored; empty if it scored all, or none."""
        return f"scored {self.counted} texts" if self.is_sample else ""

    def report(self) -> list[str]:
        """Return the signatures of the scores that have variants, and the file with the texts and their number."""
        signatures = [score.signature() for score in self.scores]
        kept = self.kept and f"generated texts: {self.kept} ({self.counted})"
        return [f"  {line}" for line in (*signatures, kept) if line]

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


Baselines = dict[str, Callable[[int], str]]
"""Functions from a row to a text without a model, by the prefix of the names of their scores."""


def baselines(data: "PlannedDataModule", split_name: str) -> Baselines:
    """Return the baselines of the scores, counted in the training split."""
    constant = commonest_target(data)
    found: Baselines = {"commonest_": lambda row: constant}
    if data.dataset.source is not None and (counts := paired_tokens(data)):
        split, target = data.dataset.splits[split_name], data.dataset.target
        usual = Counter(counts.values()).most_common(1)[0][0]  # for a source token that training does not have

        def translate(row: int) -> str:
            tokens = [counts.get(int(token), usual) for token in split.value("source", row)]
            return text_of(data.tokenizer, target.eos, tokens)

        found["per_token_"] = translate
    return found


def commonest_target(data: "PlannedDataModule") -> str:
    """Return the most common target of the training split, the first one among ties: a baseline of scores."""
    split = data.dataset.splits["train"]
    counts: Counter[str] = Counter(text for row in range(split.rows) for text in split.references(row))
    return counts.most_common(1)[0][0]


def paired_tokens(data: "PlannedDataModule") -> dict[int, int]:
    """Return the most common target token at the place of each source token, in training pairs of equal length.

    It is the phoneme of each letter, or a dictionary of words. Empty if no source has the length of its target.
    """
    split = data.dataset.splits["train"]
    rows = np.repeat(np.arange(split.rows), np.diff(split.first_samples))
    equal = np.flatnonzero(split.lengths("source")[rows] == split.target_lengths)
    if not len(equal):
        return {}
    sources = np.concatenate([np.asarray(split.value("source", row), np.int64) for row in rows[equal].tolist()])
    targets = np.concatenate([split.target(sample).astype(np.int64) for sample in equal.tolist()])
    pairs, counts = np.unique(np.stack([sources, targets]), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most common one is stored last
    return dict(pairs[:, order].T.tolist())
