"""What stands behind each log density: regime, error bar, effective sample size."""

import html
from dataclasses import dataclass, field, fields

import numpy as np

from skhdkde._local_law import N_NEIGHBORS, LocalLaw
from skhdkde._reductions import Shares
from skhdkde._spread import FarTerms, clt_spread, redrawn_spread
from skhdkde.regimes import REGIMES

__all__ = ["Diagnosing", "Diagnosis"]

# The estimate of the variance has itself a variance from this tail index on.
CLT_FORMULA_FROM = 4.0
# Share of the sum, in units of its tolerance, below which terms are lost in rounding.
FAR_NOISE = 0.01


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

    def __init__(self, kernel, bandwidth, points, tol, n_visible):
        n_neighbors = max(min(N_NEIGHBORS + 1, n_visible), 1)
        super().__init__(kernel, bandwidth, points, tol, n_neighbors)
        self.n_visible = n_visible
        self.rank = min(N_NEIGHBORS, n_visible // 2)
        # of the points that a query sees, on average
        share = n_visible / points.shape[0]
        self.total = points.total_weight() * share
        squares = points.shape[0] if points.weights is None else points.weights**2
        self.total_sq = float(np.sum(squares)) * share

    def finish(self, state):
        lowest, sums, nearest, weights = state
        nearest = np.maximum(nearest, 0.0)
        first, second, largest = sums[:, 0], sums[:, 2], sums[:, 3]
        some = first > 0.0
        log_peak = self.kernel.log_peak(np.where(some, lowest, 0.0), self.bandwidths)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_sum = np.log(first) + log_peak[:, 0]
            effective = np.where(some, first**2 / second, 0.0)
            share = largest / first
        spread, (h_g, h_clt), tail = self._regime(log_peak[:, 0], sums, nearest, weights)
        spread[~some] = np.inf
        columns = log_sum, spread, tail, h_g, h_clt, effective, np.minimum(share, 1.0)
        return np.column_stack(columns)

    def _regime(self, log_peak, sums, nearest, weights):
        """Standard error, thresholds and tail index."""
        if self.rank == 0:  # a single point is everything, and its law is unknown
            inf = np.full(len(sums), np.inf)
            return np.full(len(sums), np.nan), (inf, inf), np.zeros(len(sums))
        h = self.bandwidths[0]
        law = LocalLaw(nearest[:, : self.rank + 1], self.n_visible)
        thresholds = self.kernel.thresholds(law, nearest)
        tail = self.kernel.tail_index(h, thresholds[0])
        spread = clt_spread(
            (sums[:, 0], sums[:, 2], sums[:, 1]), self.total, self.total_sq
        )
        redraw = (tail < CLT_FORMULA_FROM) | (h < thresholds[1])
        rows = np.flatnonzero(redraw & (sums[:, 0] > 0.0))
        near_weights = weights[rows, : self.rank]
        far = self._far_terms(log_peak[rows], sums[rows], nearest[rows], near_weights)
        spread[rows] = redrawn_spread(
            law.rows(rows),
            self.kernel,
            h,
            None if self.equal_weights else near_weights,
            far,
            self.n_visible,
        )
        return spread, thresholds, tail

    def _far_terms(self, log_peak, sums, nearest, weights):
        """What the sums over all points leave for those beyond the near ones."""
        energy = self.kernel.energy(nearest[:, : self.rank + 1].copy())
        # relative to the same energy as the sums: that of the nearest point
        shifted = self.kernel.shift(energy, energy[:, 0].copy())
        values = self.kernel.values(shifted, self.bandwidths[0], shifted)
        terms, last = weights * values[:, :-1], values[:, -1]
        first = sums[:, 0] - terms.sum(axis=1)
        # rounding of the sums; where there is no more, the near terms are all
        first = np.where(first > FAR_NOISE * self.tol * sums[:, 0], first, 0.0)
        second = np.minimum(sums[:, 2] - (terms**2).sum(axis=1), last * first)
        cross = np.minimum(sums[:, 1] - (weights * terms).sum(axis=1), first)
        total = self.total - weights.sum(axis=1)
        total_sq = self.total_sq - (weights**2).sum(axis=1)
        rest = first, second, cross, total, total_sq
        return FarTerms(log_peak, rest, self.n_visible - self.rank)


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What stands behind each log density.

    Made by :meth:`HighDimKernelDensity.diagnose`. All arrays have the shape
    (n_queries,).

    Attributes
    ----------
    log_density : ndarray
        In nats, as ``score_samples`` gives it.
    standard_error : ndarray
        Standard deviation of ``log_density`` over fresh data sets of the same size, in
        nats. Infinite where no training point is in reach, or none would be in fresh
        data sets; NaN with a single training point.
    tail_index : ndarray
        Index of the power-law tail of the kernel's values: below 1 in the regime
        "extreme", above 2 in "clt". Infinite for compact kernels, whose values are
        bounded.
    h_g, h_clt : ndarray
        Bandwidths, in data units, at which the regimes meet at the query.
    regime : ndarray of str
        "extreme": a few nearest points give the whole sum. "stable": many points
        contribute, with heavy-tailed fluctuations. "clt": the central limit theorem
        holds.
    effective_sample_size : ndarray
        Inverse of the sum of squared shares: the number of points behind the estimate.
    max_weight : ndarray
        Share of the point that contributes most; NaN where none does.
    bandwidth : float
        The bandwidth in use, in data units.
    kernel : str
    """

    log_density: np.ndarray
    standard_error: np.ndarray
    tail_index: np.ndarray
    h_g: np.ndarray
    h_clt: np.ndarray
    effective_sample_size: np.ndarray
    max_weight: np.ndarray
    bandwidth: float
    kernel: str
    regime: np.ndarray = field(init=False)

    def __post_init__(self):
        level = (self.bandwidth > self.h_g).astype(int) + (self.bandwidth > self.h_clt)
        object.__setattr__(self, "regime", np.array(REGIMES)[level])

    @property
    def shares(self):
        """Share of the queries in each regime, a dict from "extreme" to "clt"."""
        return {name: float(np.mean(self.regime == name)) for name in REGIMES}

    def __len__(self):
        return len(self.log_density)

    def to_frame(self):
        """The arrays as columns of a :class:`pandas.DataFrame`, one row per query."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "Diagnosis.to_frame needs pandas: pip install pandas."
            ) from error
        return pd.DataFrame(self._columns())

    def _columns(self):
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in named.items() if isinstance(v, np.ndarray)}

    def _summary(self):
        """Rows of name and 5, 50 and 95 % quantiles."""
        rows = []
        for name, values in self._columns().items():
            known = values[~np.isnan(values)] if values.dtype.kind == "f" else []
            if len(known):
                # of order statistics, not between them: they may be infinite
                low, middle, high = np.quantile(
                    known, [0.05, 0.5, 0.95], method="nearest"
                )
                rows.append((name, *(f"{v:.4g}" for v in (low, middle, high))))
        return rows

    def _heading(self):
        queries = "query" if len(self) == 1 else "queries"
        return (
            f"{len(self)} {queries}, {self.kernel} kernel, bandwidth {self.bandwidth:.6g}"
        )

    def __repr__(self):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        lines = [
            f"<Diagnosis: {self._heading()}",
            f"  regimes: {shares}",
            f"  {'':22}{'5 %':>10}{'median':>10}{'95 %':>10}",
        ]
        for name, *values in self._summary():
            lines.append(f"  {name:22}" + "".join(f"{value:>10}" for value in values))
        return "\n".join(lines) + ">"

    def _repr_html_(self):
        def row(tag, cells):
            inside = "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells)
            return f"<tr>{inside}</tr>"

        shares = " &middot; ".join(
            f"{name} <b>{share:.1%}</b>" for name, share in self.shares.items()
        )
        body = "".join(row("td", cells) for cells in self._summary())
        return (
            f"<div><b>Diagnosis</b>: {html.escape(self._heading())}<br>{shares}"
            f"<table><thead>{row('th', ['', '5 %', 'median', '95 %'])}</thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
