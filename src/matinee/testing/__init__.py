"""Checks that a part of your own works as matinee expects.

Call a check from any test of your package. Each takes a few seconds on one core::

    from functools import partial

    from matinee.testing import check_encoder

    def test_my_encoder():
        check_encoder(partial(MyEncoder, hidden_dim=32))

A check takes a factory because it makes the part several times, with different weights and sizes. If
the part lacks a property, the check raises an ``AssertionError`` that says which one and what to look
at. Checks are reproducible and leave the state of torch's global generator unchanged. They need
neither Lightning nor a test framework.
"""

from matinee.testing.losses import check_ranking_loss, check_rating_loss
from matinee.testing.pairs import check_pair_network
from matinee.testing.samplers import check_sampler
from matinee.testing.sequences import check_encoder, check_sequence_network

__all__ = [
    "check_encoder",
    "check_pair_network",
    "check_ranking_loss",
    "check_rating_loss",
    "check_sampler",
    "check_sequence_network",
]
