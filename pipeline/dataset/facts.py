"""Arguments of a model that are derived from its data, such as the vocabulary size."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class DataFacts:
    """Arguments of a model derived from its data, under the names of the model's parameters; None if not derived.

    The command line links each field to the parameter of the same name, and `run.json` stores them.

    Args:
        vocab_size: number of tokens that are predicted, including EOS and opening tokens.
        source_vocab_size: number of tokens of the source, if it is another text.
        image_size: pixels per side of an input image.
        context: past steps in a window of a series.
        horizon: steps to forecast.
        covariates: number of covariates that are known for the future.
        classes: number of labels.
        rate: audio samples per second.
        levels: levels of a pixel.
        rows: rows of a generated image.
        columns: columns of a generated image.
        channels: numbers per pixel of a generated image.
        steps_per_beat: frames of a quarter note of music.
        spaces: observations, actions and returns of an environment, from the dataset's manifest.
    """

    vocab_size: int | None = None
    source_vocab_size: int | None = None
    image_size: int | None = None
    context: int | None = None
    horizon: int | None = None
    covariates: int | None = None
    classes: int | None = None
    rate: int | None = None
    levels: int | None = None
    rows: int | None = None
    columns: int | None = None
    channels: int | None = None
    steps_per_beat: int | None = None
    spaces: dict[str, Any] | None = None

    def known(self) -> dict[str, object]:
        """Return the facts that are derived from this data, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def arguments_of(self, model: type) -> dict[str, Any]:
        """Return the facts among a class's parameters, for `Model(**data.facts.arguments_of(Model), width=64)`.

        Args:
            model: class of the model; its `**` parameters are those of the next class in the method resolution order.
        """
        taken = set(_parameters(model))
        return {name: value for name, value in self.known().items() if name in taken}


def _parameters(model: type) -> Iterator[str]:
    for kind in model.__mro__:
        if construct := vars(kind).get("__init__"):
            found = inspect.signature(construct).parameters
            yield from found
            if not any(each.kind is each.VAR_KEYWORD for each in found.values()):
                return
