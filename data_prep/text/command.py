"""Text becomes a dataset: read, split, tokenized and written, in parallel and resumably.

`unroll prepare text SOURCE... --output data/NAME`.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.sources.text_files import DOCUMENTS
from data_prep.text.corpus import CUTS, Corpus
from data_prep.text.encode import TextWriter
from data_prep.workspace.options import check_output
from data_prep.workspace.report import Report, progress
from data_prep.workspace.workspace import SPLITS, Workplace, train_once
from pipeline.arguments import Parser, count, share
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.files import sha256

PROGRAM = "unroll prepare text"
LEARNED = ("bpe", "unigram")  # tokenizers whose training wants memory that grows with the text
NOT_SHAPING = (
    "output",
    "overwrite",
    "streaming",
    "max_bad_share",
    "workers",
)  # options that leave the result the same

SOURCES = """file or directory (.txt .tokens .jsonl .parquet, plain, .gz or .xz), '-' for standard input,
hub:NAME[:CONFIG[:SPLIT]] or 'builtin' (Python's language reference)"""
SHARD_BYTES = "bytes of text between two points from which a stopped preparation continues (default: 2**28)"
MAX_BAD_SHARE = "fail above this share of unreadable records (default: 0.01)"
TOKENIZER = "byte, character, word, bpe (default), unigram or an existing tokenizer.json"
VOCAB_SIZE = "most tokens, marks included (default: 8192 for bpe and unigram, else all)"
TOKENIZER_BYTES = "bpe and unigram learn from at most the first N characters of the training split (default: 2**30)"
EXAMPLES = """examples:
  unroll prepare text builtin --tokenizer bpe --vocab-size 2048 --output data/pydoc
  unroll prepare text corpus.txt --tokenizer character --cut tail --validation-share 0.1 --test-share 0 \\
      --output data/corpus
  unroll prepare text --train train.txt --validation valid.txt --documents line --tokenizer word \\
      --output data/words
  unroll prepare text hub:roneneldan/TinyStories --streaming --output data/stories
A preparation that was stopped continues when the same command is given again."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    add("--output", required=True, type=Path, metavar="DIR", help="the dataset to make")
    add("--overwrite", action="store_true", help="replace a dataset that is there")
    add(
        "--workers",
        type=count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: all cores)",
    )
    add("--shard-bytes", type=count, default=1 << 28, metavar="N", help=SHARD_BYTES)
    _add_splits(parser.add_argument_group("splits, cut from the sources or given"))
    _add_documents(parser.add_argument_group("documents"))
    _add_tokens(parser.add_argument_group("tokens"))
    return parser


def _add_splits(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    for name in SPLITS:
        add(
            f"--{name}",
            nargs="+",
            default=[],
            metavar="SOURCE",
            help=f"the {name} split, instead of SOURCE...",
        )
    add("--validation-share", type=share, default=0.05, metavar="SHARE", help="default 0.05")
    add("--test-share", type=share, default=0.05, metavar="SHARE", help="default 0.05")
    add(
        "--cut",
        choices=CUTS,
        default="hash",
        help="by a hash of the document (default), or the last of the text",
    )


def _add_documents(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--documents",
        choices=DOCUMENTS,
        default="file",
        help="what in a text file is a document (default: file)",
    )
    add("--keep-empty", action="store_true", help="empty documents, such as blank lines, are documents too")
    add("--field", default="text", help="where JSON, Parquet and hub records hold their text (default: text)")
    add("--streaming", action="store_true", help="read hub data without caching them")
    add("--max-bad-share", type=share, default=0.01, metavar="SHARE", help=MAX_BAD_SHARE)


def _add_tokens(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tokenizer", default="bpe", metavar="KIND", help=TOKENIZER)
    add("--vocab-size", type=count, metavar="N", help=VOCAB_SIZE)
    add("--tokenizer-bytes", type=count, default=1 << 30, metavar="N", help=TOKENIZER_BYTES)


def main(argv: list[str]) -> int:
    """Prepare a text dataset as the command line asks.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used; the message names it.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = Workplace(options.output.resolve(), _shaping(options))
    with place.entered():
        report, writer, encoded = _prepare(place, options, argv)
    seconds = time.monotonic() - began
    print("\n".join(report.lines()))
    for name, total in writer.splits().items():
        unknown = f", {total.unknown:,} of them <unk>" if total.unknown else ""
        print(f"{name}: {total.documents:,} documents, {total.tokens:,} tokens{unknown}, {total.bytes:,} bytes")
    speed = f"{encoded / seconds:,.0f} tokens/s with {options.workers} workers"
    print(f"{options.output} in {seconds:.1f} s: {speed}")
    return 0


def _check(options: argparse.Namespace) -> None:
    given = options.train or options.validation or options.test
    if bool(options.sources) == bool(given):
        raise ConfigError("name sources to cut, or give --train (and --validation, --test): one of the two")
    if given and not options.train:
        raise ConfigError("--validation and --test come with --train: the tokenizer learns from the training split")
    if options.validation_share + options.test_share >= 1:
        raise ConfigError("--validation-share and --test-share leave nothing to train on")
    check_output(options.output, options.overwrite)


def _shaping(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides what the dataset will be, save for the sources themselves."""
    shaping = {name: value for name, value in vars(options).items() if name not in NOT_SHAPING}
    if (existing := Path(options.tokenizer)).is_file():
        shaping["tokenizer"] = sha256(existing)
    return shaping | _versions()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("unroll", "tokenizers", "pyarrow")}


def _prepare(place: Workplace, options: argparse.Namespace, argv: list[str]) -> tuple[Report, TextWriter, int]:
    """Make the dataset and publish it; returns the report, what was written and the tokens that this start encoded."""
    place.recall()
    corpus = Corpus(options, place.work)
    place.begin(corpus.fingerprint())
    train_once(place, lambda: _tokenizer(corpus, options))
    writer = TextWriter(place)
    if before := writer.tokens:
        print(f"continuing after {before:,} tokens", file=sys.stderr)
    report = Report()
    with ThreadPoolExecutor(1) as beside:  # hashing leaves the interpreter to the others
        hashed = [beside.submit(sha256, name.path) for name in corpus.names]
        steps = writer.write(corpus.pieces(report), options.workers, options.shard_bytes)
        for _ in progress(steps, "encoding", corpus.total, lambda: corpus.done):
            pass
    report.check(options.max_bad_share)
    if not report.documents:
        place.forget()
        raise DataError(
            f"there is no text in the sources ({report.empty} empty documents); see --documents and --field"
        )
    _check_splits(writer, options)
    sources = [
        {"name": name.shown, "size": name.path.stat().st_size, "sha256": digest.result()}
        for name, digest in zip(corpus.names, hashed, strict=True)
    ]
    _publish(writer, options, report, {"sources": sources, "command": [*PROGRAM.split(), *argv]})
    return report, writer, writer.tokens - before


def _tokenizer(corpus: Corpus, options: argparse.Namespace) -> Any:
    from data_prep.workspace import tokenizer

    if options.tokenizer not in tokenizer.TRAINED:
        return tokenizer.load(Path(options.tokenizer))
    report = Report()

    def texts() -> Iterator[str]:
        yield from corpus.training_texts(report, limit)
        report.check(options.max_bad_share)
        if not report.documents:
            raise DataError("there is no text in the sources; see --documents and --field")
        if options.tokenizer in LEARNED:
            print("choosing the tokens of the vocabulary", file=sys.stderr, flush=True)  # minutes, for much text

    limit = options.tokenizer_bytes if options.tokenizer in LEARNED else float("inf")
    return tokenizer.TRAINED[options.tokenizer](texts(), options.vocab_size)


def _check_splits(writer: TextWriter, options: argparse.Namespace) -> None:
    shares = {"train": 1.0, "validation": options.validation_share, "test": options.test_share}
    for name in SPLITS:
        wanted = getattr(options, name) or (options.sources and shares[name])
        if wanted and name not in writer.totals:
            writer.place.forget()  # the same command would end the same way
            cut = "for few documents use --cut tail" if options.sources else "see --documents and --field"
            raise DataError(f"no document fell to the {name} split; {cut}")


def _publish(writer: TextWriter, options: argparse.Namespace, report: Report, origin: dict[str, Any]) -> None:
    place, encoder, totals = writer.place, writer.encoder, writer.splits()
    file = {
        "file": place.tokenizer.name,
        "size": place.tokenizer.stat().st_size,
        "sha256": sha256(place.tokenizer),
    }
    counted = {
        name: {
            "documents": total.documents,
            "tokens": total.tokens,
            "bytes": total.bytes,
            "shards": total.shards,
        }
        for name, total in totals.items()
    }
    vocabulary = {"tokenizer": file, "vocab_size": encoder.vocab_size, "eos": encoder.eos}
    manifest = {"kind": "tokens", "splits": counted, **vocabulary, **origin, "versions": _versions()}
    unknown = {name: total.unknown for name, total in totals.items()}
    place.publish(manifest, report.as_json() | {"unknown_tokens": unknown}, options.overwrite)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"unroll: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
