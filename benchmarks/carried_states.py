"""What one more rating costs a service: a step from the state that is kept, and a whole pass.

    python benchmarks/carried_states.py [--lengths 10 100 1000] [--encoders gru lstm dnc]

Asks a listening network for the ratings of all 1,700 items after a history that grows by one rating from
question to question, and a network of next items in the same way, with states kept and without. The networks
have random weights, as their speed does not depend on them. Times are CPU milliseconds of one thread, medians
over questions in which both sides alternate. They include what does not depend on the history, such as
scoring the items.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from matinee.contracts import RatedHistories, ScoreScale
from matinee.networks.carried_states import CarriedStates
from matinee.networks.encoders.dnc import DNC
from matinee.networks.encoders.recurrent import GRU, LSTM
from matinee.networks.listening import ListeningNetwork
from matinee.networks.sequence_recommender import SequenceRecommender

ITEMS, DIM = 1700, 64
ENCODERS = {"gru": GRU, "lstm": LSTM, "dnc": DNC}
Ask = Callable[[int], Tensor]  # the scores of all items after a history of a length


def next_items(network: SequenceRecommender, most: int) -> Ask:
    """Ask for the next items."""
    history = torch.randint(1, ITEMS + 1, (1, most + 1))
    history[:, 0] = 0

    def ask(length: int) -> Tensor:
        begun = history[:, : length + 1]
        return network.score_next(begun, torch.tensor([length + 1]), torch.zeros(1).long())

    return ask


def ratings(network: ListeningNetwork, most: int) -> Ask:
    """Ask for the ratings of all items."""
    item_ids, stars = torch.randint(1, ITEMS + 1, (1, most)), torch.randint(1, 6, (1, most)).float()
    offsets, targets = torch.randn(1, most, 2), torch.arange(ITEMS + 1)
    states = torch.rand(len(targets), 4)

    def ask(length: int) -> Tensor:
        return network.read(
            RatedHistories(
                user_ids=torch.zeros(1).long(),
                item_ids=item_ids[:, :length],
                ratings=stars[:, :length],
                offsets=offsets[:, :length],
                times=torch.zeros(1, length).long(),
                rows=torch.zeros_like(targets),
                known=torch.full_like(targets, length),
                target_ids=targets,
                target_states=states,
                target_ratings=torch.zeros(len(targets)),
            )
        )

    return ask


@torch.no_grad()
def measure(
    network: SequenceRecommender | ListeningNetwork, ask: Ask, length: int, rounds: int
) -> list[float]:
    """Return milliseconds of a question with states that are kept, and without."""
    carried = CarriedStates(network.encoder)
    times: tuple[list[float], list[float]] = ([], [])
    network.carried = carried
    ask(length)
    for more in range(1, rounds + 1):
        answers = []
        for side, network.carried in enumerate((carried, None)):
            began = time.process_time()
            answers.append(ask(length + more))
            times[side].append(time.process_time() - began)
        torch.testing.assert_close(*answers)
    return [1e3 * statistics.median(side) for side in times]


def main() -> None:
    """Print one row for each network and length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    most = max(options.lengths) + options.rounds
    print("| network | encoder | history | state kept, ms | whole pass, ms | ratio |")
    print("| :-- | :-- | --: | --: | --: | --: |")
    for name in options.encoders:
        encoder: Callable[..., nn.Module] = ENCODERS[name]
        ranking = SequenceRecommender(ITEMS, encoder, DIM).eval()
        scale = ScoreScale(3.5, 1.1, 0.0, 1.0)
        listening = ListeningNetwork(1, ITEMS, scale, encoder, DIM).eval()
        for kind, network, ask in (
            ("next items", ranking, next_items(ranking, most)),
            ("listening", listening, ratings(listening, most)),
        ):
            for length in options.lengths:
                kept, whole = measure(network, ask, length, options.rounds)
                print(
                    f"| {kind} | {name} | {length:,} | {kept:.2f} | {whole:.2f} | {whole / kept:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
