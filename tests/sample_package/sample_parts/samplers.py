"""A sampler of negative items."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class SmoothedSampler(nn.Module):
    r"""Draw negatives with :math:`q(i) \propto c_i + a`: mostly popular items, sometimes any item.

    Args:
        num_negatives: Number of negatives per target, at least 1.
        smoothing: Number :math:`a` that is added to each count, at least 0.
    """

    exclude_target = True  # never draw the target
    is_uniform = False
    probabilities: Tensor

    def __init__(self, num_negatives: int = 1, smoothing: float = 1.0) -> None:
        super().__init__()
        self.num_negatives = num_negatives
        self.smoothing = smoothing
        self.register_buffer("probabilities", torch.zeros(0), persistent=False)

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Compute the probabilities from the counts of train, (num_items + 1,)."""
        weights = torch.from_numpy(item_counts).double() + self.smoothing
        weights[0] = 0  # item 0 is the padding
        self.probabilities = (weights / weights.sum()).float()

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives: targets (n,) to int64 (n, num_negatives)."""
        chances = self.probabilities.repeat(len(target_ids), 1)  # (n, num_items + 1)
        chances.scatter_(1, target_ids.long().unsqueeze(1), 0)
        return torch.multinomial(chances, self.num_negatives, replacement=True)

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return the log-probability of each item in a draw that does not exclude the target."""
        return self.probabilities.log()[item_ids]
