"""Prepare a dataset of tokenized text.

`unroll prepare text SOURCE... --output data/NAME`. Documents are tokenized in parallel, and an interrupted preparation
can continue.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from data_prep.sources.text_files import DOCUMENTS
from data_prep.text.corpus import CUTS, Corpus
from data_prep.text.encode import TextWriter
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin, versions, vocabulary
from data_prep.workspace.report import Report, progress
from data_prep.workspace.workspace import Workplace, train_once
from pipeline.arguments import Parser, positive_integer
from pipeline.errors import DataError
from pipeline.files import sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROGRAM = "unroll prepare text"
PACKAGES = ("tokenizers", "pyarrow")
LEARNED = ("bpe", "unigram")  # tokenizers whose training requires memory that grows with the text
SOURCES = """file or directory (.txt .text .md .tokens .jsonl .parquet, optionally .gz or .xz), '-' for standard input,
hub:NAME[:CONFIG[:SPLIT]] or 'builtin' (Python's language reference)"""
SHARD_BYTES = "save the progress after every N bytes of text (default: 2**28)"
CUT = "hold out documents chosen by a hash, or the tail of the text (default: hash, tail for few documents)"
DOCUMENTS_HELP = "documents of a text file: the whole file, its lines or its paragraphs (default: %(default)s)"
FIELD = "field of the text in JSON, Parquet and Hub records (default: %(default)s)"
TOKENIZER_BYTES = "train bpe and unigram on the first N characters of the training split (default: 2**30)"
EXAMPLES = """examples:
  unroll prepare text builtin --tokenizer bpe --vocab-size 2048 --output data/pydoc
  unroll prepare text corpus.txt --tokenizer character --cut tail --validation-share 0.1 --test-share 0 \\
      --output data/corpus
  unroll prepare text --train train.txt --validation valid.txt --documents line --tokenizer word \\
      --output data/words
  unroll prepare text hub:roneneldan/TinyStories --streaming --output data/stories
To continue an interrupted preparation, run the same command again."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    shared.add_output(parser)
    shared.add_workers(parser)
    add("--shard-bytes", type=positive_integer, default=1 << 28, metavar="N", help=SHARD_BYTES)
    splits = parser.add_argument_group("splits, divided from SOURCE... or given")
    shared.add_splits(splits, nargs="+", default=[], metavar="SOURCE")
    shared.add_shares(splits, 0.05, "documents")
    splits.add_argument("--cut", choices=CUTS, help=CUT)
    documents = parser.add_argument_group("documents")
    add = documents.add_argument
    add("--documents", choices=DOCUMENTS, default="file", help=DOCUMENTS_HELP)
    add("--keep-empty", action="store_true", help="keep empty documents, such as blank lines")
    add("--field", default="text", metavar="NAME", help=FIELD)
    add("--streaming", action="store_true", help="read Hub data without a local cache")
    shared.add_max_bad_share(documents, "records")
    tokens = parser.add_argument_group("tokens")
    shared.add_tokenizer(tokens, "bpe")
    tokens.add_argument("--tokenizer-bytes", type=positive_integer, default=1 << 30, metavar="N", help=TOKENIZER_BYTES)
    return parser


def main(argv: list[str]) -> int:
    """Prepare a text dataset from the command line.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source or the output cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    place = shared.workplace(options, **versions(*PACKAGES))
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
    shared.check_sources(options)
    shared.check(options)


def _prepare(place: Workplace, options: argparse.Namespace, argv: list[str]) -> tuple[Report, TextWriter, int]:
    """Make and publish the dataset; return the report, the writer and the tokens encoded in this start."""
    corpus = Corpus(options, place.work)
    place.begin(corpus.fingerprint())
    train_once(place, lambda: _tokenizer(corpus, options))
    writer = TextWriter(place)
    if before := writer.tokens:
        print(f"continuing after {before:,} tokens", file=sys.stderr)
    report = Report()
    with ThreadPoolExecutor(1) as pool:  # Hashing releases the interpreter lock.
        hashed = [pool.submit(sha256, name.path) for name in corpus.names]
        steps = writer.write(corpus.pieces(report), options.workers, options.shard_bytes)
        for _ in progress(steps, "encoding", corpus.total, lambda: corpus.done):
            pass
    report.check(options.max_bad_share)
    if not report.documents:
        place.discard()
        raise DataError(f"the sources hold no text ({report.empty} empty documents). Check --documents and --field")
    _check_splits(writer, corpus)
    sources: list[Mapping[str, object]] = [
        {"name": name.shown, "size": name.path.stat().st_size, "sha256": digest.result()}
        for name, digest in zip(corpus.names, hashed, strict=True)
    ]
    _publish(writer, options, report, origin(PROGRAM, argv, sources, *PACKAGES))
    return report, writer, writer.tokens - before


def _tokenizer(corpus: Corpus, options: argparse.Namespace) -> "Tokenizer":
    from data_prep.workspace import tokenizer

    report = Report()

    def texts() -> Iterator[str]:
        yield from corpus.training_texts(report, limit)
        report.check(options.max_bad_share)
        if not report.documents:
            raise DataError("the sources hold no text for training. Check --documents and --field")
        if options.tokenizer in LEARNED:
            print("training the tokenizer", file=sys.stderr, flush=True)  # takes minutes for large texts

    limit = options.tokenizer_bytes if options.tokenizer in LEARNED else float("inf")
    return tokenizer.build(options.tokenizer, texts(), options.vocab_size)


def _check_splits(writer: TextWriter, corpus: Corpus) -> None:
    if empty := [name for name in corpus.splits if name not in writer.totals]:
        writer.place.discard()  # Continuing would fail in the same way.
        raise DataError(
            f"the {empty[0]} split is empty. Give more text, check --documents and --field, or set its share to 0"
        )


def _publish(writer: TextWriter, options: argparse.Namespace, report: Report, source: Mapping[str, object]) -> None:
    place, totals = writer.place, writer.splits()
    counted = {
        name: {
            "documents": total.documents,
            "tokens": total.tokens,
            "bytes": total.bytes,
            "shards": total.shards,
        }
        for name, total in totals.items()
    }
    entry = vocabulary(place.tokenizer, writer.encoder.tokenizer)
    manifest = {"kind": "tokens", "splits": counted, **entry, **source}
    unknown = {name: total.unknown for name, total in totals.items()}
    place.publish(manifest, report.as_json() | {"unknown_tokens": unknown}, options.overwrite)


if __name__ == "__main__":
    shared.run_as_script(main)
