"""Plots of forecasts during training, for the same windows at every validation."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from pipeline.dataset.codecs.time_grid import Grid
from pipeline.distributed.lightning_internals import datamodule
from pipeline.distributed.strategies.traits import traits
from pipeline.evaluation.forecast_errors import summary
from pipeline.evaluation.plots.figure import rendered
from pipeline.evaluation.plots.forecast import Panel, drawing


class Forecasts(Callback):
    """Logs a plot of a few windows of the validation split.

    Args:
        count: number of windows, spread over the series and the time.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        divided = traits(trainer).divides_model  # then computing is a collective operation
        if trainer.state.fn != "fit" or not (divided or trainer.is_global_zero):
            return
        data = datamodule(trainer)
        figure = drawing(
            preview_panels(pl_module, data.samples("validation"), data.dataset.manifest["series"], self.count)
        )
        for logger in trainer.loggers:
            if hasattr(logger, "log_pictures"):
                logger.log_pictures([rendered(figure)], trainer.global_step, "forecasts")


@torch.no_grad()
def preview_panels(task: Any, samples: Any, about: dict[str, Any], count: int) -> list[Panel]:
    """Return forecasts of a few windows, in the units of the source.

    Args:
        task: the forecasting task.
        samples: the windows of a split.
        about: the manifest's description of the series.
        count: number of windows.
    """
    count = min(count, len(samples))
    chosen = (2 * np.arange(count) + 1) * len(samples) // (2 * count)
    batch = samples.batch(chosen)
    moved = type(batch)(*(part.to(task.device) if isinstance(part, torch.Tensor) else part for part in batch))
    predicted = summary(task.sample_paths(moved))
    grid, found = Grid.of(about), []
    for row, sample in enumerate(chosen):
        number, begins = samples.places[sample]
        name = samples.split.names[number]
        mean, deviation = about["scaling"][name]
        mean_low_median_high = (mean + deviation * part[row].cpu().double().numpy() for part in predicted)
        _, low, median, high = mean_low_median_high
        context, came = (mean + deviation * part[row].double().numpy() for part in (batch.context, batch.targets))
        shown = min(len(context), 2 * len(came))
        step = begins - samples.split.first_steps[number]  # start of the horizon within its series
        stamps = samples.split.starts[number] + grid.step * (step + np.array([-shown, 0, len(came) - 1]))
        came = np.where(batch.observed[row].numpy(), came, np.nan)
        found.append(Panel(name, grid.text(stamps), context[-shown:], median, low, high, came))
    return found
