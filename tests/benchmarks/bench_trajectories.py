"""The loader of trajectories against a bare numpy loop, in turns; then what a step of a rollout costs.

    python tests/benchmarks/bench_trajectories.py [--episodes 1000] [--rounds 5]

Both read the same stretches of 32 steps of CartPole in the same order, 64 a batch, padded at the end of episodes.
The rollout plays 64 episodes side by side, and one alone.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

import data_prep.trajectories.command
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.dataset.environments import make
from pipeline.generation.rollout import play_episodes
from pipeline.models.lstm import LSTM
from pipeline.tasks.policy import Policy

CONTEXT, ROWS, BATCHES = 32, 64, 300


def ours(data: TrajectoriesDataModule) -> float:
    """Seconds for BATCHES batches through the DataLoader that training uses."""
    samples = data.samples("train")
    batches = iter(data._loader(samples, MicroBatches(data.plan(samples), Share(), samples.predictions)))
    next(batches)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return time.perf_counter() - began


def bare(data: TrajectoriesDataModule) -> float:
    """Seconds for the same stretches cut from arrays in memory, row by row."""
    samples = data.samples("train")
    split, plan = samples.split, data.plan(samples)
    seen, done, returns = (np.array(part) for part in (split.observations, split.actions, split.returns))
    began = time.perf_counter()
    for step in range(1, BATCHES + 1):
        before, inside = np.full((ROWS, CONTEXT), -1), np.zeros((ROWS, CONTEXT), bool)
        kept = (
            np.zeros((ROWS, CONTEXT, seen.shape[1]), np.float32),
            np.zeros((ROWS, CONTEXT), np.float32),
            before.copy(),
        )
        for row, (first, begin, end) in enumerate(samples.places[plan.batch(0, step)]):
            inside[row, : end - begin] = True
            for there, part in zip(kept, (seen, returns, done), strict=True):
                there[row, : end - begin] = part[begin:end]
            skipped = int(begin == first)  # nothing was done before the first step
            before[row, skipped : end - begin] = done[begin - 1 + skipped : end - 1]
        batch = [torch.from_numpy(part) for part in (*kept, before, inside)]
        assert batch[0].shape[:2] == (ROWS, CONTEXT)
    return time.perf_counter() - began


def rolled(data: TrajectoriesDataModule, episodes: int) -> float:
    """Steps of the environment a second."""
    torch.manual_seed(0)
    policy = Policy(LSTM(width=64, depth=1), data.facts.spaces).eval()
    began = time.perf_counter()
    played = play_episodes(policy, partial(make, "CartPole-v1", {}), range(episodes), target_return=500.0)
    return sum(one.steps for one in played) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        source = f"gymnasium:CartPole-v1:{options.episodes}"
        assert data_prep.trajectories.command.main([source, "--output", f"{name}/data"]) == 0
        data = TrajectoriesDataModule(Path(name) / "data", CONTEXT, ROWS)
        pairs = [(ours(data), bare(data)) for _ in range(options.rounds)]
        ratio = median(theirs / mine for mine, theirs in pairs)
        rate = ROWS * BATCHES / median(mine for mine, _ in pairs)
        print(f"loader of trajectories: {rate:,.0f} stretches/s, {ratio:.2f} of a bare numpy loop")
        together, alone = (median(rolled(data, episodes) for _ in range(options.rounds)) for episodes in (64, 1))
        print(f"rollout: {together:,.0f} steps/s of 64 episodes side by side, {alone:,.0f} of one alone")


if __name__ == "__main__":
    main()
