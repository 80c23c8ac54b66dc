"""Lines of a journal are sent in order and none twice, whatever attempts, kills and rewinds made of it."""

from collections import Counter

import pytest

from pipeline.runs.journal import FILE
from pipeline.tracking.journal_sync import Mirror


def follower(written, first, sent=True, refused=None):
    return Mirror(written.run.path / FILE, first, written.run.path / "sent" if sent else None, refused)


def follow(mirror):
    got = []
    mirror.follow(lambda number, record: got.append((number, record["step"], record["attempt"])))
    return got


def test_what_is_new_is_sent_once(written):
    written.attempt(0).rows(10, 20)
    mirror = follower(written, 0)
    assert follow(mirror) == [(2, 10, 1), (3, 20, 1)]
    assert follow(mirror) == []
    written.rows(30)
    assert follow(mirror) == [(4, 30, 1)]


def test_a_row_that_a_rewind_replaced_before_it_was_sent_is_passed_over(written):
    written.attempt(0).rows(10, 20, 30).attempt(20).rows(30, 40)
    assert follow(follower(written, 0)) == [(2, 10, 1), (3, 20, 1), (6, 30, 2), (7, 40, 2)]


def test_a_step_that_was_sent_is_not_sent_again_by_the_attempt_that_measures_it_again(written):
    written.attempt(0).rows(10, 20, 30)
    assert len(follow(follower(written, 0))) == 3
    written.attempt(20).rows(30, 40)
    assert follow(follower(written, 5)) == [(7, 40, 2)]  # the server has lines up to 4


def test_what_a_killed_client_did_not_deliver_is_sent_by_the_next(written):
    written.attempt(0).rows(10, 20, 30)
    assert len(follow(follower(written, 0))) == 3
    written.attempt(20).rows(30)
    assert follow(follower(written, 3)) == [(3, 20, 1), (6, 30, 2)]  # lines 3 and 4 never arrived; 4 counts no more


def test_what_was_passed_over_is_not_taken_for_sent(written):
    written.attempt(0).rows(10, 20, 30).attempt(10)
    assert follow(follower(written, 0)) == [(2, 10, 1)]
    written.rows(20)
    assert follow(follower(written, 3)) == [(6, 20, 2)]
    written.rows(30)
    assert follow(follower(written, 7)) == [(7, 30, 2)]


def test_without_a_memory_the_rows_that_count_are_taken_for_sent(written):
    written.attempt(0).rows(10, 20, 30).attempt(20).rows(30, 40)
    assert follow(follower(written, 5, sent=False)) == [(6, 30, 2), (7, 40, 2)]


def test_an_attempt_of_its_own_begins_at_its_head(written):
    written.attempt(0).rows(10, 20, 30).attempt(20)
    mirror = follower(written, None, sent=False)
    written.rows(30)
    assert follow(mirror) == [(6, 30, 2)]


def test_two_rows_of_one_step_are_both_sent(written):
    written.attempt(0).rows(10, 10).samples(10)
    assert [number for number, _, _ in follow(follower(written, 0))] == [2, 3, 4]


def test_half_a_line_waits_for_its_end_and_rubbish_keeps_its_number(written):
    written.attempt(0).rows(10)
    file = written.run.path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole + b"rubbish\r{\n" + whole.splitlines()[1][:30])
    mirror = follower(written, 0)
    assert follow(mirror) == [(2, 10, 1)]
    file.write_bytes(whole + b"rubbish\r{\n" + whole.splitlines()[1] + b"\n")
    assert follow(mirror) == [(4, 10, 1)]


def test_an_outage_holds_back_and_a_line_that_is_refused_for_good_does_not(written):
    written.attempt(0).rows(10, 20)
    refused, got = Counter(), []

    def send(number, record):
        if number == 2:
            raise ConnectionError
        got.append(number)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            follower(written, 0, refused=refused).follow(send)  # each time a client of its own
        assert got == []
    follower(written, 0, refused=refused).follow(send)
    assert got == [3]


def test_a_line_that_is_sent_again_and_again_is_not_taken_for_refused(written):
    written.attempt(0).rows(10)
    refused = Counter()
    for _ in range(4):  # the server loses what it was sent
        assert follow(follower(written, 0, refused=refused)) == [(2, 10, 1)]


def test_a_journal_that_is_not_there_yet_has_nothing_to_send(written):
    assert follow(follower(written, 0)) == []
