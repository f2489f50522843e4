"""A small table of ratings with structure to learn."""

from pathlib import Path

import numpy as np


def make_ratings(path: Path, noise: float = 0.3, num_users: int = 60, num_items: int = 40) -> Path:
    """Write stars of users with tastes: rank-2 structure plus biases, half stars on 1..5."""
    rng = np.random.default_rng(0)
    tastes, traits = rng.normal(size=(num_users, 2)), rng.normal(size=(num_items, 2))
    expected = 3 + 0.8 * tastes @ traits.T / np.sqrt(2) + rng.normal(0, 0.4, (num_users, 1))
    chosen = np.argwhere(rng.random((num_users, num_items)) < 0.6)
    chosen = chosen[rng.permutation(len(chosen))]
    stars = expected[chosen[:, 0], chosen[:, 1]] + rng.normal(0, noise, len(chosen))
    stars = np.clip(np.round(2 * stars) / 2, 1, 5)
    lines = ["who,what,stars,moment"]
    lines += [
        f"u{u},{100 + i},{s},{t}" for t, ((u, i), s) in enumerate(zip(chosen, stars, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
