"""Averaged weights in a checkpoint, and their use in place of the weights of training."""

import sys
from collections.abc import MutableMapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn

AVERAGED = "averaged"  # key of the average in a checkpoint, by the names of parameters


def prefer_average(state: MutableMapping[str, Any], module: nn.Module, name: str) -> None:
    """Replace the weights of a checkpoint by their average, if it has one, and print a line.

    Args:
        state: the checkpoint; its `state_dict` is changed.
        module: the module to which the weights belong.
        name: name of the checkpoint in the printed line.
    """
    if AVERAGED not in state:
        return
    average = {parameter: state[AVERAGED][name] for name, parameter in module.named_parameters()}
    every_name = module.named_parameters(remove_duplicate=False)  # tied parameters have several
    state["state_dict"] |= {name: average[parameter] for name, parameter in every_name}
    _print_once(f"{name}: using the averaged weights")


@rank_zero_only
def _print_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
