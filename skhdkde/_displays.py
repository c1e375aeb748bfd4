"""Figures, in scikit-learn's manner: arrays are computed once and plotted at will.

The only file that uses matplotlib, and only when something is plotted.
"""

import numpy as np
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from skhdkde._base import BaseKernelDensity
from skhdkde._diagnosis import Diagnosis
from skhdkde._selection import PARABOLA, BandwidthCurve, bandwidth_grid, queries_of
from skhdkde._utils.arrays import local
from skhdkde._utils.hints import did_you_mean
from skhdkde._utils.validation import check_data
from skhdkde._utils.warnings import warn_user
from skhdkde.regimes import REGIMES

# Colours of Okabe and Ito, told apart by the colour-blind and, by their lightness, in
# print; markers and words say the same.
COLORS = {"extreme": "#D55E00", "stable": "#0072B2", "clt": "#009E73"}
MARKERS = {"extreme": "v", "stable": "o", "clt": "^"}
SHADES = {"extreme": "#d0d0d0", "stable": "#e7e7e7", "clt": "#f8f8f8"}
LABELS = {
    "tail_index": "tail index",
    "effective_sample_size": "effective number of points",
}


class BandwidthDisplay:
    """Plot of the quality of the estimate against the bandwidth, with the regimes.

    Make it with :meth:`from_estimator`. Parameters are kept as attributes. All
    bandwidths are in data units, or in whitened units of a covariance.

    Parameters
    ----------
    bandwidths : ndarray of shape (n_bandwidths,)
        Bandwidths of the curve, ascending.
    values : ndarray of shape (n_bandwidths,)
        Mean log density, or Kullback-Leibler divergence, at each bandwidth, in nats.
    standard_error : ndarray of shape (n_bandwidths,)
        Standard error of ``values`` over the queries, in nats.
    bandwidth : float
        The bandwidth of the estimator.
    h_kl : float
        The bandwidth of the best value.
    h_g, h_clt : float
        Bandwidths that separate the regimes; medians over the queries.
    quantity : str
        Name of the values, for the axis.
    unit : {"data units", "whitened units"}, default="data units"
        Unit of the bandwidths, for the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    line_ : matplotlib Line2D
        The curve.

    See Also
    --------
    RegimeDisplay : Queries by regime, at the bandwidth in use.
    BandwidthSearch : The bandwidths that a fit tried.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skhdkde import BandwidthDisplay, HighDimKernelDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> kde = HighDimKernelDensity().fit(X)
    >>> display = BandwidthDisplay.from_estimator(kde)
    >>> plt.show()
    >>> round(display.h_kl, 2), round(display.h_g, 2)  # data units
    (0.9, 0.94)
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        bandwidths,
        values,
        standard_error,
        bandwidth,
        h_kl,
        h_g,
        h_clt,
        quantity,
        unit="data units",
    ):
        self.bandwidths = bandwidths
        self.values = values
        self.standard_error = standard_error
        self.bandwidth = bandwidth
        self.h_kl = h_kl
        self.h_g = h_g
        self.h_clt = h_clt
        self.quantity = quantity
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X=None,
        *,
        true_log_density=None,
        bandwidths=60,
        ax=None,
        line_kw=None,
    ):
        """Compute the curve for a fitted estimator, and plot it.

        Parameters
        ----------
        estimator : HighDimKernelDensity, or Pipeline or search that ends in one
            A fitted estimator. For a search, such as
            :class:`~sklearn.model_selection.GridSearchCV`, its ``best_estimator_`` is
            used.

        X : array-like of shape (n_queries, n_features), default=None
            Held-out points. Do not pass training points, which would count themselves.
            None means the training points, at most 4096 of them, each without itself and
            its duplicates. A covariance has still seen them, so that with a structure
            the best bandwidth may differ from the best one on held-out points.

        true_log_density : callable, default=None
            The true log density, in nats, ``true_log_density(X) -> ndarray of shape
            (n_queries,)``, for X as the estimator sees it, after the other steps of a
            Pipeline. If given, the curve is the Kullback-Leibler divergence.

        bandwidths : int or array-like, default=60
            The bandwidths, in the units of ``bandwidth_``, or their number. A number of
            bandwidths is spread from below the best one to above ``h_clt``. Without a
            structure one pass over the pairs serves all bandwidths; it computes an
            exponential for each pair and bandwidth.

        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        line_kw : dict, default=None
            Passed to ``ax.plot`` for the curve.

        Returns
        -------
        display : BandwidthDisplay
            The display, with the curve plotted.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is of another kind, or has its training points on a cluster.
        ValueError
            If ``bandwidths`` are not as described, or ``true_log_density`` returns
            another shape or NaN.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        kde, X = _last_step(estimator, X)
        if not hasattr(kde, "_approximation"):
            raise TypeError(
                f"{cls.__name__} needs the training points on one machine; the curve "
                f"that {type(kde).__name__} saw is in bandwidth_search_."
            )
        if X is not None:
            X = local(check_data(kde, X, reset=False))
            apart = kde._density.apart
            X = X if apart is None else apart.without(X)
        queries = queries_of(kde._density, X, kde.random_state, kde._compute_options())
        h_g, h_clt = queries.thresholds(kde.bandwidth_)
        marks = kde.bandwidth_, h_g, h_clt
        bandwidths, log_density = bandwidth_grid(queries, bandwidths, marks)
        plain = kde._density.structure is None
        quantity = "leave-one-out" if X is None else "held-out"
        quantity, sign = f"mean {quantity} log density", 1.0
        if true_log_density is not None:
            log_density = (
                log_density - _truth(true_log_density, _complete(kde, queries.X))[:, None]
            )
            quantity, sign = "KL divergence", -1.0
        curve = BandwidthCurve()
        curve.add(bandwidths, log_density, queries.weights)
        if sign < 0.0 and np.nanmax(curve.mean - 5.0 * curve.standard_error) > 0.0:
            warn_user(
                "The KL divergence from true_log_density is negative, which no density "
                "allows. true_log_density must be normalised, and in the space of the "
                "estimator, after all transformations."
            )
        display = cls(
            bandwidths=bandwidths,
            values=sign * curve.mean,
            standard_error=curve.standard_error,
            bandwidth=kde.bandwidth_,
            h_kl=curve.maximum(PARABOLA),
            h_g=h_g,
            h_clt=h_clt,
            quantity=quantity,
            unit="data units" if plain else "whitened units",
        )
        return display.plot(ax=ax, line_kw=line_kw)

    def plot(self, ax=None, *, line_kw=None):
        """Plot the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        line_kw : dict, default=None
            Passed to ``ax.plot`` for the curve.

        Returns
        -------
        display : BandwidthDisplay
            This display.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_ = ax = _axes(ax)
        self.figure_ = ax.figure
        shown = np.isfinite(self.values)
        h, values = self.bandwidths[shown], self.values[shown]
        kw = {"color": "black", "label": self.quantity, **(line_kw or {})}
        (self.line_,) = ax.plot(h, values, **kw)
        error = self.standard_error[shown]
        color = self.line_.get_color()
        ax.fill_between(h, values - error, values + error, color=color, alpha=0.2, lw=0)
        ax.set(
            xscale="log",
            xlim=(self.bandwidths[0], self.bandwidths[-1]),
            xlabel=f"bandwidth ({self.unit})",
            ylabel=f"{self.quantity} (nats)",
        )
        self._shade(ax)
        self._mark(ax)
        _plain_ticks(ax.xaxis)
        return self

    def _shade(self, ax):
        low, high = ax.get_xlim()
        edges = np.clip([low, self.h_g, self.h_clt, high], low, high)
        for name, left, right in zip(REGIMES, edges, edges[1:], strict=False):
            ax.axvspan(left, right, color=SHADES[name], lw=0, zorder=-2)
            if np.log(right / left) > 0.08 * np.log(high / low):
                ax.annotate(
                    name,
                    (np.sqrt(left * right), 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, -4),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    color="0.35",
                    fontsize="small",
                )

    def _mark(self, ax):
        marks = [
            ("$h_{KL}$", self.h_kl, "-", COLORS["extreme"]),
            ("$h_G$", self.h_g, "--", COLORS["stable"]),
            ("$h_{CLT}$", self.h_clt, ":", COLORS["clt"]),
        ]
        if abs(np.log(self.bandwidth / self.h_kl)) > 0.03:
            marks.append(("in use", self.bandwidth, "-.", "0.35"))
        low, high = ax.get_xlim()
        for name, at, style, color in marks:
            label = f"{name} = {at:.3g}"
            if low <= at <= high:
                ax.axvline(at, linestyle=style, color=color, label=label, zorder=-1)
            else:
                label = f"{label} (not shown)"
                ax.plot([], [], linestyle=style, color=color, label=label)
        ax.legend(fontsize="small")


class RegimeDisplay:
    """Scatter plot of queries by log density and tail index, coloured by regime.

    Make it with :meth:`from_estimator` or :meth:`from_diagnosis`. Parameters are kept as
    attributes.

    Parameters
    ----------
    diagnosis : Diagnosis
        A result of :meth:`HighDimKernelDensity.diagnose`.
    y : {"tail_index", "effective_sample_size"}
        The quantity on the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the last plot.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    scatter_ : dict of str to matplotlib PathCollection
        The points of each regime that occurs.

    See Also
    --------
    BandwidthDisplay : Plots the regimes against the bandwidth.
    HighDimKernelDensity.diagnose : Makes the diagnosis.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity, RegimeDisplay
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> kde = HighDimKernelDensity().fit(X)
    >>> display = RegimeDisplay.from_estimator(kde)
    >>> plt.show()
    >>> sorted(display.scatter_)
    ['extreme', 'stable']
    """

    def __init__(self, *, diagnosis, y):
        self.diagnosis = diagnosis
        self.y = y

    @classmethod
    def from_estimator(cls, estimator, X=None, *, y="auto", ax=None, **scatter_kw):
        """Diagnose queries with a fitted estimator, and plot the diagnosis.

        Parameters
        ----------
        estimator : HighDimKernelDensity, or Pipeline or search that ends in one
            A fitted estimator. For a search, such as
            :class:`~sklearn.model_selection.GridSearchCV`, its ``best_estimator_`` is
            used.

        X : array-like of shape (n_queries, n_features), default=None
            Queries. None means the training points, each one left out.

        y : {"auto", "tail_index", "effective_sample_size"}, default="auto"
            The quantity on the vertical axis. "auto" is the tail index; for compact
            kernels, whose tail index is infinite, it is the effective sample size.

        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        **scatter_kw : dict
            Passed to ``ax.scatter``.

        Returns
        -------
        display : RegimeDisplay
            The display, with the diagnosis plotted.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is of another kind.
        ValueError
            If ``y`` is another value.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        kde, X = _last_step(estimator, X)
        return cls.from_diagnosis(kde.diagnose(X), y=y, ax=ax, **scatter_kw)

    @classmethod
    def from_diagnosis(cls, diagnosis, *, y="auto", ax=None, **scatter_kw):
        """Plot a diagnosis.

        Parameters
        ----------
        diagnosis : Diagnosis
            A result of :meth:`HighDimKernelDensity.diagnose`.

        y : {"auto", "tail_index", "effective_sample_size"}, default="auto"
            The quantity on the vertical axis, as in :meth:`from_estimator`.

        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        **scatter_kw : dict
            Passed to ``ax.scatter``.

        Returns
        -------
        display : RegimeDisplay
            The display, with this diagnosis plotted.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If ``diagnosis`` is not a Diagnosis.
        ValueError
            If ``y`` is another value.
        """
        check_matplotlib_support(f"{cls.__name__}.from_diagnosis")
        if not isinstance(diagnosis, Diagnosis):
            raise TypeError(
                "diagnosis must be what HighDimKernelDensity.diagnose returns, got "
                f"{type(diagnosis).__name__}."
            )
        if isinstance(y, str) and y == "auto":
            finite = np.isfinite(diagnosis.tail_index).any()
            y = "tail_index" if finite else "effective_sample_size"
        if y not in list(LABELS):
            raise ValueError(
                f"y must be 'auto' or one of {sorted(LABELS)}, got {y!r}."
                f"{did_you_mean(y, ['auto', *LABELS])}"
            )
        return cls(diagnosis=diagnosis, y=y).plot(ax=ax, **scatter_kw)

    def plot(self, ax=None, **scatter_kw):
        """Plot the queries.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        **scatter_kw : dict
            Passed to ``ax.scatter``.

        Returns
        -------
        display : RegimeDisplay
            This display.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.ax_ = ax = _axes(ax)
        self.figure_ = ax.figure
        self.scatter_ = {}
        log_density = self.diagnosis.log_density
        values = getattr(self.diagnosis, self.y)
        shown = np.isfinite(log_density) & np.isfinite(values) & (values > 0.0)
        size = float(np.clip(3e4 / max(shown.sum(), 1), 8.0, 36.0))
        for name, share in self.diagnosis.shares.items():
            rows = shown & (self.diagnosis.regime == name)
            if rows.any():
                kw = {
                    "s": size,
                    "marker": MARKERS[name],
                    "color": COLORS[name],
                    "alpha": 0.7,
                    "linewidths": 0,
                    "label": f"{name} ({share:.0%})",
                    "rasterized": shown.sum() > 5000,
                    **scatter_kw,
                }
                self.scatter_[name] = ax.scatter(log_density[rows], values[rows], **kw)
        ax.set(xlabel="log density (nats)", ylabel=LABELS[self.y], yscale="log")
        if self.y == "tail_index":
            for level, style in [(1.0, "--"), (2.0, ":")]:
                ax.axhline(level, color="0.3", linestyle=style, lw=1, zorder=-1)
        _plain_ticks(ax.yaxis)
        if self.scatter_:
            ax.legend(
                title=self._note(shown),
                fontsize="small",
                title_fontsize="small",
                markerscale=np.sqrt(36.0 / size),
            )
        else:
            text = f"no query has a finite\nlog density and {LABELS[self.y]}"
            ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")
        return self

    def _note(self, shown):
        hidden = int(np.sum(~shown))
        return f"{hidden} out of reach" if hidden else None


def _last_step(estimator, X):
    """The density at the end of searches and pipelines, and X as it gets there."""
    if isinstance(estimator, BaseSearchCV):
        check_is_fitted(estimator)
        if not hasattr(estimator, "best_estimator_"):
            raise ValueError(
                "a search with refit=False has no estimator to show: fit it with "
                "refit=True, or pass a fitted estimator."
            )
        return _last_step(estimator.best_estimator_, X)
    if isinstance(estimator, Pipeline):
        if X is not None and len(estimator) > 1:
            X = estimator[:-1].transform(X)
        return _last_step(estimator[-1], X)
    if not isinstance(estimator, BaseKernelDensity):
        raise TypeError(
            "estimator must be a HighDimKernelDensity, or a Pipeline or a search such as "
            f"GridSearchCV that ends in one, got {type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    return estimator, X


def _complete(kde, X):
    """Return points with the constant features that the density is without."""
    constant = kde._density.constant
    return X if constant is None else constant.complete(X)


def _truth(true_log_density, X):
    if not callable(true_log_density):
        raise TypeError(
            "true_log_density must be a function of X, got "
            f"{type(true_log_density).__name__}."
        )
    truth = np.asarray(true_log_density(X), dtype=np.float64)
    if truth.shape != (len(X),) or np.isnan(truth).any():
        raise ValueError(
            f"true_log_density must return an array of shape {(len(X),)} without NaN, "
            f"got {truth.shape}, {int(np.isnan(truth).sum())} NaN."
        )
    return truth


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _plain_ticks(axis):
    """Ticks of a logarithmic axis as plain numbers, enough of them to read it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high / low > 50.0:
        return
    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
