"""The reduction behind a diagnosis."""

import numpy as np

from skhdkde._diagnosis.local_law import N_NEIGHBORS, local_laws
from skhdkde._diagnosis.spread import FarTerms, clt_spread, redrawn_spread
from skhdkde._pairwise.log_sums import relative_values
from skhdkde._pairwise.reductions import Shares

# The estimate of the variance has itself a variance from this tail index on.
CLT_FORMULA_FROM = 4.0
# Unless one point has more than this share, as a copy of the query has.
LARGEST_CLT_SHARE = 0.1
# Rounding of the sums, in units of that of their exponents.
FAR_NOISE = 8.0


class Diagnosing(Shares):
    """Reduction whose result is a row of ``COLUMNS`` for each query.

    Parameters
    ----------
    n_visible : int
        Number of training points that each query sees.
    """

    COLUMNS = (
        "log_sum",
        "standard_error",
        "tail_index",
        "h_g",
        "h_clt",
        "effective_sample_size",
        "max_weight",
    )
    width = len(COLUMNS)

    def __init__(self, spec, n_visible):
        n_neighbors = max(min(N_NEIGHBORS + 1, n_visible), 1)
        super().__init__(spec, n_neighbors)
        self.n_visible = n_visible
        self.rank = min(N_NEIGHBORS, n_visible // 2)
        self.eps = np.finfo(spec.result_dtype).eps

    @classmethod
    def to_data_units(cls, columns, scale):
        """Divide the thresholds by the scale of the points, in place."""
        for name in ("h_g", "h_clt"):
            columns[:, cls.COLUMNS.index(name)] /= scale

    def finish(self, state):
        lowest, sums, nearest, weights = state
        nearest = np.maximum(nearest, 0.0)
        first, second, largest = sums[:, 0], sums[:, 2], sums[:, -1]
        some = first > 0.0
        log_peak = self.kernel.log_peak(np.where(some, lowest, 0.0), self.bandwidths)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_sum = np.log(first) + log_peak[:, 0]
            effective = np.where(some, first**2 / second, 0.0)
            share = largest / first
        columns = np.empty((len(first), len(self.COLUMNS)))
        columns[:, 0], columns[:, 5] = log_sum, effective
        columns[:, 6] = np.minimum(share, 1.0)
        columns[:, 1:5] = self._regime(log_peak[:, 0], sums, nearest, weights)
        columns[~some, 1] = np.inf
        return columns

    def _regime(self, log_peak, sums, nearest, weights):
        """Standard error, tail index and thresholds."""
        h, columns = self.bandwidths[0], np.empty((len(sums), 4))
        if self.rank == 0:  # a single point is everything, and its law is unknown
            columns[:, 0], columns[:, 2:] = np.nan, np.inf
            columns[:, 1] = np.inf if self.kernel.compact else 0.0
            return columns
        for rows, law in local_laws(nearest, self.n_visible, self.rank):
            h_g, h_clt = self.kernel.thresholds(law, nearest[rows])
            tail = self.kernel.tail_index(h, law)
            share = sums[rows, -1] / np.where(sums[rows, 0] > 0.0, sums[rows, 0], np.inf)
            formula = (tail >= CLT_FORMULA_FROM) & (h >= h_clt)
            formula &= share <= LARGEST_CLT_SHARE
            spread = clt_spread(sums[rows])
            near = np.flatnonzero(~formula & (sums[rows, 0] > 0.0))
            some = rows[near]
            state = log_peak[some], sums[some], nearest[some], weights[some]
            spread[near] = self._redrawn(law.rows(near), *state)
            columns[rows] = np.column_stack([spread, tail, h_g, h_clt])
        return columns

    def _redrawn(self, law, log_peak, sums, nearest, weights):
        nearest, weights = nearest[:, : law.rank + 1], weights[:, : law.rank]
        # relative to the same energy as the sums: that of the nearest point
        values, _ = relative_values(self.kernel, self.bandwidths[0], nearest.copy())
        terms = weights * values[:, :-1]
        far = self._far_terms(log_peak, sums, terms, weights, values[:, -1])
        return redrawn_spread(
            law,
            self.kernel,
            self.bandwidths[0],
            None if self.equal_weights else weights,
            far,
            self.n_visible,
        )

    def _far_terms(self, log_peak, sums, terms, weights, last):
        """What the sums over all points leave for those beyond the near ones."""
        first = sums[:, 0] - terms.sum(axis=1)
        # rounding of the sums; where there is no more, the near terms are all
        noise = FAR_NOISE * self.eps * (4.0 + np.abs(log_peak)) * sums[:, 0]
        first = np.where(first > noise, first, 0.0)
        second = np.minimum(sums[:, 2] - (terms**2).sum(axis=1), last * first)
        cross = np.minimum(sums[:, 1] - (weights * terms).sum(axis=1), first)
        total = sums[:, 3] - weights.sum(axis=1)
        total_sq = sums[:, 4] - (weights**2).sum(axis=1)
        rest = first, second, cross, total, total_sq
        return FarTerms(log_peak, rest, self.n_visible - weights.shape[1])


class PartialDiagnosing(Diagnosing):
    """Reduction whose result is its state: what one part of the points has to say."""

    def __init__(self, spec, n_visible):
        super().__init__(spec, n_visible)
        self.width = 7 + 2 * self.neighbors.k

    def finish(self, state):
        return np.column_stack(state)

    def combine(self, result, other):
        states = (self.unpack(packed, 1.0, 0.0) for packed in (result, other))
        return PartialDiagnosing.finish(self, self.merge(*states))

    def unpack(self, packed, sq_factor, sq_offset):
        """The state, at distances ``sq_factor * sq + sq_offset``."""
        ends = np.cumsum([1, 6, self.neighbors.k])
        lowest, sums, nearest, weights = np.split(packed, ends, axis=1)
        return lowest[:, 0] * sq_factor + sq_offset, sums, nearest * sq_factor + sq_offset, weights

    def unscaled(self, state, sq_factor, sq_offset):
        """Return the state back at distances in one whitening for each query."""
        lowest, sums, nearest, weights = state
        nearest = (nearest - sq_offset[:, None]) / sq_factor[:, None]
        return (lowest - sq_offset) / sq_factor, sums, nearest, weights
