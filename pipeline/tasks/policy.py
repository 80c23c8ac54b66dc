"""A policy says what to do from what it saw and did so far, and where it is asked to, from the return still wanted.

Chen et al. (2021), "Decision Transformer": an action follows from the return-to-go, the observation and all before.
Their three tokens of a step are one position here, the sum of what each is embedded as, with the action of the step
before: so any causal network will do, and a step of the environment is one step of its carried state. Without the
return-to-go it is behaviour cloning (Pomerleau 1989).

Legend: B rows, T positions, O numbers of an observation, A of an action, P parameters of a step, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pipeline.data.batch import TrajectoryBatch
from pipeline.distributed.strategies.traits import traits
from pipeline.evaluation.metrics import Returns, TokenLoss
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State, width_of
from pipeline.tasks.action_distributions import actions_of
from pipeline.tasks.task import Reads, Task, Writes

__all__ = ["Policy", "RolloutSettings"]


@dataclass(frozen=True)
class RolloutSettings:
    """How a policy is tried in its environment by each evaluation.

    Args:
        episodes: how many; 0: it is not.
        target_return: return-to-go at the first step (default: the best return of the training data).
    """

    episodes: int = 32
    target_return: float | None = None


class Standardise(nn.Module):
    """Observations in units of the training data.

    Args:
        mean: of each number.
        deviation: of each number.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, observations: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Less the mean, over the deviation."""
        return (observations - self.mean) / self.deviation


class Policy(Task):
    """Acts with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        spaces: what observations and actions are; the data says it.
        return_conditioned: read the return-to-go; without it, behaviour is cloned.
        rollout: how it is tried in its environment.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.
    """

    reads: Reads = "episode"
    writes: Writes = "action"

    def __init__(
        self,
        network: nn.Module,
        spaces: dict[str, Any],
        return_conditioned: bool = True,
        rollout: RolloutSettings = RolloutSettings(),  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.spaces, self.return_conditioned, self.rollout = spaces, return_conditioned, rollout
        self.actions = actions_of(spaces)
        self.target_return = float(spaces["best_return"] if rollout.target_return is None else rollout.target_return)
        width, seen = width_of(network), len(spaces["observation_mean"])
        self.input = nn.Linear(seen + self.actions.features + return_conditioned, width)
        self.network = network
        self.output = nn.Linear(width, self.actions.parameters)
        self.standardise = Standardise(spaces["observation_mean"], spaces["observation_deviation"])
        self.seen, self.held_out = TokenLoss(), TokenLoss()
        self.returns = Returns()

    def forward(
        self,
        observations: Float[Tensor, "B T O"],
        before: Shaped[Tensor, "B T *A"],
        returns: Float[Tensor, "B T"],
        state: State = None,
    ) -> tuple[Float[Tensor, "B T P"], State]:
        """What is said of the action at each position.

        Args:
            observations: in the units of the environment.
            before: the action of the step before.
            returns: the return-to-go.
            state: after all before.
        """
        parts = [self.standardise(observations), self.actions.read(before).to(observations)]
        if self.return_conditioned:
            parts.append(returns[..., None] / self.spaces["return_scale"])
        features, state = self.network(self.input(torch.cat(parts, -1)), state)
        said: Tensor = self.output(features)
        return said, state

    def costs(self, batch: TrajectoryBatch) -> Float[Tensor, "B T"]:
        """Nats of the action at each position; NaN where there is no step."""
        return torch.where(batch.inside, self._each(batch), torch.nan)

    def training_step(self, batch: TrajectoryBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the nats an action of the global batch."""
        nats = self._nats(batch)
        self.seen.update(nats.detach(), batch.inside.sum())
        return nats * self.loss_scale / batch.predictions

    def validation_step(self, batch: TrajectoryBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self.held_out.update(self._nats(batch), batch.inside.sum())

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Play, log, and tell the schedule."""
        loss = self._log("val", seed=0)
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Play other episodes than in validation, and log."""
        self._log("test", seed=1)

    def report(self) -> list[str]:
        """How good the players of the training data were, and what was asked for."""
        returns = self._about()["returns"]
        lines = [f"  returns of the training data: mean {returns['mean']:.4g}, best {returns['best']:.4g}"]
        return lines + ([f"  target return: {self.target_return:.4g}"] if self.return_conditioned else [])

    def _nats(self, batch: TrajectoryBatch) -> Tensor:
        return torch.where(batch.inside, self._each(batch), 0.0).sum()

    def _each(self, batch: TrajectoryBatch) -> Float[Tensor, "B T"]:
        said, _ = self(batch.observations, batch.before, batch.returns)
        return self.actions.nats(said.float(), batch.actions)

    def _about(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.data.dataset.manifest["trajectories"]
        return found

    def _log(self, prefix: str, seed: int) -> float:
        loss = float(self.held_out.compute())
        found = {"loss": loss}
        if self.rollout.episodes and (place := self._about()["environment"]):
            found["return"] = self._play(place, seed)
        self.held_out.reset()
        # not to the loggers: Monitor writes one row of all that a validation found
        self.log_dict({f"{prefix}/{name}": value for name, value in found.items()}, logger=False)
        return loss

    def _play(self, place: Mapping[str, Any], seed: int) -> float:
        """The mean return of the episodes, which the processes share."""
        from pipeline.dataset.environments import make
        from pipeline.generation.rollout import play_episodes

        numbers = range(self.rollout.episodes)
        if not traits(self.trainer).divides_model:  # else no process can compute without the others
            numbers = numbers[self.trainer.global_rank :: self.trainer.world_size]
        played = play_episodes(self, partial(make, place["name"], place["settings"]), numbers, self.target_return, seed)
        self.returns.update([one.reward for one in played])
        found = float(self.returns.compute())
        self.returns.reset()
        return found
