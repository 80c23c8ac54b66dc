"""Compressed files are read to their end, and bytes after it are counted."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dataset.codecs.encoding import open_text, readable
from pipeline.errors import DataError

BODY = bytes(range(1, 256)) * 5000  # more than one block
PACKINGS = pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])


def read(path: Path) -> bytes:
    with open_text(path) as file, readable(path):
        return file.read()


@PACKINGS
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    (path := tmp_path / f"a{suffix}").write_bytes(pack(BODY) + pack(b"more"))
    assert read(path) == BODY + b"more"


@PACKINGS
@pytest.mark.parametrize("surplus", [b"x", b"\n\n", b"<html>" * 300_000])
@pytest.mark.parametrize("members", [1, 2])
def test_bytes_after_the_end_are_counted(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], surplus: bytes, members: int
) -> None:
    packed = pack(BODY) * members
    (path := tmp_path / f"a{suffix}").write_bytes(packed + surplus)
    expected = rf"a\{suffix}: {len(surplus):,} bytes follow the end .*head -c {len(packed)} "
    with pytest.raises(DataError, match=expected):
        read(path)


@PACKINGS
def test_a_file_that_ends_early_is_damaged(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    (path := tmp_path / f"a{suffix}").write_bytes(pack(BODY)[:-5])
    with pytest.raises(DataError, match=r"is damaged .*Download or copy it again"):
        read(path)


def test_zeros_after_a_gzip_file_are_padding(tmp_path: Path) -> None:
    (path := tmp_path / "a.gz").write_bytes(gzip.compress(BODY) + bytes(512))
    assert read(path) == BODY
