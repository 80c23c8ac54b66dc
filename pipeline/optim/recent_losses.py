"""A learning rate that is reduced when the validation loss exceeds those of the latest validations."""

from pipeline.optim import Schedule

__all__ = ["RecentLosses"]


class RecentLosses(Schedule):
    """Multiplied by `factor` at a validation whose loss is above all of the last `window` losses.

    The rule of the experiments of Bai, Kolter and Koltun (2018), arXiv:1803.01271, in their code: polyphonic music
    divides the rate by 10 after epoch 10 with a window of 3, words by 2 after epoch 5 with a window of 5.

    Args:
        factor: multiplier of the learning rate.
        window: number of earlier validations that a loss is compared with.
        constant: first validations, after which the rate is never reduced.

    Raises:
        ValueError: the factor is outside (0, 1), the window below 1, or `constant` negative.
    """

    def __init__(self, factor: float = 0.1, window: int = 3, constant: int = 10) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor={factor}: expected a number in (0, 1)")
        if window < 1 or constant < 0:
            raise ValueError(f"window={window} and constant={constant} must be at least 1 and 0")
        self.factor, self.window, self.constant = factor, window, constant
        self.current, self.validations = 1.0, 0
        self.losses: list[float] = []  # the latest ones

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.current

    def observe(self, loss: float) -> None:
        self.validations += 1
        if self.validations > self.constant and self.losses and loss > max(self.losses):
            self.current *= self.factor
        self.losses = [*self.losses, loss][-self.window :]

    def state_dict(self) -> dict[str, object]:
        return {"current": self.current, "validations": self.validations, "losses": list(self.losses)}
