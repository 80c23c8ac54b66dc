"""The average of the weights in a checkpoint: where it is kept, and how it takes the place of the weights."""

import sys
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn

AVERAGED = "averaged"  # where a checkpoint keeps the average, by the names of the parameters


def prefer_average(state: dict[str, Any], module: nn.Module, name: str) -> None:
    """Put the average of the weights, where a checkpoint has one, in the place of its weights, and say so.

    Args:
        state: the checkpoint; its `state_dict` is changed.
        module: whose weights they are.
        name: what the checkpoint is called in the message.
    """
    if AVERAGED not in state:
        return
    average = {parameter: state[AVERAGED][name] for name, parameter in module.named_parameters()}
    every_name = module.named_parameters(remove_duplicate=False)  # tied parameters have several
    state["state_dict"] |= {name: average[parameter] for name, parameter in every_name}
    _say(f"{name}: the averaged weights are used")


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
