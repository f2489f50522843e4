"""Time of a step of the user-based GRU against a loop over torch's GRU cell of the same width.

    OMP_NUM_THREADS=1 python benchmarks/user_gru_step.py [--length 20] [--rounds 15] [--threads 1]

Forward and backward over whole histories; the two alternate, and a ratio is the median of the
rounds' own ratios.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from matinee.networks.encoders.user_gru import UserGRU

NUM_USERS = 1_000


class CellLoop(nn.Module):
    """The plain GRU, one call of the cell a step."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(dim, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, states = None, []
        for items in inputs.unbind(1):
            hidden = self.cell(items, hidden)
            states.append(hidden)
        return torch.stack(states, 1)


def seconds(encoder: nn.Module, *inputs: Tensor) -> float:
    start = time.perf_counter()
    encoder(*inputs).square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{'dim':>5}{'batch':>7}{'cell ms/step':>14}{'user_gru ms/step':>18}{'ratio':>8}")
    for dim, batch in [(64, 64), (128, 64), (128, 512), (512, 64), (1000, 64)]:
        plain, with_users = CellLoop(dim), UserGRU(dim, NUM_USERS)
        inputs = torch.randn(batch, options.length, dim, requires_grad=True)
        user_ids = torch.randint(NUM_USERS + 1, (batch,))
        rounds = [
            (seconds(plain, inputs), seconds(with_users, inputs, user_ids))
            for _ in range(options.rounds + 1)
        ][1:]  # the first warms up
        cell = 1e3 * statistics.median(pair[0] for pair in rounds) / options.length
        ours = 1e3 * statistics.median(pair[1] for pair in rounds) / options.length
        ratio = statistics.median(pair[1] / pair[0] for pair in rounds)
        print(f"{dim:5d}{batch:7d}{cell:14.3f}{ours:18.3f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
