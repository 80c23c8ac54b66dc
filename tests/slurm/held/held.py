"""A callback that holds every process before chosen steps, until a file appears or a signal comes."""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from pipeline.distributed import signals


class Held(Callback):
    """Waits before the steps HOLD (`7`, `4,9`) for the file GO-START, with a mark in the run's directory meanwhile."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if str(trainer.global_step) not in os.environ["HOLD"].split(","):
            return
        start = int(os.environ["SLURM_RESTART_COUNT"]) + 1
        mark = Path(trainer.default_root_dir) / f"held-{start}-{trainer.global_rank}"
        mark.touch()
        while not Path(f"{os.environ['GO']}-{start}").exists() and signals.requested() is None:
            time.sleep(0.05)
