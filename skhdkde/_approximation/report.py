"""What was used for each query, and how wrong it may be."""

from __future__ import annotations

import numpy as np

from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

# What was used for a query, by number; and columns of what is reported for each.
ALGORITHMS = ("exact", "neighbors", "sampling")
EXACT, NEIGHBORS, SAMPLING = range(3)
ALGORITHM, ERROR, N_EVALUATIONS = range(3)
# What an infinite error means, and what to do about errors, for each algorithm.
UNKNOWN = {
    "neighbors": "their search failed, or found nothing in reach of the kernel, so that "
    "the log density may be anything",
    "sampling": "nothing of their sample is in reach of the kernel, so that the log "
    "density may be anything",
    "auto": "",
}
ADVICE = {
    "neighbors": "A fit with a larger n_neighbors, neighbors_index='exact' or "
    "algorithm='auto' sums over more points for them.",
    "sampling": "A fit with algorithm='auto' sums over more points for them.",
    "auto": "Their sums are already over all points: the error is that of rounding.",
}


class Report:
    """How the sum was approximated for each query, and how large the error may be.

    Attributes
    ----------
    algorithm : ndarray of str of shape (n_queries,)
        How the sum was computed: "neighbors", "sampling" or "exact".
    error : ndarray of shape (n_queries,)
        Stated error of the log density relative to the sum over all points, in nats. For
        about 95 % of queries drawn like the training points the true error is smaller
        than this; for about 95 % of other queries it is smaller than twice this. For
        "exact" it is the error of rounding. Infinite where it is not known: the points
        that were looked at are out of reach of the kernel, or a search has failed.
    n_evaluations : ndarray of int of shape (n_queries,)
        Number of kernel evaluations, of all attempts together, without those of a search.
    tol : float
        Accepted error, in nats.
    """

    def __init__(self, used: FloatArray, tol: float):
        self.algorithm = np.array(ALGORITHMS)[used[:, ALGORITHM].astype(int)]
        self.error = used[:, ERROR].copy()
        self.n_evaluations = used[:, N_EVALUATIONS].astype(int)
        self.tol = tol

    @property
    def over(self) -> float:
        """Share of the queries whose stated error is above ``tol``."""
        return self._n_over / len(self.error)

    @property
    def _n_over(self):
        return np.count_nonzero(~(self.error <= self.tol))

    def warn(self, algorithm: str) -> None:
        """Warn if there are such queries, and say what to do about it."""
        if not self._n_over:
            return
        n_inf = np.count_nonzero(np.isinf(self.error))
        finite = self.error[np.isfinite(self.error)].max(initial=0.0)
        parts = [
            f"{self._n_over} of {len(self.error)} queries ({self.over:.2g} of all) have "
            f"a stated error above tol={self.tol!r} nats"
        ]
        if finite > self.tol:
            parts.append(f", up to {finite:.2g}")
        if n_inf:
            parts.append(f"{'; ' if finite > self.tol else ': '}of {n_inf} ")
            parts.append(f"it is infinite: {UNKNOWN[algorithm]}")
        warn_user("".join(parts) + f". {ADVICE[algorithm]}")

    def __repr__(self):
        counts = ", ".join(
            f"{name} {np.count_nonzero(self.algorithm == name)}" for name in ALGORITHMS
        )
        return (
            f"<Report: {len(self.error)} queries: {counts}; stated errors: median "
            f"{np.median(self.error):.2g}, largest {self.error.max():.2g} nats, "
            f"{self._n_over} above {self.tol:g}>"
        )
