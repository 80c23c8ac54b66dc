"""The processes vote on a step in one sum."""

import math

from pipeline.callbacks.step_vote import Requests, StepVote, Verdict


class Others:
    """Another process, which asks to stop and whose gradient is not finite."""

    def total(self, *numbers: float) -> list[float]:
        return [mine + theirs for mine, theirs in zip(numbers, (4.0, math.nan, 0.0, 1.0, 0.0), strict=True)]


def test_alone_a_process_gets_what_it_gave() -> None:
    vote = StepVote()
    assert vote.verdict == Verdict(0.0, 0.0, False, False, False)
    assert vote.cast(2.0, 5.0, Requests(True, False, True), 1) == Verdict(2.0, 5.0, True, False, True)
    assert vote.verdict.save is True


def test_what_one_process_asks_for_is_asked_for_by_all() -> None:
    vote = StepVote()
    vote.agreement = Others()  # type: ignore[assignment]
    verdict = vote.cast(2.0, 5.0, Requests(False, False, True), 2)
    assert (verdict.loss, math.isnan(verdict.norm)) == (3.0, True)
    assert verdict[2:] == (False, True, True)
