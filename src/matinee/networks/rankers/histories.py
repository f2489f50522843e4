"""What rankers read: the items of train by user, and the items of a history."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn import functional as F


def user_item_matrix(
    user_ids: Tensor, item_ids: Tensor, num_users: int, num_items: int
) -> scipy.sparse.csr_array:
    """Mark which user met which item in train; repeated rows count once.

    Args:
        user_ids: Users, integers in 0..num_users, (rows,).
        item_ids: Items, integers in 1..num_items, (rows,).
        num_users: Largest user id.
        num_items: Largest item id.

    Returns:
        Ones, float32, (num_users + 1, num_items + 1).
    """
    ones = np.ones(len(item_ids), dtype=np.float32)
    matrix = scipy.sparse.coo_array(
        (ones, (user_ids.cpu().numpy(), item_ids.cpu().numpy())),
        shape=(num_users + 1, num_items + 1),
    ).tocsr()
    matrix.data[:] = 1
    return matrix


def last_occurrences(histories: Tensor) -> Tensor:
    """Mark the last position of each item of a history, (batch, length) to bool of the same shape.

    >>> last_occurrences(torch.tensor([[0, 3, 5, 3, 0]]))
    tensor([[False, False,  True,  True, False]])
    """
    ordered, places = histories.sort(dim=1, stable=True)
    last = ordered != F.pad(ordered, (0, 1), value=-1)[:, 1:]
    return torch.zeros_like(last).scatter_(1, places, last & (ordered > 0))


def ages(histories: Tensor, lengths: Tensor) -> Tensor:
    """Count how many steps before the target each position lies, 1 for the newest; (batch, length).

    Positions of the padding have ages of at most 0.

    >>> ages(torch.tensor([[0, 3, 5, 0]]), torch.tensor([3]))
    tensor([[3, 2, 1, 0]])
    """
    return lengths.long().unsqueeze(1) - torch.arange(histories.shape[1], device=histories.device)


def sum_of_rows(matrix: Tensor, histories: Tensor, weights: Tensor) -> Tensor:
    """Add up the weighted rows of a dense matrix for the items of each history.

    Args:
        matrix: One row per item, (num_items + 1, columns).
        histories: Item ids, (batch, length).
        weights: Their weights, (batch, length).

    Returns:
        The sums, (batch, columns).
    """
    weights = weights.to(matrix.dtype)
    if torch.compiler.is_exporting():  # bags specialize the length of a program
        zeros = matrix.new_zeros(histories.shape[0], matrix.shape[0])
        return zeros.scatter_add(1, histories.long(), weights) @ matrix
    return F.embedding_bag(histories.long(), matrix, mode="sum", per_sample_weights=weights)
