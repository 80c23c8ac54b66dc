"""The processes vote on a step in one sum, which the host reads later."""

import math
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch

from pipeline.callbacks.step_vote import Ballot, StepVote


class Others:
    """Another process with a non-finite gradient, which requests the second of three questions."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values + torch.tensor([4.0, math.nan, 0.0, 1.0, 0.0])


def run(world_size: int) -> Mock:
    found = Mock(spec=pl.Trainer, world_size=world_size, global_step=6)
    assert isinstance(found, Mock)
    return found


@pytest.fixture
def vote() -> StepVote:
    """A vote with three questions, of which this process requests the first and the last."""
    found = StepVote()
    found.questions |= {"save": lambda _: True, "stop": lambda _: False, "written": lambda _: True}
    return found


def cast(vote: StepVote, trainer: Any) -> list[float]:
    result = vote.cast(trainer, torch.tensor(2.0), torch.tensor(5.0), [torch.tensor([7, 8]), torch.tensor([9])])
    return [float(each) for each in result]


def test_a_single_process_gets_its_own_values(vote: StepVote) -> None:
    assert cast(vote, run(1)) == [2.0, 5.0]
    assert vote.requested == {}
    vote.answer(run(1))
    assert vote.requested == {"save": 1, "written": 1}
    ballot, measured = vote.count()
    assert (ballot.step, ballot.samples(), tuple(measured)) == (7, [7, 8, 9], (2.0, 5.0, []))
    assert (vote.take("save"), vote.take("save"), vote.take("stop"), vote.take("written")) == (1, 0, 0, 1)


def test_a_request_of_one_process_holds_for_all_when_the_vote_is_read(vote: StepVote) -> None:
    vote.agreement = Others()  # type: ignore[assignment]
    loss, norm = cast(vote, run(2))
    assert (loss, math.isnan(norm)) == (3.0, True)
    vote.answer(run(2))
    assert vote.requested == {}
    _, measured = vote.count()
    assert (measured.loss, measured.answers) == (3.0, [1.0, 1.0, 1.0])
    assert vote.requested == {"save": 1, "stop": 1, "written": 1}


def test_votes_are_read_in_order_and_requests_are_kept_until_they_are_taken(vote: StepVote) -> None:
    vote.questions = {"save": lambda trainer: trainer.global_step == 6}
    vote.agreement.total = lambda values: 2 * values  # type: ignore[method-assign]
    trainer = run(2)
    cast(vote, trainer)
    trainer.global_step = 7
    cast(vote, trainer)
    assert [vote.count()[0].step, vote.count()[0].step] == [7, 8]
    assert vote.requested == {"save": 2}


def test_a_vote_on_the_cpu_is_there_at_once() -> None:
    assert Ballot(1, torch.tensor([1.0, 2.0]), []).arrived is None
