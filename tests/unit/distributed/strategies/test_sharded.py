"""A sharded strategy partitions each layer when it is added to the model, before the next is built."""

import pytest
import torch
from torch import nn

from pipeline.distributed.strategies.sharded import Sharded, layers
from pipeline.models.conv import ConvNetLanguageModel
from pipeline.models.gru import GRULanguageModel
from pipeline.models.linear_recurrence import LinearRecurrenceLanguageModel
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.optim import parameter_groups
from pipeline.tasks.language_model import LanguageModel

DEEP = [
    ConvNetLanguageModel,
    GRULanguageModel,
    LinearRecurrenceLanguageModel,
    LSTMLanguageModel,
    TransformerLanguageModel,
]


class Dividing(Sharded):
    """A strategy that drops the weights of layers and records how many were whole."""

    restore_weights = restore_optimizer = None

    def __init__(self, module: nn.Module) -> None:
        self.lightning_module = module
        self.kept: list[dict[str, torch.Tensor]] = []
        self.whole: list[int] = []

    def divide(self, layer: nn.Module) -> None:
        self.kept.append({name: each.detach().clone() for name, each in layer.named_parameters()})
        self.whole.append(sum(each.numel() for each in layer.parameters()))
        for parameter in layer.parameters():
            parameter.data = parameter.data.new_empty(0)


@pytest.mark.numeric
@pytest.mark.parametrize("kind", DEEP)
def test_layers_are_divided_one_by_one_and_start_as_undivided_ones_do(kind: type[LanguageModel]) -> None:
    with torch.device("meta"):
        shape = kind(vocab_size=11, width=16, depth=3)
    Dividing.__abstractmethods__ = frozenset()
    strategy = Dividing(shape)
    torch.manual_seed(5)
    with strategy.model_sharded_context():
        divided = kind(vocab_size=11, width=16, depth=3)
    torch.manual_seed(5)
    whole = kind(vocab_size=11, width=16, depth=3)
    assert len(strategy.kept) == len(layers(whole)) == 3
    for kept, layer in zip(strategy.kept, layers(whole), strict=True):
        assert kept.keys() == dict(layer.named_parameters()).keys()
        for name, parameter in layer.named_parameters():
            assert torch.equal(kept[name], parameter), name
    assert sum(each.numel() for layer in layers(divided) for each in layer.parameters()) == 0
    assert torch.equal(divided.embedding.weight, whole.embedding.weight)


def test_what_is_built_afterwards_is_whole() -> None:
    Dividing.__abstractmethods__ = frozenset()
    strategy = Dividing(nn.Module())
    with pytest.raises(RuntimeError, match="interrupted"), strategy.model_sharded_context():
        raise RuntimeError("interrupted")
    model = LSTMLanguageModel(vocab_size=11, width=16)
    assert strategy.kept == []
    assert all(each.numel() for layer in layers(model) for each in layer.parameters())


def test_a_divided_matrix_is_still_decayed() -> None:
    module = nn.Linear(3, 2)
    module.weight.ds_shape = module.weight.shape
    module.weight.data = module.weight.data.new_empty(0)
    matrices, vectors = parameter_groups(module)
    assert [id(each) for each in matrices["params"]] == [id(module.weight)]
    assert [id(each) for each in vectors["params"]] == [id(module.bias)]
