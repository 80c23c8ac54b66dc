"""`unroll architectures`: compare architectures on a small benchmark suite."""

import sys
import time

from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.errors import ConfigError


def main(argv: list[str]) -> int:
    """Measure all architectures, or the named ones, and print a table.

    Raises:
        ConfigError: a name is not a network.
    """
    parser = Parser(prog="unroll architectures", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="network classes, such as LSTM (default: all)")
    add("--width", type=positive_integer, default=64, metavar="D", help="width of every network (default: 64)")
    add(
        "--steps",
        type=positive_integer,
        default=500,
        metavar="N",
        help="training steps on each of two tasks (default: 500)",
    )
    add("--seed", type=non_negative_integer, default=1, help="seed of weights and data (default: 1)")
    options = parser.parse_args(argv)

    import torch

    from pipeline.commands.architectures.measure import (
        EXPLAINED,
        architectures_table,
        measure_architecture,
        networks,
    )

    torch.set_num_threads(1)
    known = networks()
    if wrong := [name for name in options.names if name not in known]:
        raise ConfigError(f"NAME={wrong[0]}: not a network. Choose from {', '.join(known)}")
    began = time.monotonic()
    found = {}
    for name in options.names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = measure_architecture(known[name], options)
    print("\n".join([*architectures_table(found), EXPLAINED]))
    print(f"\nwidth {options.width}, {options.steps} steps, one thread, {time.monotonic() - began:.0f} s")
    return 0
