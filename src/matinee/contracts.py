"""Contracts: what the parts of an experiment ask of each other."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Headline:
    """The metric by which the models of a task are selected and compared.

    Attributes:
        metric: Name without the stage, such as ``rmse``. ``per_user.npz`` holds the metric of every
            user or window under this name.
        higher_is_better: Whether a higher value is better.
        power: Exponent of the power mean that leads from these values to the metric over all rows,
            ``mean(value ** power) ** (1 / power)``: 2 for RMSE, 1 for an average.
    """

    metric: str
    higher_is_better: bool
    power: int = 1

    @property
    def monitor(self) -> str:
        """Name of the validation metric, such as ``val/rmse``."""
        return f"val/{self.metric}"

    @property
    def mode(self) -> Literal["min", "max"]:
        """The direction, as callbacks write it."""
        return "max" if self.higher_is_better else "min"

    def goodness(self, value: float) -> float:
        """Return the value, negated where lower is better, so that higher is always better."""
        return value if self.higher_is_better else -value
