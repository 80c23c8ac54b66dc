"""Weights and optimizer state are restored by name, however they were sharded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint import local_state, shards, single_file
from pipeline.errors import CheckpointError, ConfigError


class Tied(nn.Module):
    """Two layers that share a matrix, with a persistent buffer and one that is not."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.randn(2))
        self.register_buffer("mask", torch.randn(2), persistent=False)


def trained(seed: int, steps: int = 3) -> tuple[Tied, torch.optim.Adam]:
    module = Tied(seed)
    groups = [{"params": [module.first.weight]}, {"params": [module.first.bias, module.second.bias], "lr": 0.5}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module.second(module.first(torch.randn(4, 3))).square().sum().backward()
        optimizer.step()
    return module, optimizer


def save(directory: Path, module: nn.Module, optimizer: torch.optim.Optimizer, processes: int = 2) -> Path:
    """Write a checkpoint as that number of processes would."""
    made = directory / checkpoint.checkpoint_name(30)

    def write(rank: int, own: Path) -> None:
        mine = local_state.collect(module, optimizer, rank, processes)
        shards.write_shard(own / f"rank-{rank:05d}.safetensors", mine.shards)
        if rank == 0:
            plain = {name: value for name, value in mine._asdict().items() if name != "shards"}
            state = {"optimizer": plain, "aliases": local_state.aliases(module), "global_step": 30}
            torch.save(state, own / checkpoint.STATE)

    writings = [checkpoint.Writing(made, lambda own, rank=rank: write(rank, own), rank) for rank in range(processes)]
    for writing in writings:
        writing.thread.join()
        assert writing.error is None
    writings[0].publish({"step": 30}, processes)
    return made


def by_key(tree: object) -> dict[str, object]:
    """Return the leaves of a tree by their paths, tensors as lists."""
    leaves, _ = torch.utils._pytree.tree_flatten_with_path(tree)
    listed = ((path, leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf) for path, leaf in leaves)
    return {torch.utils._pytree.keystr(path): leaf for path, leaf in listed}


def equal(one: object, two: object) -> bool:
    return by_key(one) == by_key(two)


@pytest.mark.numeric
@pytest.mark.parametrize("processes", [1, 3])
def test_one_process_reads_what_torch_would_have_saved(tmp_path: Path, processes: int) -> None:
    module, optimizer = trained(1)
    found = checkpoint.read_state(save(tmp_path, module, optimizer, processes))
    assert found.keys() == {"global_step", "state_dict", "optimizer_states"}
    assert dict(sorted(found["state_dict"].items())).keys() == dict(sorted(module.state_dict().items())).keys()
    assert all(torch.equal(found["state_dict"][name], value) for name, value in module.state_dict().items())
    [state] = found["optimizer_states"]
    expected = optimizer.state_dict()
    assert equal(state["param_groups"], expected["param_groups"])
    assert by_key(state["state"]) == by_key(expected["state"])
    loaded = checkpoint.CheckpointDirectory().load_checkpoint(str(tmp_path / checkpoint.checkpoint_name(30)))
    assert loaded.keys() == found.keys()


@pytest.mark.numeric
def test_training_continues_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    optimizer.state[module.first.bias]["note"] = 7.5
    read = shards.ShardReader(path := save(tmp_path, module, optimizer))
    other, other_optimizer = trained(2, steps=1)
    mask = other.mask.clone()
    local_state.restore_weights(other, read)
    kept = checkpoint.read_plain(path)["optimizer"]
    local_state.restore_optimizer(other, other_optimizer, read, kept)
    assert equal(other.state_dict(), module.state_dict())
    assert torch.equal(other.mask, mask)
    assert other_optimizer.state[other.first.bias].pop("note") == 7.5
    del optimizer.state[module.first.bias]["note"]
    assert equal(other_optimizer.state_dict()["param_groups"], optimizer.state_dict()["param_groups"])
    for one, two in ((module, optimizer), (other, other_optimizer)):
        two.zero_grad()
        one.second(one.first(torch.ones(4, 3))).square().sum().backward()
        two.step()
    assert equal(other.state_dict(), module.state_dict())


def test_tensors_have_the_names_of_the_layout() -> None:
    module, optimizer = trained(1)
    mine = local_state.collect(module, optimizer, 0, 1)
    parameters = ("first.weight", "first.bias", "second.bias")
    weights = {f"weights/{name}" for name in (*parameters, "mean")}
    keys = ("step", "exp_avg", "exp_avg_sq")
    assert mine.shards.keys() == weights | {f"optimizer/{name}/{key}" for name in parameters for key in keys}
    assert [group["params"] for group in mine.groups] == [["first.weight"], ["first.bias", "second.bias"]]
    assert [group["lr"] for group in mine.groups] == [0.1, 0.5]
    assert mine.values == mine.loss_scale == {}
    assert local_state.aliases(module) == {"second.weight": "first.weight"}
    assert local_state.collect(module, None, 0, 1)[1:] == ({}, [], {})


@pytest.mark.numeric
def test_each_process_writes_its_share() -> None:
    module, optimizer = trained(1)
    shares = [local_state.collect(module, optimizer, rank, 2).shards["weights/first.weight"] for rank in range(2)]
    assert [(share.start, len(share.values), share.shape) for share in shares] == [(0, 4, (3, 3)), (4, 5, (3, 3))]
    assert torch.equal(torch.cat([share.values for share in shares]), module.first.weight.flatten())


def test_a_tensor_of_another_shape_or_none_is_refused(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    read = shards.ShardReader(save(tmp_path, module, optimizer))
    with pytest.raises(
        CheckpointError, match=r"weights/first.weight: expected shape \(9,\) of the model, got \(3, 3\)"
    ):
        local_state.fill_tensor(torch.zeros(9), read, "weights/first.weight")
    with pytest.raises(CheckpointError, match=r"weights/third: expected shape \(2,\) of the model, got no such tensor"):
        local_state.fill_tensor(torch.zeros(2), read, "weights/third")
    read.fill("weights/mean", torch.Size([2]), 0, torch.zeros(2))


@pytest.fixture(params=[0, 1, 2])
def rank(request: pytest.FixtureRequest) -> Iterator[int]:
    """Simulate a rank of three processes, without communication."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=request.param, world_size=3)
    yield request.param
    torch.distributed.destroy_process_group()


ROWS = {0: slice(0, 2), 1: slice(2, 4), 2: slice(4, 5)}  # of five, as FSDP divides them


def mesh_of(rank: int) -> DeviceMesh:
    """Return a mesh of all processes, whose name separates torch's caches of equal meshes."""
    return init_device_mesh("cpu", (3,), mesh_dim_names=(f"as_seen_by_{rank}",))


def sharded(whole: torch.Tensor, rank: int) -> DTensor:
    mesh, local = mesh_of(rank), whole[ROWS[rank]].clone()
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())


@pytest.mark.numeric
def test_a_shard_of_rows_is_a_range_of_the_whole(rank: int, tmp_path: Path) -> None:
    whole = torch.arange(20.0).view(5, 4)
    piece = local_state.local_shard(sharded(whole, rank), rank, 3)
    assert piece.start == 4 * ROWS[rank].start
    assert piece.shape == (5, 4)
    assert torch.equal(piece.values, whole[ROWS[rank]].flatten())
    shards.write_shard(tmp_path / "rank-0.safetensors", {"weights/w": shards.part_of_rank(whole, 0, 1)})
    empty = sharded(torch.zeros(5, 4), rank)
    local_state.fill_tensor(empty, shards.ShardReader(tmp_path), "weights/w")
    assert torch.equal(empty.to_local(), whole[ROWS[rank]])


def test_a_shard_of_columns_is_refused(rank: int) -> None:
    mesh = mesh_of(rank)
    columns = DTensor.from_local(torch.zeros(5, 1), mesh, [Shard(1)], run_check=False, shape=(5, 3), stride=(3, 1))
    with pytest.raises(NotImplementedError, match="only shards along the first axis"):
        local_state.local_shard(columns, rank, 3)
    same = DTensor.from_local(torch.arange(4.0), mesh, [Replicate()], run_check=False)
    assert local_state.local_shard(same, rank, 3).values.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.numeric
def test_the_state_of_a_shard_is_divided_as_its_parameter_is(rank: int, tmp_path: Path) -> None:
    whole = torch.arange(20.0).view(5, 4)
    shares = {"weights/w": whole, "optimizer/w/exp_avg": whole.double() + 1, "optimizer/w/step": torch.tensor(3.0)}
    written = {name: shards.part_of_rank(value, 0, 1) for name, value in shares.items()}
    shards.write_shard(tmp_path / "rank-0.safetensors", written)
    module = nn.Module()
    module.w = nn.Parameter(sharded(torch.zeros(5, 4), rank))
    optimizer = torch.optim.Adam(module.parameters())
    kept = {"values": {}, "groups": [{**optimizer.param_groups[0], "params": ["w"], "lr": 0.25}]}
    read = shards.ShardReader(tmp_path)
    assert local_state.keys_of(read, "w") == [("exp_avg", "optimizer/w/exp_avg"), ("step", "optimizer/w/step")]
    like = local_state._like(module.w, read, "optimizer/w/exp_avg")
    assert isinstance(like, DTensor)
    assert like.dtype == torch.float64
    assert torch.equal(like.to_local(), whole[ROWS[rank]].double() + 1)
    local_state.restore_optimizer(module, optimizer, read, kept)
    state = optimizer.state[module.w]
    assert torch.equal(state["exp_avg"].to_local(), whole[ROWS[rank]] + 1)
    assert state["step"] == 3.0
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_a_checkpoint_in_one_file_is_what_is_read_from_the_directory(tmp_path: Path, suffix: str) -> None:
    module, optimizer = trained(1)
    path = save(tmp_path, module, optimizer)
    single_file.write_single_file(path, file := tmp_path / "deep" / "er" / f"model{suffix}")
    assert equal(torch.load(file), checkpoint.read_state(path))
    assert sorted(each.name for each in file.parent.iterdir()) == [file.name]


@pytest.mark.numeric
def test_safetensors_hold_each_weight_once_and_whole(tmp_path: Path) -> None:
    from safetensors import safe_open

    module, _ = trained(1)
    module.register_buffer("nothing", torch.zeros(0))
    module.register_buffer("none", torch.zeros(0))
    state = {"state_dict": module.state_dict(), "global_step": 30}
    state["state_dict"]["turned"] = torch.arange(6.0).view(2, 3).T
    single_file._save(state, file := tmp_path / "model.safetensors", ".safetensors")
    with safe_open(file, "pt") as found:
        assert found.metadata() == {"format": "pt", "step": "30", "second.weight": "first.weight"}
        names = {"first.weight", "first.bias", "second.bias", "mean", "nothing", "none", "turned"}
        assert set(found.keys()) == names
        assert all(torch.equal(found.get_tensor(name), state["state_dict"][name]) for name in names)
    single_file.write_single_file(save(tmp_path, *trained(1)), tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "pt") as found:
        assert set(found.keys()) == {"first.weight", "first.bias", "second.bias", "mean"}


def test_a_file_of_another_format_or_one_that_is_there_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, *trained(1))
    with pytest.raises(ConfigError, match=r"suffix \.ckpt, \.pt or \.safetensors"):
        single_file.write_single_file(path, tmp_path / "model.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigError, match="exists"):
        single_file.write_single_file(path, tmp_path / "model.pt")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        single_file.write_single_file(path, tmp_path / "file" / "model.pt")
    (path / "rank-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="rank-00001"):
        single_file.write_single_file(path, tmp_path / "other.pt")
