"""Kernels over some features, and given these over the others: what both are made of.

A kernel is a function of ``|(x - c) L|``, with ``L`` the whitening. Let ``L_s`` be its
rows of the features ``s``, ``L_s' = Q T`` with orthonormal ``Q`` and triangular ``T``,
``N`` an orthonormal basis of what ``Q`` leaves out, and ``o`` the other features. Then

    |(x - c) L|^2 = |(x_s - c_s) T' + (x_o - c_o) L_o Q|^2 + |(x_o - c_o) L_o N|^2.

The last term is the squared distance of the marginal over ``o``: ``L_o N`` is its
whitening. The first is that of the conditional over ``s``: ``T'`` is its whitening, and
the centre moves by regression on ``x_o``. No matrix is inverted, and the two distances
add up to the joint one, so that joint, marginal and conditional log densities do too.
"""

from __future__ import annotations

import abc
import dataclasses

import numpy as np
from scipy.spatial.distance import cdist

from skhdkde._density.neighborhoods import NeighborhoodPoints
from skhdkde._density.whitened_points import WhitenedPoints
from skhdkde._density.whitening import Whitening
from skhdkde._kernels import make_kernel
from skhdkde._utils.arrays import row_batches


def kernel_of(kernel, n_features):
    """Return the marginal of a kernel over so many features, at the same bandwidth."""
    return make_kernel(kernel.name, n_features, kernel.degrees_of_freedom)


def kernel_given(kernel, bandwidth, n_given, n_others):
    """Return the kernel over some features given others, and its bandwidth.

    A Student kernel has gained ``n_given`` degrees of freedom, and a local scale that
    :meth:`Split.given` returns.
    """
    nu = kernel.degrees_of_freedom
    if np.isinf(nu):
        return make_kernel(kernel.name, n_others), bandwidth
    found = make_kernel(kernel.name, n_others, nu + n_given)
    if np.isinf(found.degrees_of_freedom):
        return found, bandwidth
    return found, bandwidth * np.sqrt(nu / (nu + n_given))


class Split(abc.ABC):
    """The kernels of one component, with features in two sets.

    Parameters
    ----------
    points : WhitenedPoints or NeighborhoodPoints
    given, others : ndarray of int
        The features of the two sets, in the order that results have.
    shrinkage : float
        Factor of the points' coordinates by which variance is preserved.
    """

    log_dets_given: np.ndarray | float  # of the whitenings of the marginals

    def __init__(self, points, given, others, shrinkage=1.0):
        self.points, self.n_given, self.n_others = points, len(given), len(others)
        self.columns_given, self.columns_others = given, others
        self.shrinkage = shrinkage
        self.center_given = points.whitening.center[given]
        self.center_others = points.whitening.center[others]

    @abc.abstractmethod
    def marginal(self):
        """Return the points for kernels over the features that are given."""

    @abc.abstractmethod
    def conditional(self, values, log_weights, widening):
        """Return the points for kernels over the others at one set of values.

        Parameters
        ----------
        values : ndarray of shape (1, n_given)
            Of the features that are given, in data units.
        log_weights, widening : ndarray of shape (1, n_points)
            As :meth:`given` returns them.
        """

    @abc.abstractmethod
    def squared_distances(self, values):
        """Return squared distances over the features given, (n_queries, n_points)."""

    @abc.abstractmethod
    def locations(self, values, points):
        """Return centres of kernels over the others, one a row, in data units.

        Parameters
        ----------
        values : ndarray of shape (n_pairs, n_given)
        points : ndarray of int of shape (n_pairs,)
            Which point each is the kernel of.
        """

    @abc.abstractmethod
    def steps(self, points, steps):
        """Return steps from centres in data units, made in whitened units."""

    @abc.abstractmethod
    def deviations(self, points):
        """Return widths over single others in data units, (n_pairs, n_others)."""

    def given(self, values, kernel, bandwidth):
        """Return logs of the kernels' values, and what they are wider by, given values.

        Parameters
        ----------
        values : ndarray of shape (n_queries, n_given)
            Of the features that are given, in data units.
        kernel : Kernel
            Over all features.
        bandwidth : float
            In whitened units.

        Returns
        -------
        logs : ndarray of shape (n_queries, n_points)
            With the weights of points and determinants, up to the kernel's volume.
        widening : ndarray of shape (n_queries, n_points)
            Local scales of the kernels over the others, of which those of the points
            are a factor.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            sq = self.squared_distances(values)
        if not np.isfinite(sq).all():
            raise ValueError(
                f"values that are given are as far from training points as "
                f"{np.abs(values).max():.1e}, whose squares are beyond float64: bring "
                "them nearer."
            )
        weights = self.points.weights
        scale = self.points.local_scale
        scale = np.ones(sq.shape[1]) if scale is None else scale
        sq /= scale**2
        own = kernel_of(kernel, self.n_given)
        logs = own.log_profile(sq.ravel(), bandwidth).reshape(sq.shape)
        logs += self.log_dets_given - self.n_given * np.log(scale)
        if weights is not None:
            logs += np.log(weights)
        if self.points.log_weights is not None:  # they are conditional already
            logs += self.points.log_weights
        if not np.isfinite(kernel.degrees_of_freedom):
            return logs, np.broadcast_to(scale, sq.shape)
        sq /= kernel.degrees_of_freedom * bandwidth**2
        return logs, scale * np.sqrt(1.0 + sq)


class SharedSplit(Split):
    """The kernels of points that share a whitening."""

    points: WhitenedPoints

    def __init__(self, points, given, others, shrinkage=1.0):
        super().__init__(points, given, others, shrinkage)
        linear, Z = points.whitening.linear, points.Z.astype(np.float64)
        if linear.ndim == 1:
            self.across, self.along = Z[:, given], Z[:, others]
            self.linear_given, self.linear_others = linear[given], linear[others]
            self.slope = np.zeros((len(given), len(others)))
            self.back = np.diag(1.0 / self.linear_others)
        else:
            Q, T = np.linalg.qr(linear[others].T, mode="complete")
            along, across = np.split(Q, [len(others)], axis=1)
            self.across, self.along = Z @ across, Z @ along
            self.linear_given = linear[given] @ across
            self.linear_others = T[: len(others)].T
            self.slope = linear[given] @ along
            self.back = np.linalg.inv(self.linear_others)
        self.whitening_given = Whitening(self.center_given, self.linear_given)
        self.log_dets_given = self.whitening_given.log_det

    def marginal(self):
        Z = self.across.astype(self.points.Z.dtype)
        return dataclasses.replace(self.points, whitening=self.whitening_given, Z=Z)

    def conditional(self, values, log_weights, widening):
        Z = self.shrinkage * self.along - (values - self.center_given) @ self.slope
        # coordinates about the mean lose the fewest digits
        shares = np.exp(log_weights[0] - log_weights.max())
        origin = shares @ Z / shares.sum()
        center = self.center_others + origin @ self.back
        uniform = (widening == 1.0).all()
        return dataclasses.replace(
            self.points,
            whitening=Whitening(center, self.linear_others),
            Z=(Z - origin).astype(self.points.Z.dtype),
            weights=None,
            log_weights=log_weights[0],
            spread=1.0,
            local_scale=None if uniform else widening[0],
        )

    def squared_distances(self, values):
        if self.n_given == 0:
            return np.zeros((len(values), len(self.across)))
        queries = self.whitening_given.apply(values)
        return cdist(queries, self.shrinkage * self.across, "sqeuclidean")

    def locations(self, values, points):
        Z = self.shrinkage * self.along[points]
        Z -= (values - self.center_given) @ self.slope
        return self.center_others + Z @ self.back

    def steps(self, points, steps):
        return steps @ self.back

    def deviations(self, points):
        of_each = np.sqrt(np.square(self.back).sum(axis=0))
        return np.broadcast_to(of_each, (len(points), self.n_others))


class MatrixSplit(Split):
    """The kernels of points with a matrix each."""

    points: NeighborhoodPoints

    def __init__(self, points, given, others, shrinkage=1.0):
        super().__init__(points, given, others, shrinkage)
        self.centers = points.means + shrinkage * (points.Z - points.means)
        n_points, n = len(points.Z), len(others)
        self.roots_given = np.empty((n_points, len(given), len(given)))
        self.roots_others = np.empty((n_points, n, n))
        self.slopes = np.empty((n_points, n, len(given)))
        for block in row_batches(n_points, points.n_features**2):
            roots = points.roots[block]
            Q, T = np.linalg.qr(roots[:, :, others], mode="complete")
            turned = Q.transpose(0, 2, 1) @ roots[:, :, given]
            self.slopes[block], self.roots_given[block] = turned[:, :n], turned[:, n:]
            self.roots_others[block] = T[:, :n]
        self.scale_given = points.whitening.linear[given]
        self.scale_others = points.whitening.linear[others]
        self.log_dets_roots = np.linalg.slogdet(self.roots_given)[1]
        self.log_dets_given = self.log_dets_roots + np.log(self.scale_given).sum()

    def marginal(self):
        given = self.columns_given
        return dataclasses.replace(
            self.points,
            whitening=Whitening(self.center_given, self.scale_given),
            Z=self.points.Z[:, given],
            means=self.points.means[:, given],
            roots=self.roots_given,
            log_dets=self.log_dets_roots,
        )

    def conditional(self, values, log_weights, widening):
        values = np.broadcast_to(values, (len(self.centers), self.n_given))
        points = np.arange(len(self.centers))
        x = self.locations(values, points)
        whitening = Whitening(self.center_others, self.scale_others)
        Z = whitening.apply(x)
        roots = self.roots_others / widening[0][:, None, None]
        return dataclasses.replace(
            self.points,
            whitening=whitening,
            Z=Z,
            weights=None,
            means=Z,
            roots=roots,
            log_dets=np.linalg.slogdet(roots)[1],
            log_weights=log_weights[0],
        )

    def _apart(self, values):
        """Return values of the features given in the units of the centres."""
        return (values - self.center_given) * self.scale_given

    def squared_distances(self, values):
        V, found = self._apart(values), np.empty((len(values), len(self.centers)))
        centers = self.centers[:, self.columns_given]
        for block in row_batches(len(centers), max(V.size, 1)):
            apart = V.T - centers[block][:, :, None]
            found[:, block] = np.square(self.roots_given[block] @ apart).sum(axis=1).T
        return found

    def locations(self, values, points):
        apart = self._apart(values) - self.centers[points][:, self.columns_given]
        moved = self.slopes[points] @ apart[:, :, None]
        steps = np.linalg.solve(self.roots_others[points], moved)[:, :, 0]
        Z = self.centers[points][:, self.columns_others] - steps
        return self.center_others + Z / self.scale_others

    def steps(self, points, steps):
        roots = self.roots_others[points]
        return np.linalg.solve(roots, steps[:, :, None])[:, :, 0] / self.scale_others

    def deviations(self, points):
        inverses = np.linalg.inv(self.roots_others[points])
        return np.sqrt(np.square(inverses).sum(axis=2)) / self.scale_others


def split_of(points, given, others, kernel, bandwidth, preserve_variance):
    """Return the kernels of a component with features in two sets; see `Split`."""
    kind = MatrixSplit if isinstance(points, NeighborhoodPoints) else SharedSplit
    shrinkage = points.shrinkage(kernel, bandwidth, preserve_variance)
    return kind(points, given, others, shrinkage)
