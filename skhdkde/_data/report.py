"""The public report on the training points, and how it is shown."""

import html
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._data.columns import FEW, widest_and_narrowest
from skhdkde._utils.frames import data_frame

# Ratio of spreads from which one bandwidth does not suit all; features that a line shows.
LARGEST_RATIO, SHOWN = 100.0, 4


@dataclass(frozen=True, repr=False)
class DataReport:
    """Description of the training points, by feature and as a whole.

    A fitted :class:`HighDimKernelDensity` has it as its attribute ``data_report_``. Rows
    of weight zero do not count; others count once, whatever their weight. Arrays have the
    shape (n_features,).

    Attributes
    ----------
    n_rows : int
        Number of training points of positive weight.
    covariance_type : str
        Type of covariance of the fit. If it is "spherical", the report shows scales of
        features that are far apart.
    feature_names : tuple of str or None
        Names of features, if X had names.
    minimum, maximum : ndarray
        Smallest and largest value, in data units.
    standard_deviation : ndarray
        Weighted standard deviation, in data units.
    spread : ndarray
        Median distance from the median, in data units, over at most 2048 rows and without
        rows at the median itself. NaN if at most ten rows, or 1 %, are not at the
        median. It is robust against outliers.
    n_distinct : ndarray
        Number of distinct values. NaN means many: in 2048 rows no two were equal.
    n_varying : ndarray
        Number of rows that differ from the most common value; NaN if there are many
        distinct values.
    commonest_share : ndarray
        Share of the rows that have the most common value; NaN if there are many distinct
        values.
    step : ndarray
        Greatest common step: all differences of values are multiples of it. It is 1 for
        most integers. NaN if there is none, or if there are more than half as many
        distinct values as rows.
    missing_codes : tuple of tuple of float
        For each feature the values that may be codes for missing values. They occur more
        than once and are far from all other values, or they are -99, -999, ... where no
        other value is negative.
    off_lattice : tuple of tuple of float
        For each discrete feature a few values off its lattice: without them the step
        would be at least ten times as large. An example is a mean that was filled in for
        missing counts.
    n_missing : ndarray of int
        Number of missing values that `fit` filled in. All else here is computed with them
        filled in.
    redundant : ndarray of bool or None
        Whether a feature is a linear combination of others, up to 1e-6 of its variance,
        in at most 2048 rows. None with more than 512 features, or with no more rows than
        features.
    n_duplicates : int
        Number of rows that equal an earlier row.
    n_near_duplicates : int or None
        Number of rows that the search for the bandwidth treated as duplicates up to
        rounding; None if there was no search. Rows that are only similar do not count.
    unit_norm : bool
        Whether all rows have a norm of 1, within 1e-3.
    constant : ndarray of bool
        Whether all values of a feature are equal.
    n_null_directions : int or None
        Number of redundant features. It is the number of directions without variance,
        apart from constant features.
    spread_ratio : float
        Ratio of the largest to the smallest spread, without the 2 % of the features with
        the smallest spread.

    See Also
    --------
    HighDimKernelDensity : Has it as ``data_report_``.
    Diagnosis : Error bars and regimes of log densities.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.normal(size=(500, 2)), rng.poisson(2.0, 500)])
    >>> X[:20, 2] = -999
    >>> report = HighDimKernelDensity().fit(X).data_report_
    >>> report
    <DataReport: 500 rows, 3 features
      discrete (1): feature 2 (8 values, step 1)
      codes for missing values? (1): feature 2 (-999)>
    >>> report.n_distinct, report.step
    (array([500., 500.,   8.]), array([nan, nan,  1.]))
    >>> float(report.to_frame().loc[2, "commonest_share"])  # by pandas
    0.284
    """

    n_rows: int
    covariance_type: str
    feature_names: tuple | None
    minimum: np.ndarray
    maximum: np.ndarray
    standard_deviation: np.ndarray
    spread: np.ndarray
    n_distinct: np.ndarray
    n_varying: np.ndarray
    commonest_share: np.ndarray
    step: np.ndarray
    missing_codes: tuple
    off_lattice: tuple
    n_missing: np.ndarray
    redundant: np.ndarray | None
    n_duplicates: int
    n_near_duplicates: int | None
    unit_norm: bool

    @property
    def constant(self) -> np.ndarray:
        """Whether all values of a feature are equal."""
        return self.minimum == self.maximum

    @property
    def n_null_directions(self) -> int | None:
        """Number of directions without variance, apart from constant features."""
        return None if self.redundant is None else int(self.redundant.sum())

    @property
    def spread_ratio(self) -> float:
        """Ratio of the largest to the smallest spread, without the 2 % smallest."""
        found = widest_and_narrowest(self.spread)
        return 1.0 if found is None else found[2]

    def to_frame(self) -> Any:
        """Return the description of the features as a table.

        Returns
        -------
        table : pandas.DataFrame
            One row for each feature, with its name as index if it has one. Columns are
            the attributes that have a value for each feature.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        columns = {name: getattr(self, name) for name in PER_FEATURE}
        if self.redundant is None:
            del columns["redundant"]
        return data_frame("DataReport.to_frame", columns, index=self.feature_names)

    def _heading(self):
        """Return a line that says what it is about."""
        return f"{self.n_rows} rows, {len(self.minimum)} features"

    def _about_features(self):
        """Return pairs of what was found and of which features."""
        rare = ~self.constant & (self.commonest_share >= 1.0 - FEW)
        coded = np.array([len(codes) > 0 for codes in self.missing_codes])
        off = np.array([len(values) > 0 for values in self.off_lattice])
        discrete = ~np.isnan(self.step) & ~rare
        redundant = np.zeros(0) if self.redundant is None else self.redundant
        found: list = [
            ("constant", self.constant, None),
            ("vary in few rows", rare, self._in_rows),
            ("discrete", discrete, self._steps),
            ("imputed by a mean? use the median", off, self._off),
            ("codes for missing values?", coded, self._codes),
            ("follow linearly from others", redundant, None),
        ]
        return [
            (f"{what} ({np.count_nonzero(which)})", self._listed(which, details))
            for what, which, details in found
            if which.any()
        ]

    def _about_all(self):
        """Return pairs of what was found of all rows or features, and how much."""
        found, pair = [], widest_and_narrowest(self.spread)
        one_bandwidth = self.covariance_type == "spherical"
        one_bandwidth &= not self.unit_norm  # there scales are what they are
        if one_bandwidth and pair is not None and pair[2] > LARGEST_RATIO:
            shown = listed(self.feature_names, pair[:2], self._spread_of)
            found.append(("scales apart by", f"{pair[2]:.3g}: {shown}"))
        if self.n_duplicates:
            found.append(("duplicate rows", str(self.n_duplicates)))
        if self.n_near_duplicates:
            found.append(("near-duplicate rows", str(self.n_near_duplicates)))
        if self.unit_norm:
            found.append(("norm of all rows", "1: see support='sphere'"))
        return found

    def _listed(self, which, details):
        """Return the first features of a mask, fewest values first, as text."""
        found = np.flatnonzero(which)
        found = found[np.argsort(self.n_distinct[found], kind="stable")]
        return listed(self.feature_names, found, details)

    def _in_rows(self, j):
        return f"{self.n_varying[j]:.0f} rows"

    def _steps(self, j):
        return f"{self.n_distinct[j]:.0f} values, step {self.step[j]:.6g}"

    def _codes(self, j):
        return ", ".join(f"{code:.10g}" for code in self.missing_codes[j])

    def _off(self, j):
        values = ", ".join(f"{value:.6g}" for value in self.off_lattice[j][:SHOWN])
        return f"{values} beside the steps of other values"

    def _spread_of(self, j):
        return f"{self.spread[j]:.3g}"

    def _notable(self):
        """Return pairs of what was found, and where or how much."""
        found = self._about_features() + self._about_all()
        return found or [("notable", "nothing")]

    def __repr__(self) -> str:
        lines = [f"  {what}: {where}" for what, where in self._notable()]
        return "\n".join([f"<DataReport: {self._heading()}", *lines]) + ">"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(what)}</td><td>{html.escape(where)}</td></tr>"
            for what, where in self._notable()
        )
        return (
            f"<div><b>DataReport</b>: {self._heading()}"
            f"<table><tbody>{rows}</tbody></table></div>"
        )


# Attributes with one entry for each feature.
PER_FEATURE = (
    "constant",
    "n_varying",
    "commonest_share",
    "n_distinct",
    "step",
    "minimum",
    "maximum",
    "standard_deviation",
    "spread",
    "n_missing",
    "missing_codes",
    "off_lattice",
    "redundant",
)


def label(names, j):
    """Return what a message calls feature ``j``."""
    return f"feature {j}" if names is None else f"feature {names[j]!r}"


def listed(names, which, details=None):
    """Return the first of some features, each with its details, as text."""
    shown = []
    for j in which[:SHOWN]:
        name = label(names, j)
        shown.append(name if details is None else f"{name} ({details(j)})")
    return ", ".join(shown) + (", ..." if len(which) > SHOWN else "")
