"""Text written by the model as it learns: the same prompts and seeds at every validation."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from pipeline.decode import Limits, Sample, generate
from pipeline.strategies import Sharded


class Samples(Callback):
    """Logs a few continuations of the empty prompt after each validation.

    Args:
        tokenizer: the run's tokenizer file.
        count: texts.
        tokens: length of each.
    """

    def __init__(self, tokenizer: Path, count: int = 2, tokens: int = 80) -> None:
        self.file, self.count, self.tokens = tokenizer, count, tokens

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_samples")]
        divided = isinstance(trainer.strategy, Sharded)  # then no process can compute without the others
        if trainer.state.fn != "fit" or not (divided or loggers):
            return
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.file))
        eos = tokenizer.token_to_id("<eos>")
        assert eos is not None
        with torch.no_grad():
            texts = generate(
                pl_module,
                [[eos]],
                Sample(temperature=0.8),
                Limits(tokens=self.tokens),
                samples=self.count,
                device=pl_module.device,
            )[0]
        rows = [{"prompt": "", "text": tokenizer.decode(text)} for text in texts]
        for logger in loggers:
            logger.log_samples(rows, trainer.global_step)
