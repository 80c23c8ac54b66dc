"""Initial weights have the distribution of the config, whichever part of a tensor a process keeps."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from pipeline.callbacks.initialization import DrawnWeights, InitialDraw, Initialization, chosen
from pipeline.distributed.checkpoint.local_state import restore_weights
from pipeline.errors import ConfigError
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.tasks.token_prediction import TokenHead

UNIFORM = Initialization("uniform", 0.1)


def model(tied: bool = False) -> LSTMLanguageModel:
    return LSTMLanguageModel(vocab_size=300, head=TokenHead(tied=tied), width=64)


def drawn(module: nn.Module, *given: Initialization, seed: int = 1) -> dict[str, torch.Tensor]:
    restore_weights(module, DrawnWeights(chosen(module, given), seed))
    return {name: each.detach().clone() for name, each in module.named_parameters()}


@pytest.mark.numeric
def test_all_parameters_are_uniform_biases_included() -> None:
    for name, values in drawn(model(), UNIFORM).items():
        assert values.abs().max() <= 0.1, name
        assert values.abs().max() > 0.095, name
        assert abs(values.mean()) < 4 * 0.1 / math.sqrt(3 * values.numel()), name
        assert values.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.15), name


@pytest.mark.numeric
def test_a_later_normal_distribution_replaces_an_earlier_one_where_its_patterns_match() -> None:
    normal = Initialization("normal", 0.01, ["embedding.weight", "*.layers.1.*"])
    for name, values in drawn(model(), UNIFORM, normal).items():
        is_normal = name == "embedding.weight" or ".layers.1." in name
        assert values.std() == pytest.approx(0.01 if is_normal else 0.1 / math.sqrt(3), rel=0.15), name
        assert values.abs().max() > (0.02 if is_normal else 0.09), name


@pytest.mark.numeric
def test_a_shard_is_a_part_of_the_whole_tensor() -> None:
    weights, parts = DrawnWeights({"a": UNIFORM}, seed=3), torch.empty(35)
    whole = torch.empty(35)
    weights.fill("weights/a", (5, 7), 0, whole)
    for start, stop in ((0, 11), (11, 12), (12, 35)):
        weights.fill("weights/a", (5, 7), start, parts[start:stop])
    assert torch.equal(parts, whole)
    kept = torch.full((3,), 2.0)
    weights.fill("weights/other", (3,), 0, kept)
    assert kept.tolist() == [2.0] * 3


@pytest.mark.numeric
def test_parameters_are_drawn_by_seed_and_name() -> None:
    one, again, other = (drawn(model(), UNIFORM, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["network.layers.0.kernel.weight_hh_l0"], one["network.layers.1.kernel.weight_hh_l0"])


@pytest.mark.numeric
def test_a_shared_parameter_is_matched_by_any_of_its_names() -> None:
    module = model(tied=True)
    found = drawn(module, Initialization("normal", 0.5, ["output.weight"]))
    assert found["embedding.weight"].std() == pytest.approx(0.5, rel=0.05)
    assert module.output.weight is module.embedding.weight


@pytest.mark.numeric
def test_only_the_first_start_of_a_run_draws() -> None:
    module, trainer = model(), Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    before = module.embedding.weight.detach().clone()
    trainer.ckpt_path = "step-00000002"
    InitialDraw([UNIFORM], 1).on_fit_start(trainer, module)
    assert torch.equal(module.embedding.weight, before)
    trainer.ckpt_path = None
    InitialDraw([UNIFORM], 1).on_fit_start(trainer, module)
    assert torch.equal(module.embedding.weight, drawn(model(), UNIFORM)["embedding.weight"])


def test_invalid_values_raise_an_error() -> None:
    with pytest.raises(ConfigError, match=r"initialization\[0\]\.parameters=netwrok: expected a pattern"):
        chosen(model(), [Initialization("normal", 1.0, ["netwrok"])])
    with pytest.raises(ValueError, match=r"scale=-1\.0: expected at least 0"):
        Initialization("normal", -1.0)
