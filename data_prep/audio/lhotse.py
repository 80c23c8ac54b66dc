"""Cut manifests of Lhotse: a clip is a supervision of a cut, a part of a recording with its text and speaker.

Zelasko et al. 2021, "Lhotse: a speech data representation library"; https://lhotse.readthedocs.io/en/latest/cuts.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.audio.clips import Clip, Files, Naming, Part, Record
from data_prep.workspace.report import Report

EDGE = 0.001  # seconds that a supervision may reach outside its cut, by rounding


class CutError(ValueError):
    """A cut that cannot be read; the message is the reason."""


def is_cut(record: Record) -> bool:
    """Return whether a record of a manifest is a cut."""
    return "supervisions" in record or str(record.get("type", "")).endswith("Cut")


def clips(name: str, cut: Mapping[str, Any], files: Files, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clips of a cut, one for each supervision.

    Args:
        name: name of the record.
        cut: the record.
        files: finds the files of the recordings.
        naming: names of the fields.
        report: counts invalid cuts.
    """
    name = str(cut.get("id", name))
    try:
        spans = [(supervision, _part(cut, supervision)) for supervision in cut.get("supervisions") or ()]
        if not spans:
            raise CutError("cut without supervisions")
        for supervision, part in spans:
            file, part = _source(cut["recording"], part)
            shown = name if len(spans) == 1 else str(supervision.get("id", f"{name}{part.shown}"))
            fields = naming.fields({**(supervision.get("custom") or {}), **supervision})
            yield Clip(shown, files.find(file), fields, part=part)
    except CutError as error:
        report.reject(name, str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        report.reject(name, "not a cut of one recording", f"{type(error).__name__}: {error}")


def _part(cut: Mapping[str, Any], supervision: Mapping[str, Any]) -> Part:
    """Return the part of the recording that a supervision is."""
    if cut.get("type", "MonoCut") not in ("MonoCut", "Cut"):
        raise CutError("cut of several recordings or channels")
    start, seconds = float(supervision.get("start", 0.0)), float(supervision.get("duration", cut["duration"]))
    if start < -EDGE or start + seconds > float(cut["duration"]) + EDGE:
        raise CutError("supervision outside its cut")
    recording = cut["recording"]
    if recording.get("transforms"):
        raise CutError("recording with transforms, which are not applied")
    channel = supervision.get("channel", cut.get("channel", 0))
    return Part(
        max(0.0, float(cut["start"]) + start),
        seconds,
        channel[0] if isinstance(channel, list) and len(channel) == 1 else int(channel),
        float(recording["duration"]),
        int(recording["sampling_rate"]),
    )


def _source(recording: Mapping[str, Any], part: Part) -> tuple[str, Part]:
    """Return the file that has the channel of a part, and the part with the number of the channel in the file."""
    for source in recording["sources"]:
        if part.channel in source["channels"]:
            if source["type"] != "file":
                raise CutError("recording that is not a file")
            channels: list[int] = source["channels"]
            part = part._replace(channel=channels.index(part.channel or 0), channels=len(channels))
            return str(source["source"]), part
    raise CutError("channel not in the sources of the recording")
