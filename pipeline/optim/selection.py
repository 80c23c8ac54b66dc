"""Parameters selected by patterns of their names, and parameters that are excluded from training."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from pipeline.errors import ConfigError


def matching_parameters(module: nn.Module, pattern: str, option: str) -> dict[str, nn.Parameter]:
    """Return the parameters that a pattern matches, by name; a shared one under each of its names that match.

    Args:
        module: the model.
        pattern: a pattern of parameter names, such as `network.blocks.0.*`; `*` also matches dots.
        option: the option that holds the pattern, for the error.

    Raises:
        ConfigError: the pattern matches no parameter.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    found = {name: parameter for name, parameter in named.items() if fnmatchcase(name, pattern)}
    if not found:
        inside = [f"{pattern}.*"] if any(name.startswith(f"{pattern}.") for name in named) else []
        near = inside or get_close_matches(pattern, named, 3, 0.0)
        raise ConfigError(
            f"{option}={pattern}: expected a pattern of parameter names, got one that matches none. "
            f"Near names: {', '.join(near)}"
        )
    return found


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training. Dropout and other behavior of their layers in training remain.

    Args:
        module: the model.
        patterns: patterns of parameter names, such as `network.blocks.0.*`; `*` also matches dots.

    Raises:
        ConfigError: a pattern matches no parameter, or no parameter is left to train.
    """
    for pattern in patterns:
        for parameter in matching_parameters(module, pattern, "--freeze").values():
            parameter.requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(f"--freeze={', '.join(patterns)}: expected parameters to train, got none. Freeze fewer")


def frozen_line(module: nn.Module) -> str:
    """Return how many of a module's parameters are frozen, as text; empty without any."""
    frozen = sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in module.parameters())
    return f"{frozen:,} of {whole:,} parameters" if frozen else ""
