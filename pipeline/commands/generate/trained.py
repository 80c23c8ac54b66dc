"""Load a trained model for `unroll generate`: its task and its weights."""

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ConfigError


class Trained(NamedTuple):
    """A run or an exported model, without weights."""

    name: str
    """The user's argument."""
    run: Path
    task: Any
    """Built on the meta device, for its class attributes."""

    @classmethod
    def find(cls, name: str) -> "Trained":
        """Build the task of a run or an exported model from its config.

        Raises:
            CheckpointError: the run does not exist, or its config is damaged.
        """
        import torch

        from pipeline.runs import export
        from pipeline.runs.load import skeleton
        from pipeline.runs.run import find_run

        if not export.is_exported(Path(name)):
            return cls(name, run := find_run(name), skeleton(run))
        with torch.device("meta"):
            return cls(name, Path(name), export.build(Path(name)))

    def __str__(self) -> str:
        return f"{self.run} ({type(self.task).__name__})"


def open_model(name: str, checkpoint: str) -> tuple[Path, Any, str]:
    """Load a run or an exported model; return its directory, the model in eval mode, and its device.

    Raises:
        CheckpointError: the run or its checkpoint does not exist.
        ConfigError: a checkpoint is selected for an exported model, which has only one.
    """
    import torch

    from pipeline.runs import export
    from pipeline.runs.load import load_model
    from pipeline.runs.match import check_use
    from pipeline.runs.run import Run, find_run

    whole = export.is_exported(Path(name))
    if whole and checkpoint != "best":
        raise ConfigError(f"--checkpoint={checkpoint}: the exported model {name} has no checkpoints. Omit --checkpoint")
    run = Path(name) if whole else find_run(name)
    if not whole:
        check_use(Run(run))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return run, (export.load_export(run) if whole else load_model(run, checkpoint)).to(device), device


def unknown_label(run: Path, labels: list[str]) -> str:
    """Return the part of an error message that lists the labels of a run."""
    known = f"choose from {', '.join(labels)}" if labels else "omit --prompt, as it was trained without labels"
    return f"not a label of {run}; {known}"
