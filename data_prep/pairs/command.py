"""Prepare a dataset of text pairs: translations, pronunciations, conversations with replies.

`unroll prepare pairs --train a.en a.de --output data/NAME`. Each row is a source with its target, or with all its
targets if `--group` is given.
"""

import argparse
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_prep.pairs.corpus import Corpus, rows
from data_prep.pairs.sources import is_hub
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin, vocabulary
from data_prep.workspace.shards import Shards, SplitEntry
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.shard import token_type
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROGRAM = "unroll prepare pairs"
SOURCE_TOKENIZER = "source_tokenizer.json"
UNGROUPED = "--group: no source has two targets"
BATCH = 2048  # rows encoded in one call, which uses all cores
EXAMPLES = """examples:
  unroll prepare pairs --train train.en train.de --validation val.en val.de --test test.en test.de \\
      --vocab-size 8000 --output data/en-de
  unroll prepare pairs deu.txt --source-field 1 --target-field 2 --output data/anki
  unroll prepare pairs cmudict.dict --pronunciations --group --source-tokenizer character \\
      --target-tokenizer word --output data/sounds
  unroll prepare pairs --train hub:opus_books:de-en --source-field translation.en --target-field translation.de \\
      --output data/books
  unroll prepare pairs --train dialogues.txt --dialogue __eou__ --history 3 --output data/talk"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    parser.add_argument("source", nargs="*", type=Path, metavar="FILE", help="the same as --train")
    shared.add_output(parser)
    files = parser.add_argument_group(
        "sources: two parallel files, one file with both sides (optionally .gz or .xz), or hub:NAME[:CONFIG[:SPLIT]]"
    )
    add = files.add_argument
    shared.add_splits(files, nargs="+", type=Path, default=[], metavar="FILE")
    shared.add_shares(files, 0.05, "training pairs")
    add("--delimiter", help="text between the columns of a line (default: a tab)")
    shared.add_field(files, "source", "the source in tables (or its number) and records, with dots for nested fields")
    shared.add_field(files, "target", "the target, in records a text or a list of texts")
    add("--pronunciations", action="store_true", help="read a pronouncing dictionary in the layout of CMUdict")
    dialogue = "read each line, or the list of texts in --source-field, as a conversation whose turns end with MARK"
    add("--dialogue", metavar="MARK", help=dialogue)
    history = "maximum number of turns in the source of a reply (default: %(default)s)"
    add("--history", type=positive_integer, default=3, metavar="N", help=history)
    kept = parser.add_argument_group("filters")
    add = kept.add_argument
    add("--group", action="store_true", help="merge equal sources into one row, for which any target is correct")
    add(
        "--deduplicate",
        action=argparse.BooleanOptionalAction,
        help="drop duplicates, and sources of other splits, from the pairs of --train (default: only with --dialogue)",
    )
    add("--lowercase", action="store_true", help="convert both sides to lower case")
    add(
        "--max-length",
        type=positive_integer,
        metavar="N",
        help="drop pairs with more than N tokens on either side from training",
    )
    shared.add_max_bad_share(kept, "pairs")
    tokens = parser.add_argument_group("tokens, of both sides together or of each side")
    add = tokens.add_argument
    shared.add_tokenizer(tokens, "bpe")
    add("--source-tokenizer", metavar="KIND", help="tokenizer of the sources (default: --tokenizer)")
    add("--target-tokenizer", metavar="KIND", help="tokenizer of the targets (default: --tokenizer)")
    add(
        "--source-vocab-size",
        type=positive_integer,
        metavar="N",
        help="maximum vocabulary size of the sources (default: --vocab-size)",
    )
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of pairs from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options)
    with place.entered(fresh=True):  # Preparing all pairs again takes little time.
        corpus = Corpus(options)
        splits = _prepare(place, corpus, options, argv)
    print("\n".join(corpus.report.lines()))
    for name, entry in splits.items():
        unknown = ", ".join(f"{number:,} unknown in {side}" for side, number in corpus.unknown[name].items() if number)
        counts = f"{entry['rows']:,} sources, {entry['samples']:,} targets, {entry['tokens']:,} tokens"
        print(f"{name}: {counts}{', ' * bool(unknown)}{unknown}")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    if bool(options.source) == bool(options.train):
        given = "both FILE... and --train" if options.train else "none"
        raise ConfigError(f"expected one file with both sides, or two: --train SOURCES TARGETS, got {given}")
    options.train = options.train or options.source
    if options.dialogue and options.pronunciations:
        raise ConfigError("--dialogue and --pronunciations cannot be combined. Omit one of the two")
    if bool(options.source_tokenizer) != bool(options.target_tokenizer):
        raise ConfigError(
            "--source-tokenizer and --target-tokenizer must be given together. For both sides use --tokenizer"
        )
    shared.check(options)


def _prepare(place: Workplace, corpus: Corpus, options: argparse.Namespace, argv: list[str]) -> dict[str, SplitEntry]:
    for name in corpus.splits[:-1]:  # Collect the held-out units, against which training is deduplicated.
        for _ in corpus.units(name, False):
            pass
    source, target = _tokenizers(corpus, options)
    entry = vocabulary(place.save(target), target)
    of_source = entry if source is target else vocabulary(place.save(source, SOURCE_TOKENIZER), source)
    splits = {}
    for name in corpus.splits:
        splits[name] = _write(place.path, name, corpus, options, source, target)
        if not splits[name]["samples"]:
            given = name if name in corpus.files else "train"
            first = next(corpus.units(given, given != name), None)  # counts all lines if none is a valid pair
            if first is None or given == name:
                corpus.report.check(options.max_bad_share)
            if first is None:
                raise DataError(f"no pair in {', '.join(map(str, corpus.files[given]))}. Check the files of --{given}")
            raise DataError(f"the {name} split is empty. Name files with --{name}, or change the shares")
    corpus.report.check(options.max_bad_share)
    if options.group and all(entry["rows"] == entry["samples"] for entry in splits.values()):
        corpus.report.note(str(options.train[0]), UNGROUPED)
    files = [path for named in corpus.files.values() for path in named if not is_hub(path)]
    manifest = {
        "kind": "pairs",
        "splits": {name: splits[name] for name in SPLITS if name in splits},
        **entry,
        "source": of_source,
        **origin(PROGRAM, argv, files, "tokenizers", "pyarrow"),
    }
    if options.dialogue:
        manifest["dialogue"] = {"mark": options.dialogue, "history": options.history}
    place.publish(manifest, _report(corpus), options.overwrite)
    return splits


def _report(corpus: Corpus) -> dict[str, object]:
    """Return the content of report.json."""
    unknown = {split: dict(counts) for split, counts in corpus.unknown.items()}
    return corpus.report.as_json() | {"unknown_tokens": unknown}


def _tokenizers(corpus: Corpus, options: argparse.Namespace) -> tuple["Tokenizer", "Tokenizer"]:
    """Return the tokenizers of sources and targets, which are the same object if both sides share one."""
    from data_prep.workspace import tokenizer

    def make(kind: str, side: slice, size: int | None) -> "Tokenizer":
        texts = (text for unit in corpus.units("train", False) for pair in unit.pairs for text in pair[side])
        made = tokenizer.build(kind, texts, size, options.dialogue)
        return tokenizer.lowercased(made) if options.lowercase else made

    if not options.source_tokenizer:
        both = make(options.tokenizer, slice(0, 2), options.vocab_size)
        return both, both
    source_size = options.source_vocab_size or options.vocab_size
    source = make(options.source_tokenizer, slice(0, 1), source_size)
    return source, make(options.target_tokenizer, slice(1, 2), options.vocab_size)


def _write(
    folder: Path, split: str, corpus: Corpus, options: argparse.Namespace, source: "Tokenizer", target: "Tokenizer"
) -> SplitEntry:
    """Encode a split, write its shards and return the manifest's entry."""
    from data_prep.workspace import tokenizer

    found = rows(corpus.units(split, True), options.group)
    numbers = pa.list_(pa.from_numpy_dtype(token_type(tokenizer.size(source))))
    shards = Shards(folder, split, {"source": numbers, "text": pa.string()}, tokenizer.size(target))
    limit = options.max_length if split == "train" else None
    corpus.unknown[split] = unknown = Counter(sources=0, targets=0)
    source_unk, target_unk = tokenizer.unknown_id(source), tokenizer.unknown_id(target)
    while batch := list(islice(found, BATCH)):
        sources = [encoding.ids for encoding in source.encode_batch_fast([text for _, text, _ in batch])]
        flat = target.encode_batch_fast([text for _, _, texts in batch for text in texts])
        targets = iter(encoding.ids for encoding in flat)
        for (name, text, texts), ids in zip(batch, sources, strict=True):
            made = [(next(targets), each) for each in texts]
            kept = [each for each in made if limit is None or max(len(ids), len(each[0])) <= limit]
            for _ in range(len(made) - len(kept)):
                corpus.report.leave_out(name, f"longer than {limit} tokens: dropped from training")
            if kept:
                shards.add({"source": ids, "text": text}, kept)
                unknown["sources"] += ids.count(source_unk)
                unknown["targets"] += sum(tokens.count(target_unk) for tokens, _ in kept)
    return shards.close()


if __name__ == "__main__":
    shared.run_as_script(main)
