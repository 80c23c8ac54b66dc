"""The base of all tasks: optimizer, schedule, gradient norm, and the state carried between batches."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from pipeline import state as states
from pipeline.callbacks.train_metrics import Monitor
from pipeline.data.module import PlannedDataModule
from pipeline.distributed.checkpoint.averaged import prefer_average
from pipeline.distributed.lightning_internals import LightModule
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import CheckpointError, ConfigError
from pipeline.optim import OptimizerCallable, Schedule, full_tensor, gradient_norm, parameter_groups, total_steps
from pipeline.optim.muon import Muon, hidden_matrices
from pipeline.runs.vocabulary_rows import Rows
from pipeline.state import State
from pipeline.tasks.arguments import plain_arguments, rebuilt_arguments

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ARGUMENTS, LEFT_OUT = "arguments", "arguments_left_out"  # keys of a checkpoint of ModelCheckpoint
SomeTask = TypeVar("SomeTask", bound="Task")
Reads = Literal["prompt", "text", "image", "audio", "label", "series", "episode", "music"]
"""Input of a trained task; a prompt is a text to continue, a label is the class of what is generated."""
Writes = Literal["text", "transcript", "label", "image", "audio", "series", "action", "music"]
"""Output of a trained task; a text is generated token by token, a transcript is decoded from all positions at once."""


class Task(LightModule):
    """Loss, metrics, optimizer and decoding for one kind of prediction.

    Args:
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step; None keeps it constant.
    """

    reads: Reads
    writes: Writes
    compiled: tuple[str, ...] = ()  # methods that are compiled beside the layers, if layers are
    seen: Metric  # sums over training batches since they were last logged

    def __init__(self, optimizer: OptimizerCallable, schedule: Schedule | None) -> None:
        super().__init__()
        self.optimizer_of, self.schedule = optimizer, schedule
        self.carried: dict[int, State] = {}  # by index of the micro-batch in a step
        self.norm: Tensor | None = None  # gradient norm of the last step
        self.total: Tensor | None = None  # gradient norm of the current step, divided as the strategy divides it
        self.trained: list[nn.Parameter] = []  # all parameters, as the strategy has wrapped them
        self.build: Callable[[], nn.Module] | None = None  # builds the layers of a task created on the meta device
        self.directory: Path | None = None  # run or exported model that the task was loaded from
        self.arguments = plain_arguments(self)

    @classmethod
    def from_pretrained(cls: type[SomeTask], path: str | Path) -> SomeTask:
        """Load a trained task in evaluation mode on the CPU, without executing code from its files.

        Args:
            path: a directory written by `unroll checkpoint export`, or a run, whose best checkpoint is used.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, names foreign code, or holds another kind of task.
        """
        from pipeline.runs import export
        from pipeline.runs.load import load_model
        from pipeline.runs.run import find_run

        where = Path(path)
        task = export.load_export(where) if export.is_exported(where) else load_model(find_run(str(path)))
        return cls._loaded(task, path)

    @classmethod
    def load_from_checkpoint(cls: type[SomeTask], checkpoint_path: str | Path, **arguments: Any) -> SomeTask:  # type: ignore[override]
        """Load a task with the weights of a checkpoint on the CPU, without executing code from it.

        Args:
            checkpoint_path: a checkpoint of a run, a file that `unroll checkpoint convert` wrote, or a file of
                Lightning's `ModelCheckpoint`.
            **arguments: arguments of the class that the checkpoint does not hold: for a file of `ModelCheckpoint`,
                those that are not plain values, such as a network.

        Raises:
            CheckpointError: the checkpoint is missing or damaged, holds another kind of task, or lacks an argument.
        """
        from pipeline.runs.load import MODEL_CONFIG, load_checkpoint, read_file

        path = Path(checkpoint_path)
        state = None if path.is_dir() else read_file(path)
        if state is None or MODEL_CONFIG in state:
            return cls._loaded(load_checkpoint(path, state), path)
        given = rebuilt_arguments(state.get(ARGUMENTS, {})) | arguments
        if lacking := [name for name in state.get(LEFT_OUT, ()) if name not in given]:
            raise CheckpointError(f"{path} does not hold the argument {lacking[0]!r}: pass {lacking[0]}=...")
        task = cls(**given)
        try:
            task.load_state_dict(state["state_dict"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not match {cls.__name__} with these arguments: {error}") from error
        return task

    @classmethod
    def _loaded(cls: type[SomeTask], task: Any, path: str | Path) -> SomeTask:
        if not isinstance(task, cls):
            raise CheckpointError(f"{path}: expected a {cls.__name__}, got a {type(task).__name__}")
        return task

    def vocabulary(self, name: str = "tokenizer.json") -> "tuple[Tokenizer, int]":
        """Return the tokenizer that the task was trained with, and its EOS token.

        Raises:
            CheckpointError: the task was not loaded by `from_pretrained`, or the file is damaged.
        """
        from pipeline.generation.vocabulary import vocabulary

        if self.directory is None:
            raise CheckpointError(f"this {type(self).__name__} has no tokenizer: load it with from_pretrained")
        return vocabulary(self.directory / name)

    def setup(self, stage: str) -> None:
        """Find the tokenizers of the data, for `generate` after a training."""
        if self.directory is None and isinstance(self.data, PlannedDataModule):
            self.directory = self.data.dataset.path

    @property
    def writes_rows(self) -> bool:
        """Whether the trainer has a `Monitor`, which writes all metrics of a run to the loggers, in rows of its own."""
        trainer: Any = self.trainer
        return any(isinstance(callback, Monitor) for callback in trainer.callbacks)

    def on_fit_start(self) -> None:
        """Warn if the schedule does not suit the length of the run."""
        self.trained = []
        if self.schedule and self.trainer.is_global_zero and (line := self.schedule.warning(self.total_steps)):
            print(f"unroll: warning: {line}", file=sys.stderr, flush=True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the training loss, unless a `Monitor` does."""
        if not self.writes_rows:
            self.log("train/loss", outputs["loss"].detach(), prog_bar=True, batch_size=1)

    @property
    def architecture(self) -> str:
        """The name of the class, prefixed by its network's name if the task takes any network, such as LSTMPolicy."""
        network = dict(self.named_children()).get("network")
        takes_any = network is not None and type(self).__module__.startswith("pipeline.tasks.")
        return f"{type(network).__name__ if takes_any else ''}{type(self).__name__}"

    def vocabulary_rows(self) -> dict[str, Rows]:
        """Return the parameters with a row per token or label, by name, and what their rows mean."""
        return {}

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callbacks that show the model's progress, for the run in that directory."""
        return []

    def loss_metrics(self, loss: float) -> dict[str, float]:
        """Return the metrics derived from a loss, for a row of the journal."""
        return {"loss": loss}

    def report(self) -> list[str]:
        """Return the lines that an evaluation prints below its metrics."""
        return []

    @property
    def scored(self) -> str:
        """How many rows the scores of the last evaluation are of; empty if they are of all."""
        return ""

    def configure_model(self) -> None:
        """Build the layers inside the context of a strategy, which may divide each layer as soon as it is built."""
        if self.build is None:
            return
        with torch.device("cpu"):  # so that initial weights are the same on every kind of device
            built, self.build = self.build(), None
        for name, module in built.named_children():
            setattr(self, name, module)

    @property
    def data(self) -> Any:
        """The DataModule that feeds the trainer."""
        trainer: Any = self.trainer
        return trainer.datamodule

    @property
    def loss_scale(self) -> int:
        """Number of processes times micro-batches, by which averaging the gradients divides."""
        return int(self.trainer.world_size) * int(self.trainer.accumulate_grad_batches)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer, data = self.trainer, self.data
        return total_steps(trainer.max_epochs, trainer.max_steps, data.steps_per_epoch)

    def check_optimizer(self) -> torch.optim.Optimizer:
        """Return the configured optimizer over a dummy parameter.

        Raises:
            ConfigError: the optimizer rejects its settings.
        """
        try:
            return self.optimizer_of([{"params": [nn.Parameter(torch.zeros(1, device="cpu"))]}])
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"model.init_args.optimizer: {error}") from error

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the configured optimizer over the parameter groups."""
        hidden = hidden_matrices(self) if isinstance(self.check_optimizer(), Muon) else ()
        return self.optimizer_of(parameter_groups(self, hidden))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over the parameter groups, and the schedule, applied at each step."""
        optimizer = self.make_optimizer()
        if self.schedule is None:
            return optimizer
        schedule, total = self.schedule, self.total_steps
        per_epoch = self.data.steps_per_epoch
        by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.scale(step, total, per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, and keep its norm before clipping for logging; ZeRO does both within its step."""
        if traits(self.trainer).owns_gradients:
            return
        self.norm = self.measure_gradient()
        total, self.total = self.total, None
        assert total is not None
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            nn.utils.clip_grads_with_norm_(self.trained, gradient_clip_val, total)
        elif gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def measure_gradient(self) -> Tensor:
        """Return the Euclidean norm of this step's gradient over all parameters, computed once per step."""
        if self.total is None:
            if not self.trained:
                self.trained = list(self.parameters())
            norm, scale = gradient_norm(self.trained), self._gradient_scale()
            self.total = norm if scale is None else norm / scale
        return full_tensor(self.total)

    def _gradient_scale(self) -> Tensor | None:
        """Return the factor of the gradients: the loss scale of float16, if the optimizer's kernel divides by it."""
        if (scaler := getattr(self.trainer.precision_plugin, "scaler", None)) is None:
            return None
        divides = [getattr(each, "_step_supports_amp_scaling", False) for each in self.trainer.optimizers]
        return scaler.scale(torch.ones((), device=self.device)) if any(divides) else None

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Save the schedule, and the carried state of all processes in the order of the global batch's rows."""
        if not self.writes_rows:  # the config of a run holds them
            checkpoint[ARGUMENTS], checkpoint[LEFT_OUT] = self.arguments
        if self.schedule is not None:
            checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["seen"] = {name: self._sum(value) for name, value in self.seen.metric_state.items()}
        if self.carried:
            checkpoint["carried"] = self._gather_carried()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the schedule, and this process's rows of the carried state, independent of the former world size."""
        if self.trainer.state.fn != "fit":
            prefer_average(checkpoint, self, Path(str(self.trainer.ckpt_path)).name)
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint.get("schedule", {}))
        if self.trainer.is_global_zero:  # The checkpoint holds the sum over processes: only one may load it.
            for name, value in checkpoint["seen"].items():
                setattr(self.seen, name, value.to(getattr(self.seen, name)))  # to its device and dtype
        if (gathered := checkpoint.get("carried")) is None:
            return
        slots, ranks = self.trainer.accumulate_grad_batches, self.trainer.world_size
        rows = states.rows(gathered)
        pieces = states.split(gathered, [rows // (ranks * slots)] * (ranks * slots))
        mine = pieces[self.trainer.global_rank * slots : (self.trainer.global_rank + 1) * slots]
        self.carried = dict(enumerate(mine))

    def _sum(self, value: Tensor | list[Tensor]) -> Tensor:
        assert isinstance(value, Tensor)
        return self.trainer.strategy.reduce(value.clone(), reduce_op="sum").cpu()

    def _gather_carried(self) -> State:
        mine = states.map_state(Tensor.cpu, states.concatenate([self.carried[s] for s in sorted(self.carried)]))
        if self.trainer.world_size == 1:
            return mine
        pieces: list[State] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(pieces, mine)
        return states.concatenate(pieces)
