"""Lines of a journal are sent in order and each once, in spite of several attempts, kills and rewinds."""

from collections import Counter

import pytest

from pipeline.runs.journal import FILE
from pipeline.tracking.journal_sync import Mirror, refused_lines


def follower(written, first, sent=True, rejected=None):
    return Mirror(written.run.path / FILE, first, written.run.path / "sent" if sent else None, rejected)


def follow(mirror):
    sent = []
    mirror.follow(lambda number, record: sent.append((number, record["step"], record["attempt"])))
    return sent


def test_new_lines_are_sent_once(written):
    written.attempt(0).rows(10, 20)
    mirror = follower(written, 0)
    assert follow(mirror) == [(2, 10, 1), (3, 20, 1)]
    assert follow(mirror) == []
    written.rows(30)
    assert follow(mirror) == [(4, 30, 1)]


def test_a_row_that_a_rewind_replaced_before_it_was_sent_is_skipped(written):
    written.attempt(0).rows(10, 20, 30).attempt(20).rows(30, 40)
    assert follow(follower(written, 0)) == [(2, 10, 1), (3, 20, 1), (6, 30, 2), (7, 40, 2)]


def test_a_step_that_was_sent_is_not_sent_again_by_a_later_attempt(written):
    written.attempt(0).rows(10, 20, 30)
    assert len(follow(follower(written, 0))) == 3
    written.attempt(20).rows(30, 40)
    assert follow(follower(written, 5)) == [(7, 40, 2)]  # the server has lines up to 4


def test_lines_that_a_killed_client_did_not_deliver_are_sent_by_the_next(written):
    written.attempt(0).rows(10, 20, 30)
    assert len(follow(follower(written, 0))) == 3
    written.attempt(20).rows(30)
    assert follow(follower(written, 3)) == [(3, 20, 1), (6, 30, 2)]  # 3 and 4 never arrived; 4 is superseded


def test_a_line_that_a_killed_client_did_not_deliver_does_not_count_as_sent_later(written):
    written.attempt(0).rows(10, 20, 30)
    assert len(follow(follower(written, 0))) == 3
    written.attempt(20).samples(20)
    assert follow(follower(written, 3)) == [(3, 20, 1), (6, 20, 2)]  # 3 and 4 never arrived
    written.attempt(20).rows(30)
    assert follow(follower(written, 7)) == [(8, 30, 3)]


def test_a_line_is_not_sent_before_the_file_of_sent_lines_names_it(written):
    written.attempt(0).rows(10, 20, 30)
    sent, place = [], written.run.path / "disk"
    mirror = Mirror(written.run.path / FILE, 0, place / "sent")

    def send(number, _):
        sent.append(number)
        if number == 2:
            place.rename(place.with_name("full"))

    with pytest.raises(OSError, match="disk"):
        mirror.follow(send)
    assert sent == []
    place.mkdir()
    with pytest.raises(OSError, match="disk"):
        mirror.follow(send)
    place.mkdir()
    assert mirror.follow(send) == 2
    assert sent == [2, 3, 4]
    assert (place / "sent").read_text().split() == ["2", "3", "4"]


def test_lines_that_counted_as_sent_without_a_file_count_later(written):
    written.attempt(0).rows(10, 20, 30)
    assert follow(follower(written, 4)) == [(4, 30, 1)]  # the file was lost
    written.attempt(10).rows(20, 30)
    assert follow(follower(written, 5)) == []


def test_skipped_lines_do_not_count_as_sent(written):
    written.attempt(0).rows(10, 20, 30).attempt(10)
    assert follow(follower(written, 0)) == [(2, 10, 1)]
    written.rows(20)
    assert follow(follower(written, 3)) == [(6, 20, 2)]
    written.rows(30)
    assert follow(follower(written, 7)) == [(7, 30, 2)]


def test_without_a_file_of_sent_lines_all_valid_rows_count_as_sent(written):
    written.attempt(0).rows(10, 20, 30).attempt(20).rows(30, 40)
    assert follow(follower(written, 5, sent=False)) == [(6, 30, 2), (7, 40, 2)]


def test_an_offline_attempt_begins_at_its_head(written):
    written.attempt(0).rows(10, 20, 30).attempt(20)
    mirror = follower(written, None, sent=False)
    written.rows(30)
    assert follow(mirror) == [(6, 30, 2)]


def test_two_rows_of_one_step_are_both_sent(written):
    written.attempt(0).rows(10, 10).samples(10)
    assert [number for number, _, _ in follow(follower(written, 0))] == [2, 3, 4]


def test_a_partial_line_waits_for_its_end_and_an_invalid_one_keeps_its_number(written):
    written.attempt(0).rows(10)
    file = written.run.path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole + b"rubbish\r{\n" + whole.splitlines()[1][:30])
    mirror = follower(written, 0)
    assert follow(mirror) == [(2, 10, 1)]
    file.write_bytes(whole + b"rubbish\r{\n" + whole.splitlines()[1] + b"\n")
    assert follow(mirror) == [(4, 10, 1)]


def test_an_outage_holds_lines_back_and_a_rejected_line_does_not(written):
    written.attempt(0).rows(10, 20)
    rejected, sent = Counter(), []

    def send(number, record):
        if number == 2:
            raise ConnectionError
        sent.append(number)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            follower(written, 0, rejected=rejected).follow(send)  # each time with a new client
        assert sent == []
    follower(written, 0, rejected=rejected).follow(send)
    assert sent == [3]
    assert refused_lines(rejected) == [2]


def test_a_line_that_is_sent_repeatedly_does_not_count_as_rejected(written):
    written.attempt(0).rows(10)
    rejected = Counter()
    for _ in range(4):  # the server loses the lines
        assert follow(follower(written, 0, rejected=rejected)) == [(2, 10, 1)]


def test_a_missing_journal_has_nothing_to_send(written):
    assert follow(follower(written, 0)) == []
