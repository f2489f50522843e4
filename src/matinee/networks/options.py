"""Checks of a network's options; the messages name the option as the constructor does."""


def check_sizes(least: int = 1, **sizes: int) -> None:
    """Raise a ``ValueError`` for the first size below ``least``.

    >>> check_sizes(num_layers=0)
    Traceback (most recent call last):
    ValueError: num_layers is 0; give a whole number of at least 1.
    """
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} is {size}; give a whole number of at least {least}.")


def check_shares(**shares: float) -> None:
    """Raise a ``ValueError`` for the first share outside [0, 1).

    >>> check_shares(dropout=2)
    Traceback (most recent call last):
    ValueError: dropout is 2; give a share in [0, 1).
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; give a share in [0, 1).")
