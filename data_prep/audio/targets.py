"""What is predicted of a clip: its label, or the tokens of its transcript."""

import argparse
from collections.abc import Mapping, Sequence

from data_prep.audio.clips import Clip
from data_prep.audio.decode import DecodedClip
from data_prep.sources.walk import SPLIT_NAMES
from data_prep.workspace import tokenizer
from data_prep.workspace.report import Report

FASTEST = 100  # characters per second above which a transcript is not that of its clip; fast speech has 20, phones 60


class Targets:
    """The prediction targets of the clips: labels, or tokens of transcripts.

    Args:
        field: `label` or `text`.
        options: the command line.
        clips: the training split.
    """

    def __init__(self, field: str, options: argparse.Namespace, clips: Sequence[Clip]) -> None:
        self.field, self.lowercase = field, options.lowercase
        self.texts = field == "text" or bool(options.join)
        texts = [self.of(clip.fields) for clip in clips if clip.fields.get(field)]
        self.labels = sorted(set(texts)) if field == "label" else []
        if not self.texts:
            self.tokenizer = tokenizer.label(texts)
        else:
            self.tokenizer = tokenizer.build(options.tokenizer, texts, options.vocab_size)
        self.unknown = self.tokenizer.token_to_id(tokenizer.UNK)

    def of(self, fields: Mapping[str, str]) -> str:
        """Return the label or the transcript of a clip."""
        return fields[self.field].lower() if self.lowercase else fields[self.field]

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a label or transcript, without EOS."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def accept(self, clip: Clip, report: Report) -> bool:
        """Return whether a clip has a valid target; otherwise count it in the report."""
        if not clip.fields.get(self.field):
            report.reject(clip.name, f"no {self.field}")
        elif self.labels and self.of(clip.fields) not in self.labels:
            report.reject(clip.name, "label not in training", self.of(clip.fields))
        else:
            return True
        return False

    def note_labels(self, report: Report) -> None:
        """Count labels that are probably not those of the clips."""
        for label in self.labels:
            if any(label.lower() in names for names in SPLIT_NAMES.values()):
                report.note(label, "label with the name of a split")
        if len(self.labels) == 1:
            report.note(self.labels[0], "only one label")

    def note_transcript(self, clip: DecodedClip, tokens: Sequence[int], rate: int, report: Report) -> None:
        """Count a transcript with unknown parts, or one that is too long for its clip."""
        if self.unknown in tokens:
            report.note(clip.name, "characters or words outside the vocabulary")
        if len(clip.target) * rate > FASTEST * clip.samples:
            report.note(clip.name, f"transcript of more than {FASTEST} characters per second")
