"""What every task shares: its optimizer, its schedule, its gradient's norm, and the state carried between batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchmetrics import Metric

from pipeline import state as states
from pipeline.distributed.checkpoint.averaged import prefer_average
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import CheckpointError, ConfigError
from pipeline.optim import OptimizerCallable, Schedule, full_tensor, gradient_norm, parameter_groups, total_steps
from pipeline.state import State

SomeTask = TypeVar("SomeTask", bound="Task")
Reads = Literal["prompt", "text", "image", "audio", "label", "series", "episode"]
"""What a trained task is used with; a prompt is a text that is continued, a label names what is to be drawn."""
Writes = Literal["text", "transcript", "label", "image", "audio", "series", "action"]
"""What a trained task makes of it; a text is written token by token, a transcript is found in all positions at once."""


class Task(LightningModule):
    """Loss, metrics, optimizer and decoding for one kind of prediction.

    Args:
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step; constant when None.
    """

    reads: Reads
    writes: Writes
    seen: Metric  # sums over training batches since they were last logged

    def __init__(self, optimizer: OptimizerCallable, schedule: Schedule | None) -> None:
        super().__init__()
        self.optimizer_of, self.schedule = optimizer, schedule
        self.carried: dict[int, State] = {}  # by micro-batch of a step
        self.norm: Tensor | None = None  # of the last step's gradient
        self.total: Tensor | None = None  # the same for the step under way, as the strategy divides it
        self.build: Callable[[], nn.Module] | None = None  # makes what this only has the shape of

    @classmethod
    def from_pretrained(cls: type[SomeTask], path: str | Path) -> SomeTask:
        """A trained task in evaluation mode, on the CPU; nothing in its files is executed.

        Args:
            path: a directory that `unroll checkpoint export` made, or a run (its best checkpoint is taken).

        Raises:
            CheckpointError: there is none, it is damaged, names foreign code, or is another kind of task.
        """
        from pipeline.runs import export
        from pipeline.runs.load import load_model
        from pipeline.runs.run import find_run

        where = Path(path)
        task = export.load_export(where) if export.is_exported(where) else load_model(find_run(str(path)))
        if not isinstance(task, cls):
            raise CheckpointError(f"{path} is of {type(task).__name__}, not of {cls.__name__}")
        return task

    @property
    def architecture(self) -> str:
        """The name of the class, after that of its network where the class is a task of any network: LSTMPolicy."""
        network = dict(self.named_children()).get("network")
        takes_any = network is not None and type(self).__module__.startswith("pipeline.tasks.")
        return f"{type(network).__name__ if takes_any else ''}{type(self).__name__}"

    def shown(self, run: Path) -> list[Callback]:
        """What shows people how the model does as it learns, for the run in that directory."""
        return []

    def measured(self, loss: float) -> dict[str, float]:
        """What a row of the journal says of a loss."""
        return {"loss": loss}

    def report(self) -> list[str]:
        """What an evaluation tells beside its numbers, in lines."""
        return []

    def configure_model(self) -> None:
        """Build the layers for real, in the context of a strategy that may divide each as soon as it is built."""
        if self.build is None:
            return
        with torch.device("cpu"):  # the same first weights on every kind of device
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
        """Processes times micro-batches: what averaging gradients over both divides by."""
        return int(self.trainer.world_size) * int(self.trainer.accumulate_grad_batches)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer, data = self.trainer, self.data
        return total_steps(trainer.max_epochs, trainer.max_steps, data.steps_per_epoch)

    def check_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer with its settings, of one parameter that is none of the model's.

        Raises:
            ConfigError: the optimizer does not take them.
        """
        try:
            return self.optimizer_of([{"params": [nn.Parameter(torch.zeros(1, device="cpu"))]}])
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"model.init_args.optimizer: {error}") from error

    def configure_optimizers(self) -> Any:
        """The optimizer over matrices and vectors, and the schedule step by step."""
        optimizer = self.optimizer_of(parameter_groups(self))
        if self.schedule is None:
            return optimizer
        schedule, total = self.schedule, self.total_steps
        per_epoch = self.data.steps_per_epoch
        by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.scale(step, total, per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and keep the norm before clipping for whoever logs it; ZeRO does both within its step."""
        if traits(self.trainer).owns_gradients:
            return
        self.norm = self.measure_gradient()
        total, self.total = self.total, None
        assert total is not None
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, total)
        elif gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def measure_gradient(self) -> Tensor:
        """The Euclidean norm of this step's gradient, over all parameters; computed by the first who asks."""
        if self.total is None:
            self.total = gradient_norm(self)
        return full_tensor(self.total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the schedule, and the carried state of all processes in the order of the global batch's rows."""
        if self.schedule is not None:
            checkpoint["schedule"] = self.schedule.state_dict()
        checkpoint["seen"] = {name: self._sum(value) for name, value in self.seen.metric_state.items()}
        if self.carried:
            checkpoint["carried"] = self._gather_carried()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the schedule, and this process's rows of the carried state, whatever the world size was."""
        if self.trainer.state.fn != "fit":
            prefer_average(checkpoint, self, Path(str(self.trainer.ckpt_path)).name)
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint.get("schedule", {}))
        if self.trainer.is_global_zero:  # the sum of all processes, taken up by one
            for name, value in checkpoint["seen"].items():
                setattr(self.seen, name, value.to(getattr(self.seen, name)))  # its device, its type
        if (everyone := checkpoint.get("carried")) is None:
            return
        slots, ranks = self.trainer.accumulate_grad_batches, self.trainer.world_size
        rows = states.rows(everyone)
        pieces = states.split(everyone, [rows // (ranks * slots)] * (ranks * slots))
        mine = pieces[self.trainer.global_rank * slots : (self.trainer.global_rank + 1) * slots]
        self.carried = dict(enumerate(mine))

    def _sum(self, value: Any) -> Tensor:
        assert isinstance(value, Tensor)
        return self.trainer.strategy.reduce(value.clone(), reduce_op="sum").cpu()

    def _gather_carried(self) -> State:
        mine = states.map_state(Tensor.cpu, states.concatenate([self.carried[s] for s in sorted(self.carried)]))
        if self.trainer.world_size == 1:
            return mine
        pieces: list[State] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(pieces, mine)
        return states.concatenate(pieces)
