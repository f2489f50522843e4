"""Embedding tables give the rows and the gradients of PyTorch's embedding."""

import pytest
import torch
from torch.nn import functional as F

from matinee.networks.embedding import EmbeddingTable


@pytest.mark.parametrize("dim", [1, 33])
@pytest.mark.parametrize("shape", [(4096,), (7, 50), (0,), ()], ids=str)
def test_rows_and_gradients_are_those_of_pytorch(shape: tuple[int, ...], dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    table = EmbeddingTable(99, dim, init_std=0.1)
    ids = (100 * torch.rand(shape, generator=generator) ** 3).long()
    rows, expected = table(ids), F.embedding(ids, table.weight)
    assert torch.equal(rows, expected) and rows.shape == (*shape, dim)
    upstream = torch.randn(rows.shape, generator=generator)
    ours, theirs = (torch.autograd.grad(one, table.weight, upstream) for one in (rows, expected))
    assert torch.equal(ours[0], theirs[0])


def test_a_sparse_table_has_sparse_gradients() -> None:
    table = EmbeddingTable(9, 4, init_std=0.1, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    assert table.weight.grad is not None and table.weight.grad.is_sparse


def test_a_row_for_padding_is_not_trained() -> None:
    table = EmbeddingTable(9, 4, init_std=0.1)
    table.padding_idx = 0
    table(torch.tensor([0, 1])).sum().backward()
    assert table.weight.grad is not None and table.weight.grad.sum(1).tolist() == [0, 4, *[0] * 8]


def test_ids_outside_the_table_are_rejected() -> None:
    table = EmbeddingTable(9, 4, init_std=0.1)
    for wrong in (10, -1):
        with pytest.raises(IndexError):
            table(torch.tensor([1, wrong]))
