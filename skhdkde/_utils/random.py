"""Numbers that stand for rows: for what a row holds, and for a place in a random order.

Equal rows have equal hashes, wherever they are stored, and others are as good as
random: so copies are found among points that are not in one place. The sampling_ranks of rows
are random too, but depend on the index of a row only, so that the rows of lowest priority
are a random sample that parts of X agree on (bottom-k sampling: Cohen and Kaplan, 2007,
Summarizing data using bottom-k sketches).
"""

import numpy as np
from sklearn.utils import check_random_state

# From the mixer of Steele, Lea and Flood (2014, Fast splittable pseudorandom number
# generators), as are the shifts.
MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
STEP = np.uint64(0x9E3779B97F4A7C15)


def sampling_ranks(index, seed):
    """Priorities, uint64, of the rows ``index``: those of all indices are distinct."""
    rng = np.random.default_rng(seed)
    start = rng.integers(2**63, dtype=np.uint64)
    return _mixed((np.asarray(index).astype(np.uint64) + start) * STEP)


def lowest(sampling_ranks, k):
    """The ``k`` rows of lowest priority, in ascending order of row."""
    if len(sampling_ranks) <= k:
        return np.arange(len(sampling_ranks))
    return np.sort(np.argpartition(sampling_ranks, k - 1)[:k])


def seed_from(random_state):
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _mixed(bits):
    bits = bits ^ (bits >> np.uint64(30))
    bits *= MIX[0]
    bits ^= bits >> np.uint64(27)
    bits *= MIX[1]
    bits ^= bits >> np.uint64(31)
    return bits
