"""What data decides about a model that learns from it, such as the size of its vocabulary."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class DataFacts:
    """Arguments of a model that its data decides, under the names of the model's parameters; None where it does not.

    The command line links each field to the parameter of the same name, and `run.json` keeps them.

    Args:
        vocab_size: number of tokens that are predicted, the end mark and opening tokens included.
        source_vocab_size: number of tokens of the source, where that is another text.
        image_size: pixels of each side of an image that is read.
        context: steps of the past in a window of a series.
        horizon: steps to forecast.
        covariates: number of covariates that are known for the future.
        classes: number of labels.
        rate: samples of a sound per second.
        levels: levels of a pixel.
        rows: of an image that is drawn.
        columns: of an image that is drawn.
        channels: numbers per pixel of an image that is drawn.
        spaces: observations, actions and returns of an environment, as the dataset's manifest describes them.
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
    spaces: dict[str, Any] | None = None

    def known(self) -> dict[str, Any]:
        """Return the facts that this data decides, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def arguments_of(self, model: type) -> dict[str, Any]:
        """Return those that a class takes: `LSTMLanguageModel(**data.facts.arguments_of(LSTMLanguageModel), width=64)`.

        Args:
            model: the class of the model; its `**` parameters are those of the next class in its order of bases.
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
