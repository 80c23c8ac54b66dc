"""The record of a dataset's origin holds the hash of each file, named as text or as a path."""

import hashlib
from pathlib import Path

from data_prep.workspace.entries import origin


def test_every_file_is_hashed_and_other_sources_are_named(tmp_path: Path) -> None:
    (file := tmp_path / "a-images").write_bytes(b"abc")
    entry = {"name": str(file), "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    given = [str(file), file, str(tmp_path), "builtin:20", {"name": "-"}]
    assert origin("unroll prepare pixels", [], given)["sources"] == [
        entry,
        entry,
        str(tmp_path),
        "builtin:20",
        {"name": "-"},
    ]
