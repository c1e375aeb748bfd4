"""Some of the features: marginals, conditionals, and rows with missing values."""

from __future__ import annotations

import abc
import contextlib
import copy
import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array, check_random_state

from skhdkde._approximation import ExactSums
from skhdkde._base import BaseKernelDensity
from skhdkde._data import Table, columns_wanted
from skhdkde._density import (
    LeftOut,
    Structure,
    check_n_samples,
    columns_of,
    conditional,
    conditional_draws,
    conditional_means,
    marginal,
    patterns,
)
from skhdkde._fit import Fitted
from skhdkde._maps import chosen_columns, column_of
from skhdkde._pairwise import Plan
from skhdkde._selection import Drift, DriftTest, HeldOutScores
from skhdkde._utils.arrays import has_missing, like, local
from skhdkde._utils.hashing import find_hashes, row_hashes
from skhdkde._utils.random import seed_beside
from skhdkde._utils.validation import check_data
from skhdkde._utils.warnings import warn_user

# Kernels whose marginals and conditionals are known.
KERNELS_OF_PARTS = ("gaussian", "student")
# Complete training rows, at least; how often the others are completed.
FEWEST_COMPLETE, N_ROUNDS = 10, 2
# Features that a message shows.
SHOWN = 5
NO_HELD_OUT = (
    "held_out_log_density_ is not known for a density made by {method}: its parts were "
    "fitted together with features that it does not have. Nor are density_level and "
    "entropy, which use it. Hold out rows before the fit instead: call {method} of an "
    "estimator fitted to the others, and pass the rows that were held out to its "
    "score_samples."
)


class FeatureSets(BaseKernelDensity):
    """Methods of an estimator that take some of its features."""

    _if_missing = (
        "Missing values are possible with kernel 'gaussian' or 'student' and "
        "support='euclidean'. With other settings leave out rows that have NaN."
    )
    _density: Any
    _approximation: Any
    _discrete: Any  # DiscreteFeatures, or None
    _weightless: Any  # which training points have no weight, and these; or None
    _incomplete: Any  # which training points were incomplete, as given; or None
    _table: Any
    _held_out: Any
    drift_: Drift | None
    _drift_test: DriftTest | None  # None before points are added
    _heaviest: float  # largest weight of a training point, as it was given
    _plan: Plan
    _made_by: str | None  # the method that derived it from another; None if it was fitted
    _validated: Any

    def marginal(self, features: Any) -> Self:
        """Return the marginal density of some features.

        Parameters
        ----------
        features : int, str or array-like
            The features to keep: indices, names or a mask of shape (n_features,). The
            result has them in this order.

        Returns
        -------
        kde : HighDimKernelDensity
            A fitted estimator of these features: the integral of this density over all
            other features, in closed form. It has the same training points, bandwidth and
            weights. Its ``bandwidth_search_`` is None. Its sums are over all points, for
            any `algorithm`.

        Raises
        ------
        ValueError
            If there is no such feature, if none of them varies, if the kernel is neither
            "gaussian" nor "student", or with ``support="sphere"``.

        Notes
        -----
        A Student kernel keeps its degrees of freedom. If the density has a structure, the
        result has no ``held_out_log_density_``.
        """
        self._check_parts("marginal")
        columns = self._columns_of(features)
        found = marginal(self._density, columns)
        _check_varies(found.varies, "the features that are kept")
        return self._derived(found, columns, "marginal")

    def conditional(self, features: Any, values: Any) -> Self:
        """Return the density of all other features, given values of some.

        Parameters
        ----------
        features : int, str or array-like
            The features whose values are given: indices, names or a mask of shape
            (n_features,).
        values : float or array-like of shape (n_given,)
            Values of these features, in data units, in the order of `features`. If they
            have labels, as a row of a data frame does, these must be the names of the
            features.

        Returns
        -------
        kde : HighDimKernelDensity
            A fitted estimator of the other features, in their order in X. The weight of
            each training point is proportional to its kernel at the given values. Where
            features of a kernel are correlated, its centre moves along the regression on
            these values. Its sums are over all points, for any `algorithm`.

        Raises
        ------
        ValueError
            If there is no such feature; if values are not finite, outside the limits of a
            feature, or so far away that their squares are beyond float64; if none of the
            other features varies; if the kernel is neither "gaussian" nor "student"; or
            with ``support="sphere"``.

        Notes
        -----
        The log density of this estimator is the sum of two: that of
        ``marginal(features)`` at the values, and that of the result. With the kernel
        "student" the result has one more degree of freedom for each feature given, and a
        local scale for each training point; ``bandwidth_`` and ``degrees_of_freedom_``
        are those of the result. The error bars of ``diagnose`` are for the joint density
        at the values and the query; ``marginal(features).diagnose`` has the error bar at
        the values alone. ``preserve_variance_`` is False, since the training points are
        already shrunk. The result has no ``held_out_log_density_``.
        """
        self._check_parts("conditional")
        given = self._columns_of(features)
        self._check_labels(values, given)
        checked = check_array(
            np.atleast_2d(values), dtype=np.float64, input_name="values"
        )
        if checked.shape != (1, len(given)):
            raise ValueError(
                f"values must be one for each of the {len(given)} features given, got "
                f"shape {np.shape(values)}."
            )
        others = np.setdiff1d(np.arange(self.n_features_in_), given)
        if not len(others):
            raise ValueError("features must leave some of X out: all are given.")
        found = conditional(self._density, given, others, checked[0])
        _check_varies(found.varies, "the features that are not given")
        return self._derived(found, others, "conditional")

    def impute(
        self,
        X: Any,
        n_samples: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> np.ndarray:
        """Return points with their missing values filled in.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_features)
            Points, with NaN for missing values.

        n_samples : int, default=None
            None fills in conditional means, given the values that the row has. A number
            makes this many draws from the conditional density instead, jointly for all
            missing values of a row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draws. Pass an int for the same draws each time.

        Returns
        -------
        X : ndarray of shape (n_queries, n_features) or (n_samples, n_queries, n_features)
            The points, with missing values filled in and others unchanged. The second
            shape is that of draws. Draws of discrete features are on their lattices;
            means are not. Constant features get their constant value.

        Raises
        ------
        ValueError
            If X is not as described, if the kernel is neither "gaussian" nor "student",
            or with ``support="sphere"``.

        Notes
        -----
        If a row of X is a training point that had missing values, this training point and
        its copies are left out. With `feature_maps` the mean is taken over 16 equally
        likely places of each kernel, since the exact mean may be infinite.
        """
        self._check_parts("impute")
        X = check_data(self, X, reset=False, missing=True)
        values = np.asarray(local(X))
        own = self._completed_before(values)
        if n_samples is None:
            return like(conditional_means(self._density, values, own), X)
        n_samples, rng = check_n_samples(n_samples), check_random_state(random_state)
        found = conditional_draws(self._density, values, n_samples, rng, own)
        if self._discrete is not None:
            rounded = np.stack([self._discrete.rounded(one) for one in found])
            found = np.where(np.isnan(values), rounded, found)
        return like(found, X)

    @abc.abstractmethod
    def _check_fitted(self):
        """Raise an error if the estimator is not fitted, or its parameters are wrong."""

    @abc.abstractmethod
    def _parameters(self):
        """Return the parameters as they are now."""

    @abc.abstractmethod
    def _gradient(self, X, options):
        """Return gradients at queries without missing values."""

    @property
    def _knows_parts(self):
        """Whether marginals are known, so that values may be missing."""
        return self.kernel in KERNELS_OF_PARTS and self.support == "euclidean"

    def _check_parts(self, method):
        """Raise ValueError if marginals of the kernels are not known."""
        self._check_fitted()
        if self.support != "euclidean":
            raise ValueError(
                f"{method} needs support='euclidean', got {self.support!r}: unit vectors "
                "have no features that vary while others stay as they are."
            )
        if self.kernel_ not in KERNELS_OF_PARTS:
            raise ValueError(
                f"{method} needs kernel 'gaussian' or 'student', got {self.kernel_!r}: "
                "of other kernels no marginal has a closed form."
            )

    def _columns_of(self, features):
        """Return the columns of features given by index, name or a mask, in order."""
        names = getattr(self, "feature_names_in_", None)
        found = chosen_columns(features, self.n_features_in_, names, "features")
        if len(set(found)) < len(found):
            raise ValueError(f"features must differ, got {features!r}.")
        if not len(found):
            raise ValueError("features must have at least one feature, got none.")
        return found

    def _check_labels(self, values, given):
        """Raise ValueError if values have names that are not those of features given."""
        names = getattr(self, "feature_names_in_", None)
        labels = getattr(values, "columns", None)
        if labels is None and hasattr(values, "iloc"):
            labels = values.index
        if names is None or labels is None or not all(isinstance(k, str) for k in labels):
            return
        if list(labels) != names[given].tolist():
            raise ValueError(
                f"values have the labels {list(labels)}, and features are "
                f"{names[given].tolist()}: pass both in the same order."
            )

    def _queries(self, X):
        """Return checked queries; they may have NaN where marginals are known."""
        X = check_data(self, X, reset=False, missing=self._knows_parts)
        return local(X)

    def _of_features(self, columns):
        """Return a copy that has the marginal density of some columns, and no more."""
        found = copy.copy(self)
        found._density = marginal(self._density, columns)
        found._approximation = self._approximation and ExactSums(found._density)
        return found

    def _by_patterns(self, X, method, options):
        """Return what a method gives for queries, by marginals of what these have.

        ``method`` takes an estimator, queries and options, and returns arrays with an
        entry for each query.
        """
        if not has_missing(X):
            return method(self, X, options)
        X = np.asarray(X)
        results: list[np.ndarray] = []
        for rows, missing in patterns(X):
            columns = np.flatnonzero(~missing)
            part = self._of_features(columns) if missing.any() else self
            found = method(part, X[np.ix_(rows, columns)], options)
            if not results:
                results = [np.empty((len(X), *a.shape[1:]), a.dtype) for a in found]
            for result, own in zip(results, found, strict=True):
                result[rows] = own
        return tuple(results)

    def _gradient_by_patterns(self, X, options):
        """Return gradients at queries, NaN for what these miss."""
        if not has_missing(X):
            return self._gradient(X, options)
        X, result = np.asarray(X), None
        for rows, missing in patterns(X):
            at = np.ix_(rows, np.flatnonzero(~missing))
            part = self._of_features(at[1][0]) if missing.any() else self
            found = part._gradient(X[at], options)
            if result is None:
                result = np.full(X.shape, np.nan, found.dtype)
            result[at] = found
        return result

    def _derived(self, density, columns, method):
        """Return a fitted estimator of some columns with a density of these."""
        names = getattr(self, "feature_names_in_", None)
        names = None if names is None else names[columns]
        found = copy.copy(self)
        found._like = self._like  # which a copy has not
        found.__dict__.update(_parameters_of(self, columns), algorithm="exact")
        first = density.members[0].density if hasattr(density, "members") else density
        structure = first.structure or Structure()
        fitted = Fitted(density, self.covariance_type_, structure, None)
        found.__dict__.update(fitted.attributes())
        found._density, found._approximation = density, None
        found.approximation_, found._validated = None, found._parameters()
        found.n_features_in_ = len(columns)
        if names is not None:
            found.feature_names_in_ = names
        found._constant_columns = tuple(columns_of(density.constant).tolist())
        found._discrete = self._discrete and self._discrete.of(columns)
        if self._weightless is not None:
            found._weightless = self._weightless[0], self._weightless[1][:, columns]
        found._incomplete, found._made_by = None, method
        found._table = Table(density, names, None, self.covariance_type_)
        found._held_out = NotHeldOut(method)
        if method == "marginal" and density.choices is None:
            found._held_out = HeldOutScores(density, found._weightless, self.random_state)
        return found

    @property
    def incomplete_rows_(self) -> np.ndarray:
        """Rows of X that had missing values in :meth:`fit`, which filled them in."""
        return np.empty(0, dtype=int) if self._incomplete is None else self._incomplete[0]

    def _completed(self, X, weights):
        """Return training points without missing values; record which had some."""
        self._incomplete = None
        if not has_missing(X):
            return X
        X = np.array(X)
        rows = np.flatnonzero(np.isnan(X).any(axis=1))
        self._incomplete = rows, X[rows]
        return complete_rows(self, X, weights)

    def _n_missing(self):
        """Return how many values of each feature were drawn, or None for none."""
        if self._incomplete is None:
            return None
        rows, given = self._incomplete
        missing = np.isnan(given)
        if self._weightless is not None:
            missing = missing[~self._weightless[0][rows]]
        return missing.sum(axis=0)

    def _completed_before(self, X):
        """Return the training points that rows are, if they were completed; or None."""
        if self._incomplete is None:
            return None
        rows, given = self._incomplete
        places = rows
        if self._weightless is not None:
            places = places_with_weight(rows, self._weightless[0])
        return left_out(X, given, places, self._density.n_points)


class NotHeldOut:
    """In place of held-out log densities, where they are not known."""

    made = False

    def __init__(self, method):
        self.method = method

    def log_density(self, options):
        """Raise AttributeError."""
        raise AttributeError(NO_HELD_OUT.format(method=self.method))

    of_weight = log_density

    def level(self, shares, options):
        """Raise AttributeError."""
        self.log_density(options)


def left_out(X, given, places, n_points):
    """Return which training points have no part in completing rows of X.

    These are the row itself and its copies: what they miss was drawn.

    Parameters
    ----------
    X, given : ndarray of shape (n_queries, n_features), (n_incomplete, n_features)
        Queries, and incomplete training points as they were given, with NaN.
    places : ndarray of int of shape (n_incomplete,)
        Where the latter are among the points of the density, -1 for nowhere.
    n_points : int
        Number of these.
    """
    wanted, own = np.unique(_hashes_of_gaps(given), return_inverse=True)
    numbers = np.full(n_points, -1)
    numbers[places[places >= 0]] = own[places >= 0]
    found, place = find_hashes(_hashes_of_gaps(X.astype(given.dtype)), wanted)
    of_X = np.full(len(X), -1)
    of_X[found] = place
    return LeftOut(numbers, of_X)


def places_with_weight(rows, zero):
    """Return where rows are among those of positive weight, -1 for nowhere."""
    return np.where(zero, -1, np.cumsum(~zero) - 1)[rows]


def _hashes_of_gaps(X):
    """Return a hash of each row, in which NaN equals NaN."""
    return row_hashes(np.where(np.isnan(X), np.nan, X))


def complete_rows(estimator, X, weights):
    """Return training points with draws for what is missing.

    The complete rows are fitted first. What the others miss is drawn given what they
    have, and again from a fit to all rows, each without itself and its copies.

    Raises
    ------
    ValueError
        If too few rows are complete.
    """
    missing = np.isnan(X)
    incomplete = missing.any(axis=1)
    counts = np.ones(len(X), dtype=bool) if weights is None else weights > 0.0
    rows, complete = np.flatnonzero(incomplete), np.flatnonzero(~incomplete & counts)
    _check_complete(missing, len(complete), weights is not None)
    estimator._maps_to_compare(X[counts])  # an error has rows of X
    rng = np.random.RandomState(seed_beside(estimator.random_state))
    parameters = _parameters_of(estimator, np.arange(X.shape[1]))
    X, used, own = X.copy(), complete, None
    given, places = X[rows], places_with_weight(rows, ~counts)
    for k in range(N_ROUNDS):
        fitted = clone(estimator).set_params(**parameters, algorithm="exact")
        with warnings.catch_warnings(), _saying_which(len(used), len(X)):
            warnings.simplefilter("ignore")  # the last fit has them again
            fitted.fit(X[used], sample_weight=None if weights is None else weights[used])
        if k > 0:
            own = left_out(given, given, places, int(counts.sum()))
        drawn = conditional_draws(fitted._density, given, 1, rng, own)[0]
        if fitted._discrete is not None:
            drawn = np.where(missing[rows], fitted._discrete.rounded(drawn), given)
        X[rows], used = drawn, np.arange(len(X))
    share = missing.mean()
    warn_user(
        f"X has NaN in {len(rows)} of {len(X)} rows, {share:.1%} of all values. They "
        "were filled in by draws from the conditional density given the other values of "
        f"a row, by a fit to the {len(complete)} complete rows and then to all rows. If "
        "values are missing for reasons that the other values do not explain, the "
        "estimate is biased. incomplete_rows_ lists these rows."
    )
    return X


@contextlib.contextmanager
def _saying_which(n_used, n_samples):
    """Put before errors of a fit that it was one to the complete rows."""
    try:
        yield
    except ValueError as error:
        if n_used < n_samples:
            error.args = (
                f"In a fit to the {n_used} complete rows of X, which is made to complete "
                f"the others: {error}",
            )
        raise


def _check_complete(missing, n_complete, weighted):
    """Raise ValueError if too few rows are complete to complete the others."""
    if n_complete >= FEWEST_COMPLETE:
        return
    counts = missing.sum(axis=0)
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    shown = ", ".join(f"{k} ({counts[k]})" for k in order if counts[k])
    row, column = np.argwhere(missing)[0].tolist()
    complete = "complete and of positive weight" if weighted else "complete"
    raise ValueError(
        f"X contains NaN in {missing.any(axis=1).sum()} of {len(missing)} rows, the "
        f"first in row {row}, column {column}: {n_complete} rows are {complete}, and at "
        f"least {FEWEST_COMPLETE} are needed to complete the others. Leave out features "
        f"that miss the most: columns {shown} (values missing). Or fill X in before, as "
        "sklearn.impute.IterativeImputer does."
    )


def _check_varies(varies, which):
    if not varies:
        raise ValueError(f"{which} are all constant: they have no density.")


def _parameters_of(estimator, columns):
    """Return parameters that name features, for some columns, by index."""
    n_features, names = estimator.n_features_in_, None
    names = getattr(estimator, "feature_names_in_", None)
    places = {k: i for i, k in enumerate(columns.tolist())}
    maps, discrete = estimator.feature_maps, estimator.discrete_features
    if isinstance(maps, dict):
        own = {column_of(k, n_features, names): spec for k, spec in maps.items()}
        maps = {places[k]: spec for k, spec in own.items() if k in places} or None
    if discrete is not None and not isinstance(discrete, str):
        wanted = columns_wanted(discrete, n_features, names).tolist()
        discrete = [places[k] for k in wanted if k in places] or None
    return {"feature_maps": maps, "discrete_features": discrete}
