"""Audio data sets of the Hugging Face Hub, read through the `datasets` library."""

import os
from collections.abc import Iterator
from pathlib import Path

from data_prep.audio.clips import Clip, Naming, normalized
from data_prep.workspace.report import Report
from pipeline.errors import DataError


def clips(source: str, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clips of `hub:NAME[:CONFIG[:SPLIT]]`.

    Raises:
        DataError: the data set cannot be loaded.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    column = naming.audio or "audio"
    try:
        import datasets

        found = datasets.load_dataset(name, config or None, split=split or "train")
        features = found.features
        found = found.cast_column(column, datasets.Audio(decode=False))  # keep the encoded bytes
        classes = features[naming.label].names if hasattr(features.get(naming.label), "names") else None
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}") from error
    for row, record in enumerate(found):
        audio = record.pop(column)
        if not audio or not (audio.get("bytes") or audio.get("path")):
            report.reject(f"{source}:{row}", f"no audio in column {column!r}")
            continue
        fields = naming.fields(record)
        if classes is not None:
            number = record[naming.label]  # -1 marks a missing label
            fields["label"] = "" if number is None or number < 0 else normalized(str(classes[number]))
        shown = audio.get("path") or f"{source}:{row}"
        yield Clip(shown, None if audio.get("bytes") else Path(shown), fields, audio.get("bytes") or b"")
