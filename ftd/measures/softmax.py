"""Weights of sources by what a measure says of them."""

import math
from collections.abc import Sequence

EQUAL = 1e-7
"""Of the numbers, float32: a smaller spread is rounding."""


def softmax(numbers: Sequence[float], temperature: float) -> list[float]:
    """A softmax of −z/temperature, z the numbers (smaller is nearer) in standard deviations.

    A source without a number has no weight, nor has one whose number is infinite, and both are
    left out of the standard deviation. Numbers whose spread is rounding say nothing: those that
    have one share.

    Args:
        numbers: one or more; NaN: none.
        temperature: at least 0. 0: the nearest source alone, those that tie share; ∞: all sources
            are equal, as they are where none has a number.

    Returns:
        The weights in [0, 1], in the order of the numbers; they sum to 1.
    """
    numbers = [float(number) for number in numbers]
    known = [number for number in numbers if math.isfinite(number)]
    if temperature == math.inf or not known:
        return [1 / len(numbers)] * len(numbers)
    mean, least = math.fsum(known) / len(known), min(known)
    spread = math.sqrt(math.fsum((number - mean) ** 2 for number in known) / len(known))
    if spread <= EQUAL * max(map(abs, known)):
        shares = [float(math.isfinite(number)) for number in numbers]
    elif temperature == 0:
        shares = [float(number == least) for number in numbers]
    else:
        shares = [
            math.exp((least - number) / spread / temperature) if math.isfinite(number) else 0.0
            for number in numbers
        ]
    total = math.fsum(shares)
    return [share / total for share in shares]
