"""Missing values of points, from a density: conditional means, and draws.

Rows of one pattern of missing values are completed together. Given what a row has, each
kernel of the density has a share, and is a kernel over what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtri, stdtrit

from skhdkde._density.marginals import log_density_given, splits_of
from skhdkde._density.mixed import MixedDensity
from skhdkde._density.sampling import random_steps
from skhdkde._density.splits import kernel_given
from skhdkde._utils.arrays import slices

# Elements of an array of pairs; shares of a kernel that are next to nothing, without and
# with maps of features; equally likely places of a kernel of which a mean under a map is.
PAIRS_SIZE = 2**22
LEAST_SHARE, LEAST_SHARE_MAPPED, N_PLACES = 1e-13, 1e-5, 16


def patterns(X):
    """Yield rows of X, and which features these miss, for each pattern of NaN."""
    missing = np.isnan(X)
    found, pattern = np.unique(missing, axis=0, return_inverse=True)
    pattern = pattern.ravel()
    order = np.argsort(pattern, kind="stable")
    ends = np.cumsum(np.bincount(pattern, minlength=len(found)))
    for one, rows in zip(found, np.split(order, ends[:-1]), strict=True):
        yield rows, one


class LeftOut(NamedTuple):
    """Which training points have no part in completing which rows: those of one number.

    ``points`` has a number for each training point, ``rows`` one for each row; -1 for
    none.
    """

    points: Any
    rows: Any


@dataclass(frozen=True)
class Kernels:
    """The kernels of one component over what rows miss, given what they have.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_given)
        What the rows have, in the units of the density.
    logs, widening : ndarray of shape (n_rows, n_points)
        Logs of shares, up to their sum, and local scales; see `Split.given`.
    kernel, bandwidth
        Over what is missing.
    maps : FeatureMaps or None
        Of the features that are missing.
    inverse : TabulatedInverse or None
        Of the maps of all features.
    """

    split: Any
    values: Any
    logs: Any
    widening: Any
    kernel: Any
    bandwidth: float
    maps: Any
    inverse: Any

    def drawn(self, rows, points, rng):
        """Return a draw from the kernel of each pair of a row and a point."""
        steps = random_steps(
            self.kernel, self.bandwidth, (len(rows), self.split.n_others), rng
        )
        steps *= self.widening[rows, points][:, None]
        found = self.split.locations(self.values[rows], points)
        found += self.split.steps(points, steps)
        return found if self.maps is None else self.maps.invert(found)

    def add_means(self, total, out):
        """Add the kernels' means to those of the rows, times their shares."""
        shares = np.exp(self.logs - total[:, None])
        least = LEAST_SHARE if self.maps is None else LEAST_SHARE_MAPPED
        rows, points = np.nonzero(shares > least * shares.max(axis=1, keepdims=True))
        size = self.split.n_others * (1 if self.maps is None else N_PLACES)
        for pairs in slices(len(rows), max(1, PAIRS_SIZE // size)):
            i, j = rows[pairs], points[pairs]
            means = self.split.locations(self.values[i], j)
            if self.maps is not None:
                means = self._mapped_means(means, i, j)
            _add_by_row(out, i, shares[i, j][:, None] * means)

    def _mapped_means(self, locations, rows, points):
        """Return means in data units of kernels over mapped features.

        They are over equally likely places, and finite where the mean may not be.
        """
        places = (np.arange(N_PLACES) + 0.5) / N_PLACES
        nu = self.kernel.degrees_of_freedom
        steps = ndtri(places) if np.isinf(nu) else stdtrit(nu, places)
        widths = self.bandwidth * self.widening[rows, points]
        deviations = self.split.deviations(points) * widths[:, None]
        Z = locations + steps[:, None, None] * deviations
        return self.inverse.invert(Z, self.split.columns_others).mean(axis=0)


def _add_by_row(out, rows, values):
    """Add values to rows of an array, where those of a row follow each other."""
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    out[rows[first]] += np.add.reduceat(values, first, axis=0)


def conditional_means(density, X, leave_out=None):
    """Return X with the conditional means of missing values in their place.

    Parameters
    ----------
    density : Density or MixedDensity
        With kernels "gaussian" or "student".
    X : ndarray of shape (n_rows, n_features)
        With NaN where a value is missing; each row has a density of what it has.
    leave_out : LeftOut, default=None
        Training points that have no part in completing some of the rows.
    """

    def fill(kernels, total):
        out = np.zeros((len(total), kernels[0].split.n_others))
        for own in kernels:
            own.add_means(total, out)
        return out

    return _completed(density, X, 1, leave_out, fill)[0]


def conditional_draws(density, X, n_samples, rng, leave_out=None):
    """Return X with draws of missing values, (n_samples, n_rows, n_features).

    Each row has draws of all that it misses together. See :func:`conditional_means`.
    """

    def fill(kernels, total):
        sizes = [own.logs.shape[1] for own in kernels]
        ends = np.hstack([np.exp(own.logs - total[:, None]) for own in kernels])
        np.cumsum(ends, axis=1, out=ends)
        marks = rng.uniform(size=(len(total), n_samples)) * ends[:, -1:]
        pairs = zip(ends, marks, strict=True)
        chosen = np.stack([np.searchsorted(e, m, side="right") for e, m in pairs], 1)
        chosen = np.minimum(chosen, ends.shape[1] - 1)
        first = np.concatenate([[0], np.cumsum(sizes)])
        which = np.searchsorted(first, chosen, side="right") - 1
        out = np.empty((*chosen.shape, kernels[0].split.n_others))
        for k in np.unique(which):
            at = np.nonzero(which == k)
            out[at] = kernels[k].drawn(at[1], chosen[at] - first[k], rng)
        return out

    return _completed(density, X, n_samples, leave_out, fill)


def _completed(density, X, n_copies, leave_out, fill):
    """Return copies of X with what ``fill`` makes of kernels and logs of their totals."""
    constant = density.constant
    if constant is None:
        return _completed_varying(density, X, n_copies, leave_out, fill)
    varying = constant.without(X)
    others = _completed_varying(density, varying, n_copies, leave_out, fill)
    full = np.stack([constant.complete(one) for one in others])
    return np.where(np.isnan(X), full, X)


def _completed_varying(density, X, n_copies, leave_out, fill):
    """Return copies of X without missing values, where all features vary."""
    result, inverses = np.repeat(X[None], n_copies, axis=0), _inverses(density)
    for rows, missing in patterns(X):
        given, others = np.flatnonzero(~missing), np.flatnonzero(missing)
        if not len(others):
            continue
        parts = _parts(density, inverses, given, others)
        n_at_once = max(1, PAIRS_SIZE // density.n_points)
        for some in slices(len(rows), n_at_once):
            own = rows[some]
            values = X[np.ix_(own, given)].astype(np.float64)
            left_out = leave_out and leave_out._replace(rows=leave_out.rows[own])
            kernels = _kernels(parts, values, left_out)
            total = logsumexp([logsumexp(k.logs, axis=1) for k in kernels], axis=0)
            if np.isneginf(total).any():
                row = int(own[np.flatnonzero(np.isneginf(total))[0]])
                raise ValueError(
                    f"row {row} of X has a value outside the limits of feature_maps, "
                    "where the density is zero: its missing values cannot be filled in."
                )
            result[:, own[:, None], others] = fill(kernels, total)
    return result


class Part(NamedTuple):
    """One density of a mixture, with features in two sets."""

    log_weight: float
    density: Any
    splits: list
    maps_given: Any = None
    maps_others: Any = None
    inverse: Any = None


def _inverses(density):
    """Return the inverse of each member's maps as a table, None for none."""
    if not isinstance(density, MixedDensity):
        return [None]
    return [
        m.maps and m.maps.tabulated_inverse(m.density.training) for m in density.members
    ]


def _parts(density, inverses, given, others):
    """Return the parts of a mixture, or the one of a density that is none."""
    if not isinstance(density, MixedDensity):
        return [Part(0.0, density, splits_of(density, given, others))]
    found = []
    for member, inverse in zip(density.members, inverses, strict=True):
        maps, splits = member.maps, splits_of(member.density, given, others)
        part = Part(member.log_weight, member.density, splits)
        if maps is not None:
            part = part._replace(
                maps_given=maps.of(given), maps_others=maps.of(others), inverse=inverse
            )
        found.append(part)
    return found


def _kernels(parts, values, leave_out):
    """Return the kernels of all members and components given values of some rows."""
    result = []
    for part in parts:
        density, splits = part.density, part.splits
        mapped, log_jacobian = values, np.zeros(len(values))
        if part.maps_given is not None:
            mapped = part.maps_given.apply(values)
            log_jacobian = part.maps_given.log_jacobian(values)
        kernel, h = density.kernel, density.bandwidth
        own, h_own = kernel_given(kernel, h, values.shape[1], splits[0].n_others)
        found = [split.given(mapped, kernel, h) for split in splits]
        # what is left to make values of members comparable
        unit = log_density_given(density, [(np.zeros((1, 1)), None)], values.shape[1])
        for split, (logs, widening) in zip(splits, found, strict=True):
            logs += (part.log_weight + log_jacobian + unit)[:, None]
            _leave_out(logs, split.points.rows, leave_out)
            laws = own, h_own, part.maps_others, part.inverse
            result.append(Kernels(split, mapped, logs, widening, *laws))
    return result


def _leave_out(logs, points, leave_out):
    """Take training points from those of a component, in place."""
    if leave_out is None:
        return
    numbers, own = leave_out.points[points], np.flatnonzero(leave_out.rows >= 0)
    logs[own] = np.where(leave_out.rows[own, None] == numbers[None], -np.inf, logs[own])
