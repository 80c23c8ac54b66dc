"""Generate a dataset of a synthetic memory task: copy, selective copy, association or adding.

`unroll prepare recall copy --length 1000 --output data/copy`. All samples are drawn from the seed; sample n of a split
does not depend on the number of samples. Tasks with symbols become pairs of question and answer, which
`pipeline.data.recall` reads. The adding task becomes series whose last step is the sum, which `pipeline.data.series`
reads.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, fields

import numpy as np
import pyarrow as pa

from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.shards import Shards
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.dataset.codecs.series_table import TableLayout
from pipeline.dataset.codecs.time_format import COUNT
from pipeline.dataset.recall import ADDING_CHANCE, Association, Copy, Recall, SelectiveCopy, adding
from pipeline.dataset.series import Series, write_series
from pipeline.dataset.shard import token_type
from pipeline.errors import ConfigError

PROGRAM = "unroll prepare recall"
SYMBOLS: dict[str, type[Recall]] = {"copy": Copy, "selective-copy": SelectiveCopy, "association": Association}
ADDING, ADDING_LENGTH = "adding", 600
EXAMPLES = """examples (the default sizes of copy and adding are those of Bai, Kolter and Koltun 2018):
  unroll prepare recall copy --length 100 --output data/copy
  unroll prepare recall adding --length 200 --train 20000 --output data/adding"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("task", choices=[*SYMBOLS, ADDING], help="memory task")
    shared.add_output(parser)
    length = "number of blanks or addends (default: copy 1000, selective-copy 256, association 0, adding 600)"
    add("--length", type=non_negative_integer, metavar="N", help=length)
    items = "number of values to remember (default: copy 10, selective-copy 10, association 8)"
    add("--items", type=positive_integer, metavar="N", help=items)
    symbols = "number of different values (default: copy 8, selective-copy 8, association 16)"
    add("--symbols", type=positive_integer, metavar="N", help=symbols)
    for name, default in zip(SPLITS, (10_000, 1_000, 1_000), strict=True):
        described = f"number of samples for {name} (default: %(default)s)"
        add(f"--{name}", type=positive_integer, default=default, metavar="N", help=described)
    shared.add_seed(parser, 1, "all samples")
    return parser


def main(argv: list[str]) -> int:
    """Generate a dataset from the command line and print the scores of a model without memory.

    Raises:
        ConfigError: the sizes contradict each other.
        DataError: the output exists.
    """
    options = _parser().parse_args(argv)
    shared.check(options)
    sizes = {name: value for name in ("length", "items", "symbols") if (value := getattr(options, name)) is not None}
    make = _Adding(options, sizes) if options.task == ADDING else _Symbols(options, sizes)
    began = time.monotonic()
    place = shared.workplace(options)
    with place.entered(fresh=True):  # Drawing the samples again takes seconds.
        manifest = {
            **make.write(place),
            "recall": {"task": options.task, **make.sizes, "chance": make.chance},
            **origin(PROGRAM, argv, [], "numpy", "pyarrow"),
        }
        place.publish(manifest, {"chance": make.chance}, options.overwrite)
    print(f"{options.output} in {time.monotonic() - began:.1f} s: {make.about}")
    for name, value in make.chance.items():
        print(f"  without memory, {name.replace('_', ' ')}: {value:.4f}")
    return 0


class _Symbols:
    """Writes the samples of a task with symbols as pairs of question and answer."""

    def __init__(self, options: argparse.Namespace, sizes: dict[str, int]) -> None:
        try:
            self.task = SYMBOLS[options.task](**sizes)
        except ValueError as error:
            raise ConfigError(f"{options.task}: {error}") from error
        self.options, self.sizes, self.chance = options, asdict(self.task), self.task.chance
        shape = ", ".join(f"{field.name} {getattr(self.task, field.name)}" for field in fields(self.task))
        self.about = f"{options.task} with {shape}"

    def write(self, place: Workplace) -> dict[str, object]:
        """Write the shards and the tokenizer and return the manifest's entries."""
        from data_prep.workspace import tokenizer

        made = tokenizer.word([" ".join(self.task.words)])
        ids = np.array([made.token_to_id(word) for word in self.task.words])
        described = vocabulary(place.save(made), made)
        columns = {"source": pa.list_(pa.from_numpy_dtype(token_type(len(ids)))), "text": pa.string()}
        splits = {}
        for name in SPLITS:
            shards = Shards(place.path, name, columns, len(ids))
            for rng in _generators(self.options, name):
                question, answer = self.task.draw(rng)
                texts = [" ".join(self.task.words[one] for one in part) for part in (question, answer)]
                shards.add({"source": ids[question].tolist(), "text": texts[0]}, [(ids[answer].tolist(), texts[1])])
            splits[name] = shards.close()
        return {"kind": "pairs", "splits": splits, **described, "source": described}


class _Adding:
    """Writes the samples of the adding task as series whose last step, the sum, is the only one predicted."""

    def __init__(self, options: argparse.Namespace, sizes: dict[str, int]) -> None:
        self.length = sizes.pop("length", ADDING_LENGTH)
        if sizes or self.length < 2:
            given = ", ".join([f"--length={self.length}", *(f"--{name}={size}" for name, size in sizes.items())])
            raise ConfigError(f"adding: expected --length of at least 2 and no other size, got {given}")
        self.options, self.sizes, self.chance = options, {"length": self.length}, {"mse": ADDING_CHANCE}
        self.about = f"two of {self.length} numbers; train with --data.init_args.context {self.length}"

    def write(self, place: Workplace) -> dict[str, object]:
        """Write the shard, which all splits share, and return the manifest's entries."""
        shard = write_series(place.path / "series.arrow", list(self._series()))
        splits = {}
        for name in SPLITS:
            counts = {"series": shard.rows, "steps": getattr(self.options, name) * (self.length + 1), "covariates": 1}
            splits[name] = {**counts, "shards": [shard._asdict()]}
        about = {
            **TableLayout("step", (), (ADDING,), ("mark",), False).as_json(),
            **{"unit": COUNT, "step": 1, "season": 1, "covariates": ["mark"]},
            **{"covariate_mean": [0.0], "covariate_deviation": [1.0], "scaling": {ADDING: (0.0, 1.0)}},
        }
        return {"kind": "series", "splits": splits, "series": about}

    def _series(self) -> Iterator[Series]:
        steps = self.length + 1
        for part, name in enumerate(SPLITS):
            edges = tuple(steps if border > part else 0 for border in range(len(SPLITS) + 1))
            for rng in _generators(self.options, name):
                numbers, marks, total = adding(self.length, rng)
                values, known = np.append(numbers, np.float32(total)), np.append(marks, np.float32(0))
                yield Series(ADDING, 0, edges, 0.0, values, np.ones(steps, bool), known[:, None])


def _generators(options: argparse.Namespace, split: str) -> Iterator[np.random.Generator]:
    """Yield the random generator of each sample of a split."""
    for number in range(getattr(options, split)):
        yield np.random.default_rng((options.seed, SPLITS.index(split), number))


if __name__ == "__main__":
    shared.run_as_script(main)
