"""Random order of rows, and seeds.

The rank of a row depends on its index and a seed only. The rows of lowest rank are a
random sample, and blocks of X agree on which rows that are (bottom-k sampling: Cohen and
Kaplan, 2007, Summarizing data using bottom-k sketches).
"""

import copy
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skhdkde._utils.typing import IntArray

# From the mixer of Steele, Lea and Flood (2014, Fast splittable pseudorandom number
# generators), as are the shifts.
MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
STEP = np.uint64(0x9E3779B97F4A7C15)


def sampling_ranks(index: IntArray, seed: int) -> IntArray:
    """Return random ranks, uint64, of the rows ``index``; no two indices share one."""
    start = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)
    return mix_bits((np.asarray(index).astype(np.uint64) + start) * STEP)


def lowest(ranks: IntArray, k: int) -> IntArray:
    """Return the ``k`` rows of lowest rank, in ascending order of row."""
    if len(ranks) <= k:
        return np.arange(len(ranks))
    return np.sort(np.argpartition(ranks, k - 1)[:k])


def seed_from(random_state: Any) -> int:
    """Return a seed from a random state of any kind that scikit-learn takes."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def seed_beside(random_state: Any) -> int:
    """Return the next seed of a random state, which stays as it is."""
    if not isinstance(random_state, Integral):
        random_state = copy.deepcopy(check_random_state(random_state))
    return seed_from(random_state)


def mix_bits(bits: IntArray) -> IntArray:
    """Return numbers in which each bit of ``bits``, uint64, changes half of all bits."""
    bits = bits ^ (bits >> np.uint64(30))
    bits *= MIX[0]
    bits ^= bits >> np.uint64(27)
    bits *= MIX[1]
    bits ^= bits >> np.uint64(31)
    return bits
