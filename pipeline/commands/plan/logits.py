"""Memory of the logits of tokens, which a device computes at once or in blocks of positions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from pipeline.tasks.token_output import TokenOutput, block_rows

BlockRows = Callable[[int, int], int]  # positions whose logits are computed at once, from all positions and V

ON_CPU: BlockRows = partial(block_rows, device="cpu")


def compute_as(logits: BlockRows, task: nn.Module, times: int = 1) -> None:
    """Compute logits in the blocks of another device.

    Args:
        logits: the rule of that device.
        task: its output layers are changed.
        times: how many micro-batches such as the next one are computed together there.
    """
    for head in _heads(task):
        head.block_rows = lambda rows, vocab_size, _: -(-logits(rows * times, vocab_size) // times)


@contextmanager
def counting_blocks(task: nn.Module) -> Iterator[tuple[list[int], set[int]]]:
    """Yield a list that receives the temporary bytes of blocks, and a set with those of the weights' gradients.

    A block holds its logits and their log probabilities in float32. Gradients are saved by the forward pass and scaled
    in place by the backward pass.
    """
    blocks: list[int] = []
    gradients: set[int] = set()

    def count(layer: TokenOutput, given: tuple[Tensor, ...]) -> None:
        rows = given[0].shape[:-1].numel()
        if (block := layer.block_rows(rows, layer.out_features, "")) < rows:
            blocks.append(2 * 4 * block * layer.out_features)
            gradients.add(4 * layer.weight.numel())

    hooks = [head.register_forward_pre_hook(count) for head in _heads(task)]
    try:
        yield blocks, gradients
    finally:
        for hook in hooks:
            hook.remove()


def _heads(task: nn.Module) -> list[TokenOutput]:
    return [each for each in task.modules() if isinstance(each, TokenOutput)]
