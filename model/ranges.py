"""What an argument of several architectures may be."""

from __future__ import annotations


def dropout_problem(dropout: float) -> str | None:
    """Why this cannot be a dropout's share; None where it can.

    >>> dropout_problem(0.2), dropout_problem(2.0)
    (None, 'dropout is 2.0, expected 0 to 1')
    """
    return None if 0 <= dropout <= 1 else f"dropout is {dropout}, expected 0 to 1"
