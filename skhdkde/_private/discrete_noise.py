"""Exact draws of noise on whole numbers, from the system's source of randomness.

The algorithms are those of Canonne, Kamath and Steinke (2020, The discrete Gaussian for
differential privacy), for many draws at once. They compare uniform whole numbers only:
no draw depends on how a floating-point number is rounded, so nothing of the sum below
can be read from the last bits. How long a draw takes is not hidden.
"""

import os

import numpy as np

from skhdkde._utils.typing import IntArray

# Scales must be below: products of them are compared as uint64.
LARGEST_LAPLACE, LARGEST_GAUSSIAN = 2**52, 2**27
# Draws of the Gaussian beyond, 16 scales away or more, of probability below 1e-50, are
# drawn again; Budget.spare_delta leaves far more room.
FARTHEST = 2**31


def random_bytes(n: int) -> bytes:
    """Return random bytes of the system; the only source of noise, without a seed."""
    return os.urandom(n)


def uniform_below(bounds: IntArray) -> IntArray:
    """Return a uniform whole number from 0 to below each bound."""
    masks = bounds.astype(np.uint64) - np.uint64(1)
    for shift in (1, 2, 4, 8, 16, 32):
        masks |= masks >> np.uint64(shift)
    found = np.zeros(len(bounds), dtype=np.uint64)
    todo = np.arange(len(bounds))
    while len(todo):
        words = np.frombuffer(random_bytes(8 * len(todo)), dtype=np.uint64)
        found[todo] = words & masks[todo]
        todo = todo[found[todo] >= bounds[todo].astype(np.uint64)]
    return found.astype(np.int64)


def happens(numerators: IntArray, denominators: IntArray) -> np.ndarray:
    """Return whether events of probability ``exp(-numerator / denominator)`` happen.

    Numerators are not negative.
    """
    whole, rest = np.divmod(numerators, denominators)
    happened = np.ones(len(whole), dtype=bool)
    while len(todo := np.flatnonzero(happened & (whole > 0))):
        ones = np.ones(len(todo), dtype=np.int64)
        happened[todo] = _happens_up_to_one(ones, ones)
        whole[todo] -= 1
    todo = np.flatnonzero(happened)
    happened[todo] = _happens_up_to_one(rest[todo], denominators[todo])
    return happened


def _happens_up_to_one(numerators, denominators):
    """Return the same for ratios up to 1: von Neumann's alternating series."""
    length = np.ones(len(numerators), dtype=np.int64)
    todo = np.arange(len(numerators))
    while len(todo):
        drawn = uniform_below(denominators[todo] * length[todo])
        todo = todo[drawn < numerators[todo]]
        length[todo] += 1
    return length % 2 == 1


def discrete_laplace(scale: int, size: int) -> IntArray:
    """Return draws with ``P(z)`` in proportion to ``exp(-|z| / scale)``."""
    if not 1 <= scale <= LARGEST_LAPLACE:
        raise ValueError(f"scale must be from 1 to {LARGEST_LAPLACE}, got {scale!r}.")
    found = np.empty(0, dtype=np.int64)
    while len(found) < size:
        n = size - len(found)
        scales = np.full(n + n // 2 + 16, scale, dtype=np.int64)
        within = uniform_below(scales)
        within = within[happens(within, scales)]
        magnitude = within + scale * _geometric(len(within))
        negative = uniform_below(np.full(len(within), 2)) == 1
        kept = ~(negative & (magnitude == 0))  # else zero would come twice as often
        found = np.append(found, np.where(negative, -magnitude, magnitude)[kept])
    return found[:size]


def _geometric(size):
    """Return how often events of probability ``exp(-1)`` happen in a row."""
    found = np.zeros(size, dtype=np.int64)
    todo = np.arange(size)
    while len(todo):
        ones = np.ones(len(todo), dtype=np.int64)
        todo = todo[_happens_up_to_one(ones, ones)]
        found[todo] += 1
    return found


def discrete_gaussian(scale: int, size: int) -> IntArray:
    """Return draws with ``P(z)`` in proportion to ``exp(-z^2 / (2 scale^2))``."""
    if not 1 <= scale <= LARGEST_GAUSSIAN:
        raise ValueError(f"scale must be from 1 to {LARGEST_GAUSSIAN}, got {scale!r}.")
    found = np.empty(0, dtype=np.int64)
    while len(found) < size:
        n = size - len(found)
        drawn = discrete_laplace(scale, n + n // 2 + 16)
        drawn = drawn[np.abs(drawn) < FARTHEST]
        excess = (np.abs(drawn) - scale) ** 2
        kept = happens(excess, np.full(len(drawn), 2 * scale**2))
        found = np.append(found, drawn[kept])
    return found[:size]
