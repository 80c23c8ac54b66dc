"""What a step of a rollout costs: 64 episodes of CartPole side by side, and one alone.

python tests/benchmarks/bench_trajectories.py [--rounds 5] [--output docs/benchmarks/cpu.json]
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from families import FAMILIES, prepared
from results import Table, add_output

from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.dataset.environments import make
from pipeline.generation.rollout import play_episodes
from pipeline.models.lstm import LSTM
from pipeline.tasks.policy import Policy


def rolled(data: TrajectoriesDataModule, episodes: int) -> float:
    """Steps of the environment a second."""
    torch.manual_seed(0)
    policy = Policy(LSTM(width=64, depth=1), data.facts.spaces).eval()
    began = time.perf_counter()
    played = play_episodes(policy, partial(make, "CartPole-v1", {}), range(episodes), target_return=500.0)
    return sum(one.steps for one in played) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_output(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = f"Steps of CartPole per second by an LSTM of width 64, medians of {options.rounds} rounds."
    with tempfile.TemporaryDirectory() as name:
        data = TrajectoriesDataModule(prepared(FAMILIES["decisions"], Path(name)), 32, 64)
        table = Table("rollout", "Rollouts", about, options.output)
        for episodes in (64, 1):
            speed = median(rolled(data, episodes) for _ in range(options.rounds))
            table.add(episodes_side_by_side=episodes, steps_per_second=speed)


if __name__ == "__main__":
    main()
