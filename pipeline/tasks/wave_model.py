"""Autoregressive models of raw audio over mu-law levels, conditioned on a class label.

Van den Oord et al. (2016), "WaveNet: A Generative Model for Raw Audio".
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import nn

from pipeline.dataset.codecs.audio import END, LEVELS, expand
from pipeline.errors import ConfigError
from pipeline.generation.sampling import Choice, Limits, Sample, generate
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.runs.vocabulary_rows import labels_of
from pipeline.tasks.level_model import LevelModel
from pipeline.tasks.task import Writes
from pipeline.tasks.token_prediction import TokenHead


class WaveModel(LevelModel):
    """Next-level prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, EOS and labels, set from the data.
        rate: samples per second, set from the data.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
    """

    writes: Writes = "audio"

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        rate: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(network, vocab_size, LEVELS, head, optimizer, schedule)
        self.rate = rate

    def generate(
        self, prompt: str = "", max_new_tokens: int = 8000, choice: Choice | None = None, seed: int = 0
    ) -> Float[np.ndarray, " S"]:
        """Return a waveform of at most `max_new_tokens` samples, from -1 to 1.

        Args:
            prompt: label of the clip, for a model with labels.
            max_new_tokens: maximum number of samples; `rate` samples are one second.
            choice: how each level is chosen (default: sampled).
            seed: seed of the sampling.

        Raises:
            CheckpointError: the task has no tokenizer: it was not loaded by `from_pretrained`.
            ConfigError: the label is unknown, or missing.
        """
        opening = self.opening_of(prompt, labels_of(self.vocabulary()[0]) if self.labels else [])
        self.eval()
        forward, limits = partial(self.within, ends=True), Limits(max_new_tokens, eos=END)
        [[levels, *_]] = generate(forward, [opening], choice or Sample(), limits, seed=seed, device=self.device)
        return expand(np.array([level for level in levels if level < LEVELS], np.uint8))

    def opening_of(self, label: str, labels: Sequence[str]) -> list[int]:
        """Return the tokens before a clip: EOS of the previous clip, and the label if the model has labels.

        Raises:
            ConfigError: the label is unknown, or missing.
        """
        if not labels and not label:
            return [END]
        if label not in labels:
            known = f"choose from {', '.join(labels)}" if labels else "the model was trained without labels"
            raise ConfigError(f"label={label}: {known}")
        return [END, self.opening(labels.index(label))]
