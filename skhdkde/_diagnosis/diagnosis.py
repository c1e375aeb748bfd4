"""What stands behind each log density: regime, error bar, effective sample size."""

import html
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from skhdkde._diagnosis.reduction import Diagnosing
from skhdkde._utils.frames import data_frame
from skhdkde.regimes import REGIMES


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Regime, error bar and effective sample size of each log density.

    :meth:`HighDimKernelDensity.diagnose` returns it. All arrays have the shape
    (n_queries,).

    Attributes
    ----------
    log_density : ndarray
        Log density in nats, as ``score_samples`` returns it.
    standard_error : ndarray
        Standard deviation of ``log_density`` over new data sets of the same size, in
        nats. Infinite where no training point is within reach of the kernel, or may be
        within reach in a new data set. NaN with a single training point.
    tail_index : ndarray
        Index of the power-law tail of the distribution of kernel values. Below 1 in the
        regime "extreme", above 2 in "clt". Infinite for compact kernels, whose values are
        bounded.
    h_g, h_clt : ndarray
        Bandwidths that separate the regimes at the query, in the units of ``bandwidth``:
        "extreme" up to ``h_g``, "clt" above ``h_clt``.
    regime : ndarray of str
        "extreme": a few nearest points give nearly the whole sum. "stable": many points
        contribute, and the sum has heavy-tailed fluctuations. "clt": the central limit
        theorem holds.
    effective_sample_size : ndarray
        Effective number of points in the sum: one over the sum of the squared shares of
        the points.
    max_weight : ndarray
        Share of the point that contributes most to the sum; NaN where no point does.
    bandwidth : float
        The bandwidth in use, in data units, or in whitened units of a covariance.
    kernel : str
        The kernel in use.
    algorithm : ndarray of str, or None
        How ``log_density`` was computed: "neighbors", "sampling" or "exact". None if the
        estimator has ``algorithm="exact"``.
    approximation_error : ndarray or None
        Stated error of ``log_density`` relative to the sum over all points, in nats. None
        if the estimator has ``algorithm="exact"``.
    n_missing : ndarray of int, or None
        Number of missing values of each query. Results are for the marginal density of
        its other values. None if no query has missing values.
    shares : dict of str to float
        Share of the queries in each regime.

    See Also
    --------
    HighDimKernelDensity.diagnose : Returns it.
    RegimeDisplay : Plots it.
    regimes.gaussian_thresholds : Theory of the regimes, for Gaussian data.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> X = np.random.default_rng(0).normal(size=(600, 20))
    >>> diagnosis = HighDimKernelDensity().fit(X[:500]).diagnose(X[500:])
    >>> diagnosis.log_density[:2].round(1), diagnosis.standard_error[:2].round(1)
    (array([-31.7, -28.7]), array([0.9, 0.7]))
    >>> diagnosis.regime[:2]
    array(['extreme', 'extreme'], dtype='<U7')
    >>> diagnosis.shares
    {'extreme': 0.72, 'stable': 0.28, 'clt': 0.0}
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
    algorithm: np.ndarray | None = None
    approximation_error: np.ndarray | None = None
    n_missing: np.ndarray | None = None
    regime: np.ndarray = field(init=False)

    def __post_init__(self):
        level = (self.bandwidth > self.h_g).astype(int) + (self.bandwidth > self.h_clt)
        object.__setattr__(self, "regime", np.array(REGIMES)[level])

    @classmethod
    def from_columns(
        cls,
        log_density: np.ndarray,
        columns: np.ndarray,
        bandwidth: float,
        kernel: str,
        report: Any,
        n_missing: np.ndarray | None = None,
    ) -> Self:
        """Make a diagnosis from the results of a pass; the estimators call this.

        Parameters
        ----------
        log_density : ndarray of shape (n_queries,)
            Log densities, in nats.
        columns : ndarray of shape (n_queries, 7)
            Log sums, which are not used, then ``standard_error``, ``tail_index``,
            ``h_g``, ``h_clt``, ``effective_sample_size`` and ``max_weight``.
        bandwidth : float
            The bandwidth in use.
        kernel : str
            The kernel in use.
        report : Report or None
            Report of the approximation; None for the algorithm "exact".
        n_missing : ndarray of int of shape (n_queries,), default=None
            Number of missing values; None if there are none.

        Returns
        -------
        diagnosis : Diagnosis
            The diagnosis of these queries.
        """
        arrays = dict(zip(Diagnosing.COLUMNS[1:], columns.T[1:].copy(), strict=True))
        if report is not None:
            arrays["algorithm"] = report.algorithm
            arrays["approximation_error"] = report.error
        if n_missing is not None:
            arrays["n_missing"] = n_missing
        return cls(log_density=log_density, bandwidth=bandwidth, kernel=kernel, **arrays)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the queries in each regime: "extreme", "stable" and "clt"."""
        return {name: float(np.mean(self.regime == name)) for name in REGIMES}

    def __len__(self) -> int:
        return len(self.log_density)

    def to_frame(self) -> Any:
        """Return the arrays as a table.

        Returns
        -------
        table : pandas.DataFrame
            One row for each query, and one column for each array that is not None.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return data_frame("Diagnosis.to_frame", self._columns())

    def _columns(self):
        """Return the arrays by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in named.items() if isinstance(v, np.ndarray)}

    def _summary(self):
        """Return rows of a name and its 5, 50 and 95 % quantiles."""
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
        """Return a line that says what was diagnosed."""
        queries = "query" if len(self) == 1 else "queries"
        partly = ""
        if self.n_missing is not None:
            partly = f" ({np.count_nonzero(self.n_missing)} with missing values)"
        return (
            f"{len(self)} {queries}{partly}, {self.kernel} kernel, "
            f"bandwidth {self.bandwidth:.6g}"
        )

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        lines = [
            f"<Diagnosis: {self._heading()}",
            f"  regimes: {shares}",
            f"  {'':22}{'5 %':>10}{'median':>10}{'95 %':>10}",
        ]
        for name, *values in self._summary():
            lines.append(f"  {name:22}" + "".join(f" {value:>9}" for value in values))
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
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
