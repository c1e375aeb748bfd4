"""Hashes of rows, by which duplicates are found among points that are not in one place.

Equal rows have equal hashes, wherever they are stored; others are as good as random.
"""

import numpy as np

from skhdkde._utils.arrays import row_batches
from skhdkde._utils.random import mix_bits
from skhdkde._utils.typing import FloatArray, IntArray


def row_hashes(X: FloatArray) -> IntArray:
    """Return a hash of each row.

    The bits of each number are mixed, multiplied by a random odd number for its column,
    and added, all modulo 2^64.
    """
    rng = np.random.default_rng(0)
    odd = rng.integers(2**63, size=X.shape[1], dtype=np.uint64) * np.uint64(2)
    odd += np.uint64(1)
    hashes = np.empty(len(X), dtype=np.uint64)
    for rows in row_batches(*X.shape):
        # a zero has two signs, of which adding zero leaves one
        numbers = np.add(X[rows], 0.0, dtype=np.float64)
        hashes[rows] = mix_bits(numbers.view(np.uint64)) @ odd
    return mix_bits(hashes)


def find_hashes(hashes: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Return which rows have hashes that are ``wanted``, ascending, and which of these.

    Wanted ones are all different.
    """
    if not len(wanted):
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    order = np.argsort(wanted)
    place = order[np.minimum(np.searchsorted(wanted[order], hashes), len(wanted) - 1)]
    rows = np.flatnonzero(wanted[place] == hashes)
    return rows, place[rows]
