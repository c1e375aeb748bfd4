"""Numbers that stand for rows: for what a row holds, and for a place in a random order.

Equal rows have equal hashes, wherever they are stored, and others are as good as
random: so copies are found among points that are not in one place. The sampling_ranks of rows
are random too, but depend on the index of a row only, so that the rows of lowest priority
are a random sample that parts of X agree on (bottom-k sampling: Cohen and Kaplan, 2007,
Summarizing data using bottom-k sketches).
"""

import numpy as np

from skhdkde._utils.arrays import row_batches
from skhdkde._utils.random import _mixed


def row_hashes(X):
    """Digests of rows.

    The bits of each number are mixed, multiplied by a random odd number for its column,
    and added, all modulo 2^64.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32 or float64

    Returns
    -------
    hashes : ndarray of uint64 of shape (n_rows,)
    """
    rng = np.random.default_rng(0)
    odd = rng.integers(2**63, size=X.shape[1], dtype=np.uint64) * np.uint64(2)
    odd += np.uint64(1)
    hashes = np.empty(len(X), dtype=np.uint64)
    for rows in row_batches(*X.shape):
        # a zero has two signs, of which adding zero leaves one
        numbers = np.add(X[rows], 0.0, dtype=np.float64)
        hashes[rows] = _mixed(numbers.view(np.uint64)) @ odd
    return _mixed(hashes)


def find_hashes(hashes, wanted):
    """Which rows have hashes that are ``wanted``.

    Parameters
    ----------
    hashes : ndarray of uint64 of shape (n_rows,)
    wanted : ndarray of uint64 of shape (n_wanted,)
        All different.

    Returns
    -------
    rows, place : ndarray of int of shape (n_found,)
        The rows, ascending, and the place of their hashes in ``wanted``.
    """
    if not len(wanted):
        return np.empty((2, 0), dtype=int)
    order = np.argsort(wanted)
    place = order[np.minimum(np.searchsorted(wanted[order], hashes), len(wanted) - 1)]
    rows = np.flatnonzero(wanted[place] == hashes)
    return rows, place[rows]
