"""Properties that every kind of part must have, and the report of a missing one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor, nn

from matinee.contracts import lacking

NUM_USERS, NUM_ITEMS = 7, 20  # sizes of the networks under test
ROUNDING = 1e-10  # largest rounding error: values are compared in float64
FLAT = 1e-12  # a gradient below this is a rounding error of 0

P = ParamSpec("P")
Check = Callable[Concatenate[Any, P], None]


@contextmanager
def reproducible() -> Iterator[None]:
    """Run a check with fixed random numbers, and leave torch's global generator unchanged."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        yield


def require(holds: bool | Tensor, sentence: str) -> None:
    """Raise an ``AssertionError`` with the sentence unless the property holds."""
    if not holds:
        raise AssertionError(sentence)


def during(task: str) -> Callable[[Check[P]], Check[P]]:
    """Make a check of a part report the part's own exceptions, with the task it failed at."""

    def decorate(check: Check[P]) -> Check[P]:
        @functools.wraps(check)
        def checked(part: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                check(part, *args, **kwargs)
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(
                    f"{name_of(part)} fails {task}: {type(error).__name__}: {error}"
                ) from error

        return checked

    return decorate


def name_of(part: Any) -> str:
    """Return the class of a part, or of the encoder in it."""
    return type(getattr(part, "encoder", part)).__name__


def close(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding errors of float64."""
    return bool(torch.allclose(found.double(), expected.double(), rtol=ROUNDING, atol=ROUNDING))


def jitter(part: nn.Module) -> None:
    """Move all parameters away from special initial values such as 0."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def check_complete(part: Any, contract: type) -> None:
    """Check that a part has the methods and attributes of a contract."""
    missing = lacking(part, contract)
    require(
        not missing,
        f"{name_of(part)} has no {', '.join(missing)}; see matinee.contracts.{contract.__name__}.",
    )


@during("when it is called twice")
def check_repeatable(
    part: Any, answer: Callable[[], Tensor], other_answer: Callable[[], Tensor]
) -> None:
    """Check that a part in evaluation mode gives the same answer after another one."""
    part.eval()
    with torch.no_grad():
        before = answer()
        other_answer()
        require(
            torch.equal(answer(), before),
            f"{name_of(part)} in evaluation mode gives another answer when asked again; look for dropout "
            "that is always on, other random numbers, or state that is kept between calls.",
        )


@during("in the backward pass")
def check_gradients(network: Any, scores: Tensor) -> None:
    """Check that each parameter gets a gradient from a random weighting of the scores."""
    network.zero_grad()
    (scores * torch.randn_like(scores)).sum().backward()
    for name, parameter in network.named_parameters():
        gradient = torch.zeros(1) if parameter.grad is None else parameter.grad
        require(
            gradient.isfinite().all(),
            f"{name_of(network)}: the gradient of {name} is not finite; look for a division by 0 or "
            "for the square root or logarithm of 0.",
        )
        require(
            gradient.abs().max() > FLAT,
            f"{name_of(network)}: the parameter {name} has no gradient; look for a detached tensor, an "
            "unused parameter or a saturated activation.",
        )


@during("for unknown users and items")
def check_tables(network: Any, answer: Callable[[], Tensor]) -> None:
    """Check the embedding tables; an answer for id 0 must train row 0 of each table it depends on."""
    network.eval().zero_grad()
    before = answer()
    (before * torch.randn_like(before)).sum().backward()
    for name, table in network.tables().items():
        rows = {"users": NUM_USERS + 1, "items": NUM_ITEMS + 1}.get(name)
        require(
            len(table) == rows,
            f"{name_of(network)}: tables() has {len(table)} rows of {name!r}; it may hold users, "
            f"(num_users + 1, dim), and items, (num_items + 1, dim).",
        )
        with torch.no_grad():
            row = table[0].clone()
            table[0] += torch.randn_like(row)
            depends = not close(answer(), before)
            table[0] = row
        require(
            not depends or (table.grad is not None and table.grad.to_dense()[0].abs().max() > FLAT),
            f"{name_of(network)}: row 0 of the table of {name}, the unknown id, is not trained; look for "
            "padding_idx, a mask or a detached tensor.",
        )


@during("to load the state dict of another instance")
def check_state_dict(part: Any, other: Any, answer: Callable[[Any], Tensor]) -> None:
    """Check that another instance gives the same answer after loading the state dict."""
    state = part.state_dict()
    require(
        all(isinstance(value, Tensor) for value in state.values()),
        f"{name_of(part)}: the state dict must hold tensors only, because checkpoints do.",
    )
    other.load_state_dict(state)
    with torch.no_grad():
        expected, found = answer(part.eval()), answer(other.eval())
    require(
        torch.equal(found, expected),
        f"{name_of(part)} is not restored by its state dict: another instance with the same state gives "
        "another answer; register everything that is learned as a parameter or a buffer.",
    )
