import copy

import torch
from torch import nn

from matinee.experiment.run_folder import read_result
from matinee.training.optimizers import RowAdam


def trained(optimizer_class, sparse: bool, steps: int = 5) -> torch.Tensor:
    torch.manual_seed(0)
    table = nn.Embedding(20, 3, sparse=sparse)
    optimizer = optimizer_class(table.parameters(), lr=0.1)
    for step in range(steps):
        ids = torch.tensor([step, step + 1, step, 7])
        optimizer.zero_grad()
        (table(ids) * torch.arange(1.0, 4)).square().sum().backward()
        optimizer.step()
    return table.weight.detach()


def test_sparse_rows_follow_sparse_adam() -> None:
    torch.testing.assert_close(trained(RowAdam, True), trained(torch.optim.SparseAdam, True))


def test_dense_gradients_follow_adam() -> None:
    torch.testing.assert_close(trained(RowAdam, False), trained(torch.optim.Adam, False))


def test_unseen_rows_are_not_touched() -> None:
    torch.manual_seed(0)
    start = nn.Embedding(20, 3).weight.detach()
    weight = trained(RowAdam, True)
    assert torch.equal(weight[8:], start[8:])
    assert not torch.equal(weight[:8], start[:8])


def test_sparse_and_dense_parameters_together() -> None:
    torch.manual_seed(0)
    table, linear = nn.Embedding(20, 3, sparse=True), nn.Linear(3, 1)
    optimizer = RowAdam([*table.parameters(), *linear.parameters()], lr=0.05)
    losses = []
    for _ in range(100):
        loss = (
            (linear(table(torch.tensor([1, 2]))).squeeze(-1) - torch.tensor([1.0, -1.0]))
            .square()
            .sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 < losses[0]


def test_state_survives_a_checkpoint() -> None:
    def make() -> tuple[nn.Embedding, RowAdam]:
        torch.manual_seed(0)
        table = nn.Embedding(5, 2, sparse=True)
        return table, RowAdam(table.parameters(), lr=0.1)

    def step(table: nn.Embedding, optimizer: RowAdam) -> None:
        optimizer.zero_grad()
        table(torch.tensor([1, 3])).square().sum().backward()
        optimizer.step()

    whole, optimizer = make()
    step(whole, optimizer)
    resumed, other = make()
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for table, current in ((whole, optimizer), (resumed, other)):
        step(table, current)
    assert torch.equal(whole.weight, resumed.weight)


def test_models_train_with_sparse_gradients_as_well_as_with_dense_ones(run) -> None:
    for model in ("mf", "mf_bias", "ncf"):
        dense = read_result(
            run(f"model={model}", "split=random", "trainer.max_epochs=8", folder=f"{model}-dense")
        )
        sparse = read_result(
            run(
                f"model={model}", "split=random", "trainer.max_epochs=8", "model.sparse=true",
                "optimizer=row_adam", folder=f"{model}-sparse",
            )
        )  # fmt: skip
        assert abs(dense["metrics"]["val/rmse"] - sparse["metrics"]["val/rmse"]) < 0.1
