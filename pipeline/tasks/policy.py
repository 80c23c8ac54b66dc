"""Policies that predict actions from past observations and actions, and optionally from the return-to-go.

Chen et al. (2021), "Decision Transformer": an action is predicted from the return-to-go, the observation and all
earlier steps. Their three tokens per step are one position here: return-to-go, observation and previous action are
projected together. Any causal network can be used, and a step of the environment is one step of its carried state.
Without the return-to-go, this is behavior cloning (Pomerleau 1989).

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
    """Settings of the rollouts in each evaluation.

    Args:
        episodes: number of episodes; 0 disables rollouts.
        target_return: return-to-go at the first step (default: the best return of the training data).
    """

    episodes: int = 32
    target_return: float | None = None


class Standardise(nn.Module):
    """Standardization of observations by the statistics of the training data.

    It is computed in float64: small changes of a large number do not fit in float32.

    Args:
        mean: mean of each component.
        deviation: standard deviation of each component.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float64))

    def forward(self, observations: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Subtract the mean and divide by the standard deviation."""
        return (observations.double() - self.mean) / self.deviation


class Policy(Task):
    """Predicts actions with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        spaces: description of observations and actions, set from the data.
        return_conditioned: condition on the return-to-go; False for behavior cloning.
        rollout: settings of the rollouts in an evaluation.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.
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
        width, observation_size = width_of(network), len(spaces["observation_mean"])
        self.input = nn.Linear(observation_size + self.actions.features + return_conditioned, width)
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
        """Return the parameters of the action distribution at each position, and the next state.

        Args:
            observations: observations in the units of the environment.
            before: the action of the previous step.
            returns: the return-to-go.
            state: state returned by an earlier call; None at the beginning.
        """
        seen = self.standardise(observations).to(returns)
        parts = [seen, self.actions.read(before).to(seen)]
        if self.return_conditioned:
            parts.append(returns[..., None] / self.spaces["return_scale"])
        features, state = self.network(self.input(torch.cat(parts, -1)), state)
        outputs: Tensor = self.output(features)
        return outputs, state

    def position_losses(self, batch: TrajectoryBatch) -> Float[Tensor, "B T"]:
        """Return the loss in nats of the action at each position, NaN outside the episode."""
        return torch.where(batch.inside, self._step_losses(batch), torch.nan)

    def training_step(self, batch: TrajectoryBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's contribution to the nats per action of the global batch."""
        nats = self._nats(batch)
        self.seen.update(nats.detach(), batch.inside.sum())
        return nats * self.loss_scale / batch.predictions

    def validation_step(self, batch: TrajectoryBatch, batch_idx: int) -> None:
        """Add the batch to the metrics."""
        self.held_out.update(self._nats(batch), batch.inside.sum())

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Run rollouts, log the metrics, and pass the loss to the schedule."""
        loss = self._log("val", seed=0)
        if self.schedule is not None and not self.trainer.sanity_checking:
            self.schedule.observe(loss)

    def on_test_epoch_end(self) -> None:
        """Run rollouts on other episodes than in validation, and log the metrics."""
        self._log("test", seed=1)

    def report(self) -> list[str]:
        """Return the returns of the training data, and the target return."""
        returns = self.data.dataset.manifest["trajectories"]["returns"]
        lines = [f"  returns of the training data: mean {returns['mean']:.4g}, best {returns['best']:.4g}"]
        return lines + ([f"  target return: {self.target_return:.4g}"] if self.return_conditioned else [])

    def _nats(self, batch: TrajectoryBatch) -> Tensor:
        return torch.where(batch.inside, self._step_losses(batch), 0.0).sum()

    def _step_losses(self, batch: TrajectoryBatch) -> Float[Tensor, "B T"]:
        outputs, _ = self(batch.observations, batch.before, batch.returns)
        return self.actions.nats(outputs.float(), batch.actions)

    def _log(self, prefix: str, seed: int) -> float:
        loss = float(self.held_out.compute())
        found = {"loss": loss}
        if self.rollout.episodes and (environment := self.data.dataset.manifest["trajectories"]["environment"]):
            found["return"] = self._rollout(environment["name"], environment["settings"], seed)
        self.held_out.reset()
        # Not to the loggers: Monitor writes one row with all results of a validation.
        self.log_dict({f"{prefix}/{name}": value for name, value in found.items()}, logger=not self.writes_rows)
        return loss

    def _rollout(self, environment: str, settings: Mapping[str, object], seed: int) -> float:
        """Return the mean return of the episodes, which are divided among the processes."""
        from pipeline.dataset.environments import make
        from pipeline.generation.rollout import play_episodes

        numbers = range(self.rollout.episodes)
        if not traits(self.trainer).divides_model:  # With a divided model, all processes compute every episode.
            numbers = numbers[self.trainer.global_rank :: self.trainer.world_size]
        create = partial(make, environment, settings)
        played = play_episodes(self, create, numbers, self.target_return, seed)
        self.returns.update([one.reward for one in played])
        found = float(self.returns.compute())
        self.returns.reset()
        return found
