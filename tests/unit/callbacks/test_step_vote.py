"""The processes vote on a step in one sum."""

import math

from pipeline.callbacks.step_vote import Requests, StepVote, Verdict


class Others:
    """Another process that requests a stop and has a non-finite gradient."""

    def total(self, *numbers: float) -> list[float]:
        return [mine + theirs for mine, theirs in zip(numbers, (4.0, math.nan, 0.0, 1.0, 0.0), strict=True)]


def test_a_single_process_gets_its_own_values() -> None:
    vote = StepVote()
    assert vote.verdict == Verdict(0.0, 0.0, False, False, False)
    assert vote.cast(2.0, 5.0, Requests(True, False, True), 1) == Verdict(2.0, 5.0, True, False, True)
    assert vote.verdict.save is True


def test_a_request_of_one_process_holds_for_all() -> None:
    vote = StepVote()
    vote.agreement = Others()  # type: ignore[assignment]
    verdict = vote.cast(2.0, 5.0, Requests(False, False, True), 2)
    assert (verdict.loss, math.isnan(verdict.norm)) == (3.0, True)
    assert verdict[2:] == (False, True, True)
