"""A fitted density: the sum of kernels over the parts of the training points.

With ``l_c`` the log density that part ``c`` gives, up to the total weight, the log
density is ``logsumexp_c l_c`` and its gradient the mean of theirs with shares
``exp(l_c)``. The states of a diagnosis merge once they are in common units: a kernel's
value times the determinant of the part's frame is a value at a larger distance
(``discount``), and the sum over all parts is one sum over such distances.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._diagnosis.reduction import Diagnosing, PartialDiagnosing
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.points import power_of_two_scale
from skhdkde._pairwise.reductions import Gradient, LogSumExp, pair_dtype
from skhdkde._utils.arrays import row_blocks
from skhdkde._utils.moments import without_each

# Queries whose diagnoses are merged at once.
QUERIES_AT_ONCE = 8192


@dataclass(frozen=True)
class Structure:
    """How the kernels of different training points differ in shape, place and size.

    Attributes
    ----------
    covariance_type : {"spherical", "diag", "full", "local"}
    preserve_variance : bool
    adaptive : bool or int
    covariance_estimator : estimator or None
    mixture : GaussianMixture, MixtureSpec or None
    """

    covariance_type: str = "spherical"
    preserve_variance: bool = False
    adaptive: bool | int = False
    covariance_estimator: Any = None
    mixture: Any = None

    @property
    def plain(self):
        """Whether it is that of the textbook."""
        spherical = self.covariance_type == "spherical"
        return spherical and not self.preserve_variance and not self.adaptive

    def largest_bandwidth(self, kernel, parts):
        """At which the centres are all at the mean; infinite if they are not pulled."""
        if not self.preserve_variance:
            return np.inf
        part = parts[0]
        return part.spread / np.sqrt(kernel.variance(part.n_features))


class Estimate:
    """Kernel sums over parts.

    Parameters
    ----------
    members : list of Member
    kernel : object
    bandwidth : float
        In the units of the members' frames.
    training : ndarray of shape (n_points, n_features), default=None
        Training points in data units, unless the one member has them.

    ``engine``, for each method, are the options of
    :func:`~skhdkde._backends.reduce_pairs`.
    """

    parts = None  # of an estimate with a structure
    largest_bandwidth = np.inf

    def __init__(self, members, kernel, bandwidth, training=None):
        self.members, self.kernel, self.bandwidth = members, kernel, bandwidth
        self.training = training
        self.n_points = sum(member.points.shape[0] for member in members)
        self.top = max(member.log_scale for member in members)

    @property
    def dtype(self):
        return self.members[0].points.dtype

    @property
    def on_gpu(self):
        return self.members[0].points.on_gpu

    @property
    def degrees_of_freedom(self):
        """Of the kernel; infinite for all but student."""
        return getattr(self.kernel, "degrees_of_freedom", np.inf)

    @property
    def log_volume(self):
        d = self.members[0].points.shape[1]
        return self.kernel.log_normalizer(d) + d * np.log(self.bandwidth)

    def log_total(self):
        return np.log(sum(member.points.total_weight() for member in self.members))

    def log_total_without_each(self):
        """Log of the weight of all others, for each training point."""
        if len(self.members) == 1:
            with np.errstate(divide="ignore"):
                return np.log(self.members[0].points.total_weight_without_each())
        with np.errstate(divide="ignore"):
            return np.log(without_each(self.weights()))

    def weights(self):
        """Of the training points, relative to the largest."""
        weights = np.ones(self.n_points)
        for member in self.members:
            if member.points.weights is not None:
                weights[member.rows] = member.points.weights
        return weights

    def log_density(self, X, engine, rows=slice(None)):
        """At the queries ``rows``; X of None leaves out each training point in turn."""
        return self.finished(self.log_sums(X, engine, rows), X, rows)

    def diagnose(self, X, engine):
        """Log density, and the columns of :class:`~skhdkde._diagnosis.Diagnosing`."""
        if len(self.members) == 1:
            columns = self._one_diagnosis(X, engine)
        else:
            n_queries = self.n_points if X is None else len(X)
            blocks = [
                self._merged_diagnosis(X, slice(i, i + QUERIES_AT_ONCE), engine)
                for i in range(0, n_queries, QUERIES_AT_ONCE)
            ]
            columns = np.vstack(blocks)
        log_density = self.finished(columns[:, 0] + self.top, X)
        columns[:, 3:5] /= self.members[0].points.scale
        return log_density, columns

    def gradient(self, X, engine):
        """Of the log density, (n_queries, n_features), in the units of X."""
        out = np.empty(X.shape, dtype=np.result_type(X.dtype, self.dtype))
        if len(self.members) == 1:
            self._gradient_of(self.members[0], X, engine, out)
            return out
        for rows in row_blocks(*X.shape):
            out[rows] = self._merged_gradient(X[rows], engine, out.dtype)
        return out

    def _merged_gradient(self, X, engine, dtype):
        """Of all members, for a block of queries."""
        log_sums = [member.log_sums(self, X, None, engine) for member in self.members]
        total = functools.reduce(np.logaddexp, log_sums)
        merged, own = np.zeros(X.shape, dtype), np.empty(X.shape, dtype)
        for member, logs in zip(self.members, log_sums, strict=True):
            self._gradient_of(member, X, engine, own)
            merged += np.exp(logs - total)[:, None] * own
        return merged

    def _gradient_of(self, member, X, engine, out):
        queries = member.points.as_queries(X)
        reduction = Gradient(*member.terms(self, queries))
        member.reduce(reduction, queries, None, engine, out=out, label="gradient")
        if member.points.frame is not None:
            for rows in row_blocks(*out.shape):
                out[rows] = member.points.frame.gradient(out[rows])

    def log_sums(self, X, engine, rows=slice(None)):
        """Log of the kernel sums at the queries ``rows``."""
        logs = [
            member.log_sums(self, *self.queries(X, member, rows), engine)
            for member in self.members
        ]
        return functools.reduce(np.logaddexp, logs)

    def queries(self, X, member, rows=slice(None)):
        """Queries in data units, and the points of a member that they leave out."""
        if X is not None:
            return X[rows], None
        if self.training is None:
            return None, np.arange(self.n_points)[rows]
        own = np.full(self.n_points, -1)
        own[member.rows] = np.arange(len(member.rows))
        return self.training[rows], own[rows]

    def finished(self, log_sums, X, rows=slice(None)):
        """Log densities from log sums."""
        log_total = self.log_total()
        if X is None:
            log_total = self.log_total_without_each()[rows]
            # no points at all: log 0, not log 0/0
            log_total[np.isneginf(log_sums)] = 0.0
        dtype = self.dtype if X is None else np.result_type(X.dtype, self.dtype)
        with np.errstate(over="ignore"):  # below the least float32 is -inf
            return (log_sums - log_total - self.log_volume).astype(dtype, copy=False)

    def _n_visible(self, leave_out):
        return self.n_points - (leave_out is not None)

    def _one_diagnosis(self, X, engine):
        member = self.members[0]
        X, leave_out = self.queries(X, member)
        queries = member.queries(X, leave_out)
        n_visible = self._n_visible(leave_out)
        reduction = Diagnosing(*member.terms(self, queries), n_visible)
        return member.reduce(reduction, queries, leave_out, engine)

    def _merged_diagnosis(self, X, rows, engine):
        """Columns for a block of queries, relative to the largest determinant."""
        state = best = None
        for member in self.members:
            reduction, other, units = self._state(member, X, rows, engine)
            if state is None:
                state, best = other, np.tile(units, (len(other[0]), 1))
                continue
            best[other[0] < state[0]] = units
            state = reduction.merge(state, other)
        # back to distances in the frame of the part that the largest term is from
        state = reduction.released(state, best[:, 0], best[:, 1])
        columns = Diagnosing.finish(reduction, state)
        columns[:, 0] += best[:, 2]
        return columns

    def _state(self, member, X, rows, engine):
        """What a member has to say, in common units, and what made them common."""
        X, leave_out = self.queries(X, member, rows)
        queries = member.queries(X, leave_out)
        n_visible = self._n_visible(leave_out)
        reduction = PartialDiagnosing(*member.terms(self, queries), n_visible)
        packed = member.reduce(reduction, queries, leave_out, engine)
        logs = member.log_scale - self.top
        h = self.bandwidth * member.points.scale
        discount = self.kernel.discount(np.array([logs]), h)
        units = np.append(discount, logs)
        return reduction, reduction.unpack(packed, *units[:2]), units


class Member:
    """Some of the training points of an :class:`Estimate`, in one frame.

    Parameters
    ----------
    points : TrainingPoints
    rows : ndarray of int or None
        Which of the training points they are; None for all.
    log_scale : float
        Log of the factor of the density that the points do not know of: determinant
        of the frame, and local scales of which they know the differences.
    """

    def __init__(self, points, rows=None, log_scale=0.0, local=None):
        self.points, self.rows, self.log_scale = points, rows, log_scale
        self.local = local

    def displaced(self, rows, steps):
        """The points ``rows`` plus steps, made for a local scale of 1; data units."""
        Z = self.points.in_data_units(rows)
        if self.local is not None:
            steps = steps * self.local[rows, None]
        if self.points.frame is None:
            return Z + steps
        return self.points.frame.invert(Z + steps)

    def queries(self, X, leave_out):
        if X is None:
            return self.points.rows_as_queries(leave_out)
        return self.points.as_queries(X)

    def terms(self, estimate, queries):
        """What a reduction over the kernel's values needs to know."""
        dtype = np.result_type(queries.dtype, self.points.dtype)
        # the largest error of a log density that is promised, in nats
        tol = 1e-3 if dtype == np.float32 else 1e-8
        return estimate.kernel, estimate.bandwidth * self.points.scale, self.points, tol

    def log_sums(self, estimate, X, leave_out, engine):
        queries = self.queries(X, leave_out)
        reduction = LogSumExp(*self.terms(estimate, queries))
        return self.reduce(reduction, queries, leave_out, engine)[:, 0] + self.log_scale

    def reduce(self, reduction, queries, leave_out, engine, label="density", out=None):
        return reduce_pairs(
            reduction,
            queries,
            self.points,
            leave_out=leave_out,
            dtype=pair_dtype(reduction.kernel, self.points),
            label=label,
            out=out,
            **engine,
        )


def plain_estimate(points, kernel, bandwidth):
    """The estimate of the textbook."""
    return Estimate([Member(points)], kernel, bandwidth)


def structured_estimate(X, parts, structure, kernel, bandwidth):
    """The estimate over the parts of a structure; X are the training points."""
    top = max(part.log_scales().max() for part in parts)
    scale = min(power_of_two_scale(part.Z) for part in parts)
    members = []
    for part in parts:
        pull = part.pull(kernel, bandwidth, structure.preserve_variance)
        if part.local is None:
            points = part.points(pull, scale)
            members.append(Member(points, part.rows, part.frame.log_det))
        else:
            discount = kernel.discount(part.log_scales() - top, bandwidth)
            points = part.points(pull, scale, discount)
            members.append(Member(points, part.rows, top, part.local))
    estimate = Estimate(members, kernel, bandwidth, training=X)
    estimate.parts, estimate.structure = parts, structure
    estimate.largest_bandwidth = structure.largest_bandwidth(kernel, parts)
    return estimate


def at_bandwidth(estimate, bandwidth):
    """The same estimate over parts, at another bandwidth."""
    return structured_estimate(
        estimate.training, estimate.parts, estimate.structure, estimate.kernel, bandwidth
    )
