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
        Bandwidths at which the regimes meet at the query, in the units of ``bandwidth``.
    regime : ndarray of str
        "extreme": a few nearest points give the whole sum. "stable": many points
        contribute, with heavy-tailed fluctuations. "clt": the central limit theorem
        holds.
    effective_sample_size : ndarray
        Inverse of the sum of squared shares: the number of points behind the estimate.
    max_weight : ndarray
        Share of the point that contributes most; NaN where none does.
    bandwidth : float
        The bandwidth in use, in data units or whitened units of a covariance.
    kernel : str
        The kernel in use.
    algorithm : ndarray of str, or None
        What ``log_density`` is from, "neighbors", "sampling" or "exact"; None if the
        estimator has ``algorithm="exact"``.
    approximation_error : ndarray or None
        Stated error of ``log_density`` against the sum over all points, in nats.
    n_missing : ndarray of int, or None
        Number of missing values of a query: all that is said of it is of the marginal
        density of what it has. None if no query has any.
    shares : dict of str to float
        Share of the queries in each regime.

    See Also
    --------
    HighDimKernelDensity.diagnose : Makes it.
    RegimeDisplay : Draws it.
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
        """Make it from the results of a pass; for the estimators.

        Parameters
        ----------
        log_density : ndarray of shape (n_queries,)
            In nats.
        columns : ndarray of shape (n_queries, 7)
            Log sums, which are not used, and from ``standard_error`` to ``max_weight``
            all arrays but ``regime``.
        bandwidth : float
            The bandwidth in use.
        kernel : str
            The kernel in use.
        report : Report or None
            Of the ``algorithm`` and its errors, unless that is "exact".
        n_missing : ndarray of int of shape (n_queries,), default=None
            Number of missing values, None if there are none.

        Returns
        -------
        diagnosis : Diagnosis
            Of these queries.
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
        """Share of the queries in each regime: of "extreme", "stable" and "clt"."""
        return {name: float(np.mean(self.regime == name)) for name in REGIMES}

    def __len__(self) -> int:
        return len(self.log_density)

    def to_frame(self) -> Any:
        """Make a table of the arrays.

        Returns
        -------
        table : pandas.DataFrame
            A row for each query, with the arrays that are not None as columns.

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
