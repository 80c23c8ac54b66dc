"""Tensors written by any number of processes are read by any other number."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.distributed.checkpoint import shards
from pipeline.errors import CheckpointError


@pytest.mark.numeric
@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(0, 5), max_size=3), writers=st.integers(1, 5), readers=st.integers(1, 5))
def test_shards_of_any_number_of_processes_form_the_tensor(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], writers: int, readers: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    tensor = torch.randn(shape, dtype=torch.float64)
    whole = torch.tensor(3.0)
    for rank in range(writers):
        shares = {"w/a": shards.part_of_rank(tensor, rank, writers), "step": shards.part_of_rank(whole, rank, writers)}
        shards.write_shard(folder / f"rank-{rank}.safetensors", shares)
    found = shards.ShardReader(folder)
    if tensor.numel():
        assert torch.equal(found.whole("w/a"), tensor)
        edges = [tensor.numel() * rank // readers for rank in range(readers + 1)]
        parts = [found.read("w/a", start, stop) for start, stop in pairwise(edges)]
        assert torch.equal(torch.cat(parts), tensor.flatten())
    assert torch.equal(found.whole("step"), whole)


def test_a_missing_file_is_detected(tmp_path: Path) -> None:
    for rank in range(3):
        shards.write_shard(
            tmp_path / f"rank-{rank}.safetensors", {"w": shards.part_of_rank(torch.arange(9.0), rank, 3)}
        )
    (tmp_path / "rank-1.safetensors").unlink()
    found = shards.ShardReader(tmp_path)
    assert found.read("w", 0, 3).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(CheckpointError, match="only parts of w"):
        found.whole("w")
    with pytest.raises(CheckpointError, match="no tensor v"):
        found.whole("v")


def test_a_file_of_another_format_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "rank-0.safetensors").write_bytes(b"\x80\x04malice")
    with pytest.raises(CheckpointError, match=r"rank-0\.safetensors cannot be read"):
        shards.ShardReader(tmp_path)


@pytest.mark.numeric
def test_a_range_may_span_shards_independent_of_file_names(tmp_path: Path) -> None:
    tensor = torch.arange(12, dtype=torch.int32).view(3, 4)
    for name, rank in (("a", 2), ("b", 0), ("c", 1)):
        shards.write_shard(tmp_path / f"{name}.safetensors", {"weights/w": shards.part_of_rank(tensor, rank, 3)})
    found = shards.ShardReader(tmp_path)
    assert list(found) == ["weights/w"]
    assert found.shapes == {"weights/w": (3, 4)}
    assert found.dtype("weights/w") == torch.int32
    for start in range(13):
        for stop in range(start, 13):
            assert found.read("weights/w", start, stop).tolist() == list(range(start, stop))
            assert found.read("weights/w", start, stop).dtype == torch.int32
    assert torch.equal(found.whole("weights/w"), tensor)


def test_the_header_has_the_position_of_each_shard(tmp_path: Path) -> None:
    from safetensors import safe_open

    tensor = torch.arange(12.0).view(3, 4)
    turned, empty = shards.part_of_rank(tensor.T, 1, 2), shards.part_of_rank(torch.zeros(0), 0, 1)
    shards.write_shard(tmp_path / "one.safetensors", {"optimizer/w/exp_avg": turned, "empty": empty})
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata() == {"places": '{"optimizer/w/exp_avg": [6, 4, 3]}'}
        assert file.get_tensor("optimizer/w/exp_avg").tolist() == tensor.T.flatten()[6:].tolist()
    assert (shards.WEIGHTS, shards.OPTIMIZER) == ("weights/", "optimizer/")


def test_a_header_without_places_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="foreign"):
        shards.ShardReader(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata={"other": "x"})
    with pytest.raises(CheckpointError, match="foreign"):
        shards.ShardReader(tmp_path)
