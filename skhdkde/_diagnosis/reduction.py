"""The reduction behind a diagnosis."""

import numpy as np

from skhdkde._diagnosis.local_law import N_NEIGHBORS, local_laws
from skhdkde._diagnosis.spread import FarTerms, clt_spread, redrawn_spread
from skhdkde._pairwise import ReductionSpec, Shares, SharesState, relative_values
from skhdkde._utils.typing import FloatArray

# The estimate of the variance has itself a variance from this tail index on.
CLT_FORMULA_FROM = 4.0
# Unless one point has more than this share, as a duplicate of the query has.
LARGEST_CLT_SHARE = 0.1
# Rounding of the sums, in units of that of their exponents.
FAR_NOISE = 8.0


class Diagnosing(Shares):
    """Reduction whose result is a row of ``COLUMNS`` for each query.

    ``n_visible`` is the number of training points that each query sees.
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

    def __init__(self, spec: ReductionSpec, n_visible: int):
        super().__init__(spec, max(min(N_NEIGHBORS + 1, n_visible), 1))
        self.n_visible = n_visible
        self.rank = min(N_NEIGHBORS, n_visible // 2)
        self.eps = np.finfo(spec.result_dtype).eps

    @classmethod
    def to_data_units(cls, columns: FloatArray, scale: float) -> None:
        """Divide the thresholds by the scale of the points, in place."""
        for name in ("h_g", "h_clt"):
            columns[:, cls.COLUMNS.index(name)] /= scale

    def finish(self, state):
        state = state._replace(nearest_sq=np.maximum(state.nearest_sq, 0.0))
        some = state.sum_wk > 0.0
        log_peak = self._log_peaks(np.where(some, state.lowest, 0.0))[:, 0]
        columns = self._regime(log_peak, state)
        columns["standard_error"][~some] = np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            columns["log_sum"] = np.log(state.sum_wk) + log_peak
            effective = np.where(some, state.sum_wk**2 / state.sum_w2k2, 0.0)
            columns["max_weight"] = np.minimum(state.max_wk / state.sum_wk, 1.0)
        columns["effective_sample_size"] = effective
        return np.column_stack([columns[name] for name in self.COLUMNS])

    def _regime(self, log_peak, state):
        """Return standard errors, tail indices and thresholds, by name."""
        h, n_queries = self.bandwidths[0], len(log_peak)
        names = "standard_error", "tail_index", "h_g", "h_clt"
        if self.rank == 0:  # a single point is everything, and its law is unknown
            values = np.nan, np.inf if self.kernel.compact else 0.0, np.inf, np.inf
            return {n: np.full(n_queries, v) for n, v in zip(names, values, strict=True)}
        columns = {name: np.empty(n_queries) for name in names}
        nearest_sq, kernel = self.kernel.at_distances(state.nearest_sq, h)
        state = state._replace(nearest_sq=nearest_sq)
        for rows, law in local_laws(nearest_sq, self.n_visible, self.rank):
            of_rows = state.subset(rows)
            h_g, h_clt = kernel.thresholds(law, of_rows.nearest_sq)
            tail = kernel.tail_index(h, law)
            some = of_rows.sum_wk > 0.0
            share = of_rows.max_wk / np.where(some, of_rows.sum_wk, np.inf)
            formula = (tail >= CLT_FORMULA_FROM) & (h >= h_clt)
            formula &= share <= LARGEST_CLT_SHARE
            spread = clt_spread(of_rows)
            near = np.flatnonzero(~formula & some)
            spread[near] = self._redrawn(
                law.subset(near), kernel, log_peak[rows[near]], of_rows.subset(near)
            )
            found = spread, tail, h_g, h_clt
            for name, values in zip(names, found, strict=True):
                columns[name][rows] = values
        return columns

    def _redrawn(self, law, kernel, log_peak, state):
        """Return the spread over redrawn data sets, for queries of one law."""
        nearest_sq, h = state.nearest_sq[:, : law.rank + 1].copy(), self.bandwidths[0]
        weights = state.nearest_weights[:, : law.rank]
        # relative to the same energy as the sums: that of the nearest point
        values, _ = relative_values(kernel, h, nearest_sq)
        terms = weights * values[:, :-1]
        far = self._far_terms(log_peak, state, terms, weights, values[:, -1])
        near_weights = None if self.equal_weights else weights
        return redrawn_spread(law, kernel, h, near_weights, far)

    def _far_terms(self, log_peak, state, terms, weights, last):
        """Return what the sums over all points leave for those beyond the near ones.

        ``terms`` and ``weights`` are those of the near points, and ``last`` is the value
        of the point after them.
        """
        sum_wk = state.sum_wk - terms.sum(axis=1)
        # rounding of the sums; where there is no more, the near terms are all
        noise = FAR_NOISE * self.eps * (4.0 + np.abs(log_peak)) * state.sum_wk
        sum_wk = np.where(sum_wk > noise, sum_wk, 0.0)
        sum_w2k = state.sum_w2k - (weights * terms).sum(axis=1)
        sum_w2k2 = state.sum_w2k2 - (terms**2).sum(axis=1)
        far = state._replace(
            sum_wk=sum_wk,
            sum_w2k=np.minimum(sum_w2k, sum_wk),
            sum_w2k2=np.minimum(sum_w2k2, last * sum_wk),
            sum_w=state.sum_w - weights.sum(axis=1),
            sum_w2=state.sum_w2 - (weights**2).sum(axis=1),
        )
        return FarTerms.of(log_peak, far, self.n_visible - weights.shape[1])


class PartialDiagnosing(Diagnosing):
    """Reduction whose result is its state, packed: those of subsets of points merge."""

    def __init__(self, spec: ReductionSpec, n_visible: int):
        super().__init__(spec, n_visible)
        self.width = len(SharesState._fields) - 2 + 2 * self.neighbors.k

    def finish(self, state):
        return np.column_stack(state)

    def combine(self, result, other):
        return np.column_stack(self.merge(self.unpack(result), self.unpack(other)))

    def unpack(self, packed: FloatArray, sq_factor=1.0, sq_offset=0.0) -> SharesState:
        """Return the state, at distances ``sq_factor * sq + sq_offset``."""
        n_sums, k = len(SharesState._fields) - 2, self.neighbors.k
        nearest_sq, nearest_weights = np.split(packed[:, n_sums:], [k], axis=1)
        state = SharesState._make([*packed.T[:n_sums], nearest_sq, nearest_weights])
        of_rows = (np.reshape(value, (-1, 1)) for value in (sq_factor, sq_offset))
        factor, offset = of_rows
        return state._replace(
            lowest=state.lowest * sq_factor + sq_offset,
            nearest_sq=nearest_sq * factor + offset,
        )

    def unscaled(self, state: SharesState, sq_factor, sq_offset) -> SharesState:
        """Return the state back at distances in one whitening for each query."""
        nearest_sq = (state.nearest_sq - sq_offset[:, None]) / sq_factor[:, None]
        lowest = (state.lowest - sq_offset) / sq_factor
        return state._replace(lowest=lowest, nearest_sq=nearest_sq)
