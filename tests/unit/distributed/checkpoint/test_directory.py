"""A checkpoint is complete or it is skipped."""

import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint import shards
from pipeline.errors import CheckpointError

WEIGHT = torch.arange(7.0)


def write(path: Path, state: object, processes: int = 2, **about: object) -> Path:
    """Write a checkpoint as several processes would, each a share of one tensor."""

    def one(rank: int, own: Path) -> None:
        shards.write_shard(
            own / f"rank-{rank:05d}.safetensors", {"weights/w": shards.part_of_rank(WEIGHT, rank, processes)}
        )
        if rank == 0:
            torch.save(state, own / checkpoint.STATE)

    writings = [checkpoint.Writing(path, partial(one, rank), rank) for rank in range(processes)]
    for writing in writings:
        writing.thread.join()
        assert writing.error is None
    writings[0].publish(about, processes)
    return path


def save(directory: Path, step: int, **metrics: float) -> Path:
    return write(directory / checkpoint.checkpoint_name(step), {"step": step}, step=step, metrics=metrics)


def truncate(path: Path) -> None:
    os.truncate(path / checkpoint.STATE, 100)


def flip(path: Path) -> None:
    data = bytearray((path / checkpoint.STATE).read_bytes())
    data[-1] ^= 1
    (path / checkpoint.STATE).write_bytes(data)


def lose_state(path: Path) -> None:
    (path / checkpoint.STATE).unlink()


def lose_shard(path: Path) -> None:
    (path / "rank-00001.safetensors").unlink()


def truncate_shard(path: Path) -> None:
    os.truncate(path / "rank-00000.safetensors", 60)


def lose_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).unlink()


def garble_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).write_text("{")


@pytest.mark.parametrize(
    "damage", [truncate, flip, lose_state, lose_shard, truncate_shard, lose_manifest, garble_manifest]
)
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    older, newer = save(tmp_path, 10), save(tmp_path, 20)
    damage(newer)
    reported: list[str] = []
    found = checkpoint.latest(tmp_path, reported.append)
    assert found is not None
    assert found[0] == older
    assert len(reported) == 1
    assert str(newer) in reported[0]
    damage(older)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoint.latest(tmp_path, reported.append)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 10, loss=0.1)
    whole, files = checkpoint.verify_checkpoint(path), sorted(path.iterdir())

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.sampled_from(files))
    def flip_one(place: float, bit: int, file: Path) -> None:
        before = file.read_bytes()
        data = bytearray(before)
        data[int(place * len(data))] ^= 1 << bit
        file.write_bytes(data)
        try:
            found = checkpoint.verify_checkpoint(path)
        except CheckpointError:
            return
        finally:
            file.write_bytes(before)
        assert {key: found[key] for key in whole} == whole  # a bit of whitespace, or of the key of the hash

    flip_one()


def test_a_checkpoint_without_the_part_of_a_process_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SEEN", 0.1)
    writing = checkpoint.Writing(tmp_path / checkpoint.checkpoint_name(20), lambda own: None, 0)
    writing.thread.join()
    with pytest.raises(OSError, match="files of 1 processes are missing"):
        writing.publish({}, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    older = save(tmp_path, 10)

    def fail(own: Path) -> None:
        (own / "state.pt").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    writing = checkpoint.Writing(tmp_path / checkpoint.checkpoint_name(20), fail, 0)
    writing.thread.join()
    assert isinstance(writing.error, OSError)
    writing.drop()
    writing.drop()  # there may be nothing left
    assert [path.name for path in tmp_path.iterdir()] == [older.name]


def test_remains_of_a_killed_save_are_deleted(tmp_path: Path) -> None:
    whole = save(tmp_path, 10)
    (tmp_path / ".step-00000020.partial" / "rank-00000").mkdir(parents=True)
    checkpoint.clear_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]


def test_a_checkpoint_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    path = save(tmp_path, 10)
    assert save(tmp_path, 10, loss=2.0) == path
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert checkpoint.verify_checkpoint(path)["metrics"] == {"loss": 2.0}


def test_the_best_is_the_lowest_metric(tmp_path: Path) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
        save(tmp_path, step, **{"val/loss": loss})
    save(tmp_path, 40)
    assert [path.name for _, path in checkpoint.by_metric(tmp_path, "val/loss")] == [
        checkpoint.checkpoint_name(step) for step in (20, 30, 10)
    ]


class Malice:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch pwned",)


def test_a_malicious_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / checkpoint.checkpoint_name(1), Malice(), step=1)
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        checkpoint.read_state(path)
    assert not (tmp_path / "pwned").exists()


def test_the_manifest_has_step_and_files(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert manifest["step"] == 7
    assert manifest["files"][checkpoint.STATE]["bytes"] == (path / checkpoint.STATE).stat().st_size


def test_damaged_checkpoints_are_kept_under_other_names(tmp_path: Path) -> None:
    for loss in (1.0, 2.0, 3.0):
        checkpoint.put_aside(save(tmp_path, 10, loss=loss))
    asides = [tmp_path / f"damaged-step-00000010{end}" for end in ("", "~1", "~2")]
    assert [checkpoint.verify_checkpoint(aside)["metrics"]["loss"] for aside in asides] == [1.0, 2.0, 3.0]
    assert checkpoint.newest_first(tmp_path) == []


def test_copies_and_archives_are_not_checkpoints(tmp_path: Path) -> None:
    numbers = [5, 99_999_999, 100_000_000, 20]
    for number in numbers:
        (tmp_path / checkpoint.checkpoint_name(number)).mkdir()
    for other in ("step-00000030.tar", "step-00000030 copy", "step-123", "old-step-00000030"):
        (tmp_path / other).mkdir()
    assert [checkpoint.step_of(path) for path in checkpoint.newest_first(tmp_path)] == sorted(numbers, reverse=True)
    assert [path.name for path in checkpoint.newest_first(tmp_path)][-1] == "step-00000005"


def test_a_removed_checkpoint_is_gone_and_others_stay(tmp_path: Path) -> None:
    kept, gone = save(tmp_path, 10), save(tmp_path, 20)
    checkpoint.CheckpointDirectory().remove_checkpoint(gone)
    assert list(tmp_path.iterdir()) == [kept]
    (tmp_path / ".step-00000030.17.removed").mkdir()
    checkpoint.clear_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_lightning_does_not_write_its_own_format(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"Checkpoints\.save"):
        checkpoint.CheckpointDirectory().save_checkpoint({}, tmp_path / "a.ckpt")


def test_metrics_that_are_not_numbers_or_not_there_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 10, **{"val/loss": float("nan")})
    save(tmp_path, 20, **{"val/loss": float("inf")})
    save(tmp_path, 30, **{"val/loss": 0.0})
    garble_manifest(save(tmp_path, 40, **{"val/loss": 0.5}))
    lose_manifest(save(tmp_path, 50, **{"val/loss": 0.5}))
    write(tmp_path / checkpoint.checkpoint_name(60), {}, step=60)
    assert checkpoint.by_metric(tmp_path, "val/loss") == [(0.0, tmp_path / "step-00000030")]
    assert checkpoint.by_metric(tmp_path, "val/other") == []


def test_the_first_manifests_had_no_hash_of_their_own(tmp_path: Path) -> None:
    path = save(tmp_path, 10)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert manifest.keys() == {"step", "metrics", "files", "sha256"}
    assert checkpoint.verify_checkpoint(path) == {key: value for key, value in manifest.items() if key != "sha256"}
    del manifest["sha256"]
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    assert checkpoint.verify_checkpoint(path) == manifest
    (path / checkpoint.MANIFEST).write_text(json.dumps({**manifest, "step": 11, "sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.verify_checkpoint(path)


def test_where_there_is_no_checkpoint_none_is_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path, print) is None
    assert checkpoint.latest(tmp_path / "missing", print) is None


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    path = save(tmp_path, 1200)
    assert path.name == "step-00001200"
    names = ["manifest.json", "rank-00000.safetensors", "rank-00001.safetensors", "state.pt"]
    assert sorted(each.name for each in path.iterdir()) == names
    assert checkpoint.verify_checkpoint(path)["files"].keys() == set(names[1:])


def test_a_save_runs_in_the_background_until_all_is_written(tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def write(own: Path) -> None:
        begun.set()
        gate.wait(30)

    writing = checkpoint.Writing(tmp_path / checkpoint.checkpoint_name(7), write, 0)
    begun.wait(30)
    assert writing.busy
    assert [path.name for path in tmp_path.iterdir()] == [".step-00000007.partial"]
    gate.set()
    writing.thread.join()
    assert not writing.busy
    assert writing.thread.daemon  # a process that ends does not wait for it


def test_remains_of_an_earlier_save_of_the_step_are_replaced(tmp_path: Path) -> None:
    (tmp_path / ".step-00000010.partial" / "rank-00000").mkdir(parents=True)
    checkpoint.verify_checkpoint(save(tmp_path, 10))


def test_a_part_that_becomes_visible_late_is_awaited(tmp_path: Path) -> None:
    writing = checkpoint.Writing(tmp_path / checkpoint.checkpoint_name(7), lambda own: None, 0)
    writing.thread.join()

    def arrive() -> None:
        (writing.partial / "rank-00001.files.json").write_text("{}")

    late = threading.Timer(0.3, arrive)
    late.start()
    writing.publish({"step": 7}, 2)
    assert checkpoint.verify_checkpoint(writing.directory) == {"step": 7, "files": {}}
    assert [path.name for path in writing.directory.iterdir()] == ["manifest.json"]


def test_only_the_first_line_of_torchs_error_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / checkpoint.checkpoint_name(1), Malice(), step=1)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read_plain(path)
    assert len(str(caught.value).splitlines()) == 1
