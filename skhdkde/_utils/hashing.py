"""Hashes of rows, by which duplicates are found among points that are not in one place.

Equal rows have equal hashes, wherever they are stored; others are as good as random.
"""

from typing import Any

import numpy as np

from skhdkde._utils.arrays import DeviceArray, namespace, row_batches, to_host
from skhdkde._utils.random import mix_bits
from skhdkde._utils.typing import FloatArray, IntArray

# Elements of a block that stays in the cache between passes over it.
SMALL_BLOCK_SIZE = 2**16
# Shifts that bring the leading bits of a number to its end: few bits of round numbers
# are set, and they are the leading ones.
SHIFTS = (32, 16)


def row_hashes(X: FloatArray | DeviceArray) -> IntArray:
    """Return a hash of each row, the same for arrays and for tensors on a GPU.

    The bits of each number are folded, multiplied by a random odd number for its column,
    and added, all modulo 2^64, where no sum depends on its order. The sum is mixed.
    """
    rng = np.random.default_rng(0)
    odd: Any = rng.integers(2**63, size=X.shape[1], dtype=np.uint64)
    odd = odd * np.uint64(2) + np.uint64(1)
    if isinstance(X, DeviceArray):
        sums = [_sums_on_gpu(block, odd) for block, _ in X.blocks()]
        return mix_bits(np.concatenate(sums))
    hashes = np.empty(len(X), dtype=np.uint64)
    for rows in row_batches(len(X), X.shape[1], SMALL_BLOCK_SIZE):
        # a zero has two signs, of which adding zero leaves one
        bits = np.add(X[rows], 0.0, dtype=np.float64, order="C").view(np.uint64)
        for shift in SHIFTS:
            bits ^= bits >> np.uint64(shift)
        hashes[rows] = np.einsum("ij,j->i", bits, odd)
    return mix_bits(hashes)


def _sums_on_gpu(numbers: Any, odd: IntArray) -> IntArray:
    """Return the sums of :func:`row_hashes` for a tensor of float64, on the host."""
    torch = namespace(numbers)
    bits = (numbers + 0.0).contiguous().view(torch.int64)  # torch has no uint64 sums
    for shift in SHIFTS:  # signs must not be shifted in
        bits = bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))
    factors = torch.as_tensor(odd.view(np.int64), device=numbers.device)
    return to_host((bits * factors).sum(1)).view(np.uint64)


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
