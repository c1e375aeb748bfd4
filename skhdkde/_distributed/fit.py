"""From blocks of training points to a fitted density, and from there to results.

Blocks themselves are not looked at here: all is made of what tasks of ``_blocks.py`` say
of them, merged. ``run(task, extras=None)`` returns that; how, it knows alone.
"""

import dataclasses
import functools

import numpy as np

from skhdkde._density.covariance import shrunk_eigenvalues
from skhdkde._density.whitening import Whitening
from skhdkde._distributed.cross_validation import BlockFolds, whiten_blocks
from skhdkde._distributed.density import BlockDensity
from skhdkde._distributed.tasks import (
    GatherTask,
    Layout,
    PairsTask,
    ScatterTask,
    Split,
    SummaryTask,
)
from skhdkde._fit import Fitted, by_folds, kernels_of, structure_of, within
from skhdkde._pairwise.points import indistinct_sq, scale_for, useful_center
from skhdkde._selection.cross_validation import search_structures
from skhdkde._selection.rules import (
    N_BANDWIDTHS,
    N_QUERIES,
    REFERENCE_RULES,
    LeaveOneOut,
    queried_bandwidth,
    reference_bandwidth,
)
from skhdkde._utils.hashing import find_hashes
from skhdkde._utils.random import sampling_ranks, seed_from
from skhdkde._utils.validation import ALL_ZERO, check_bandwidth

# From which random samples of the distinct points are taken.
N_CANDIDATES, MOST_CANDIDATES = 2**16, 2**20
# Share of rows seen once among these, below which hardly any distinct one is missing.
LARGEST_UNSEEN = 0.01
# Its square, times the number of points, is a float64; so is its inverse's.
LARGEST_ENTRY = 1e145


class Blocks:
    """What is known of the blocks of training points before anything is fitted.

    Parameters
    ----------
    run : callable
    n_features : int
    dtype : dtype
    weighted : bool
    estimator : DaskHighDimKernelDensity

    Attributes
    ----------
    sizes : ndarray of int of shape (n_blocks, 2)
        Rows, and those of positive weight.
    totals : ndarray of shape (n_blocks,)
        Weights, relative to the heaviest point.
    backends : set of str
    moments : Moments
    layout : Layout
        Of the textbook's density.
    """

    def __init__(self, run, n_features, dtype, sizes, weighted, estimator):
        self.run, self.n_features, self.dtype = run, n_features, np.dtype(dtype)
        self.sizes, self.weighted = sizes, weighted
        self.engine = {"backend": estimator.backend, "n_jobs": estimator.n_jobs or 1}
        self._seed, self._backend = seed_from(estimator.random_state), estimator.backend
        survey = self._survey(N_CANDIDATES)
        if survey.moments is None:
            raise ValueError(
                ALL_ZERO
                if sizes[:, 0].any()
                else "X must have at least one row; all of its blocks are empty."
            )
        largest = survey.moments.largest.max()
        if largest > LARGEST_ENTRY or 0.0 < largest < 1.0 / LARGEST_ENTRY:
            raise ValueError(
                f"X has entries up to {largest:.1e}, whose squares are beyond float64; "
                "multiply it by a factor."
            )
        self.moments, self.backends = survey.moments, survey.backends
        self.n_points, self.heaviest = self.moments.n_points, self.moments.heaviest
        self.totals = survey.totals[:, 0] * (survey.totals[:, 1] / self.heaviest)
        self._candidates = survey.candidates
        plain, scale = survey.unweighted, scale_for(self.moments.largest.max(), dtype)
        mean = plain.mean * scale
        mean_sq = plain.variance.sum() * scale**2 + mean @ mean
        center = useful_center(mean, mean_sq)
        self.layout = Layout(self.dtype, scale, self.heaviest, center=center)

    def _survey(self, n_candidates):
        options = self.n_features, self.dtype, self._backend, self._seed, n_candidates
        pairs = zip(self._before, self.sizes[:, 0].tolist(), strict=True)
        return self.run(SummaryTask(*options), [(*before, rows) for before, rows in pairs])

    @property
    def _before(self):
        """Number of points in the blocks before each."""
        return [(int(n),) for n in np.cumsum(self.sizes[:, 1]) - self.sizes[:, 1]]

    def draw(self, count, layout=None):
        """Distinct points at random.

        Parameters
        ----------
        count : callable
            How many, given how many distinct points there are.
        layout : Layout, default=None
            Of whose points the largest norm is sought, if it is.

        Returns
        -------
        Drawn
        """
        layout = layout or self.layout
        rank, index, hashes = self._candidates
        order = np.argsort(rank)
        index, hashes = index[order], hashes[order]
        distinct, place = np.unique(hashes, return_inverse=True)
        # in order of priority, so that the first are those whose rows will be wanted
        early = np.full(len(distinct), len(hashes))
        np.minimum.at(early, place, np.arange(len(hashes)))
        distinct = distinct[np.argsort(early)]
        n_rows = min(count(self.n_points), len(distinct))
        found = self.run(GatherTask(layout, distinct, n_rows), self._before)
        place = find_hashes(hashes, distinct)[1]
        # only first copies count; of the others there is a share like that in the sample
        first = np.flatnonzero(found.index[place] == index)
        n_distinct = len(first)
        if len(index) < self.n_points:
            n_distinct = round(self.n_points * n_distinct / len(index))
            n_distinct = max(n_distinct, len(distinct))
            few = len(first) < count(n_distinct)
            unseen = np.mean(np.bincount(place) == 1) > LARGEST_UNSEEN
            if few and unseen and len(index) < MOST_CANDIDATES:
                self._candidates = self._survey(8 * len(index)).candidates
                return self.draw(count, layout)
            if few:  # most candidates are copies: of all that there are, nearly
                place = np.argsort(sampling_ranks(found.index, self._seed))
                first = np.arange(len(place))
        chosen = place[first[: count(n_distinct)]]
        rows = found.rows
        if chosen.max() < n_rows:
            rows = rows[chosen]  # all of the first were fetched, in order
        else:
            again = GatherTask(layout, distinct[chosen], len(chosen))
            rows = self.run(again, self._before).rows
        return Drawn(
            rows,
            distinct[chosen],
            found.index[chosen],
            found.weights[chosen],
            found.others[chosen],
            n_distinct,
            found.largest_norm,
        )


@dataclasses.dataclass
class Drawn:
    """Distinct points at random, in random order.

    Attributes
    ----------
    X : ndarray of shape (n_drawn, n_features)
    hashes : ndarray of uint64 of shape (n_drawn,)
    index : ndarray of int of shape (n_drawn,)
        Of each among the points of positive weight.
    weights, others : ndarray of shape (n_drawn,)
        Of all copies, and of all other points, relative to the heaviest point.
    n_distinct : int
        Of all points; estimated if there are more than could be looked at.
    largest_norm : float
    """

    X: np.ndarray
    hashes: np.ndarray
    index: np.ndarray
    weights: np.ndarray
    others: np.ndarray
    n_distinct: int
    largest_norm: float


class PointsSummary:
    """All training points, as far as rules and reductions ask for them.

    See :class:`~skhdkde._points.TrainingPoints`.
    """

    sq_factor = None

    def __init__(self, blocks, layout, moments, largest_norm=0.0):
        self.shape = self.n_points, _ = blocks.n_points, blocks.n_features
        self.layout, self.moments = layout, moments
        self.dtype, self.scale = layout.dtype, layout.scale
        self.smallest_weight = moments.lightest / moments.heaviest
        self.weights = True if blocks.weighted else None  # whether there are any
        self.largest_norm = largest_norm
        size = 0.0 if layout.whitening is None else largest_norm
        self.indistinct = indistinct_sq(size, self.dtype)

    def mean_square_spread(self):
        return float(self.moments.variance.sum() * self.scale**2)

    def effective_number(self):
        if self.weights is None:
            return self.n_points
        return self.moments.total**2 / self.moments.total_sq


class BlockLeaveOneOut(LeaveOneOut):
    """Distinct training points as queries, each without itself."""

    def __init__(self, blocks, whole, kernel):
        drawn = blocks.draw(lambda n_distinct: min(n_distinct, N_QUERIES), whole.layout)
        self.blocks, self.X, self.hashes = blocks, drawn.X, drawn.hashes
        self.n_copies = blocks.n_points - drawn.n_distinct
        whole.largest_norm = drawn.largest_norm
        whole.shape = drawn.n_distinct, whole.shape[1]
        if self.n_copies:  # merged, they have weights
            whole.weights = True
        rows = np.arange(len(drawn.X))
        self._set(
            whole, kernel, rows, drawn.index, drawn.weights, drawn.others, blocks.engine
        )

    def _reduce(self, reduction, rows, dtype):
        queries, left_out = [self.X[rows]], self.hashes[rows]
        engine = {**self.engine, "dtype": dtype}
        layouts = [self.points.layout]
        task = PairsTask(layouts, [reduction], engine, queries, left_out=left_out)
        return self.blocks.run(task)[0]


def fit_blocks(blocks, estimator):
    """Fit the density that an estimator's parameters describe.

    Returns
    -------
    Fitted
        With a :class:`BlockDensity`.
    """
    structure = structure_of(estimator)
    kernels = kernels_of(estimator, blocks.n_features)
    kernel, search, bandwidth = kernels[0], None, estimator.bandwidth
    if by_folds(estimator, structure, kernels):
        folds = BlockFolds(blocks)
        structure, kernel, search = search_structures(folds, [structure], kernels)
        search = dataclasses.replace(search, n_copies=folds.n_copies)
        bandwidth = search.bandwidth
    part, log_scale, layout = None, 0.0, blocks.layout
    whole = PointsSummary(blocks, layout, blocks.moments)
    if not structure.plain:
        (part,) = whiten_blocks(blocks, structure, Split(), [blocks.moments])
        layout, log_scale = part.layout, part.whitening.log_det
        whole = PointsSummary(blocks, layout, part.moments, part.largest_norm * layout.scale)
    if isinstance(bandwidth, str):
        bandwidth, search = _by_rule(blocks, whole, kernel, bandwidth)
    else:
        bandwidth = check_bandwidth(bandwidth, whole)
    if part is not None:
        largest = structure.largest_bandwidth(kernel, [part])
        bandwidth = within(bandwidth, largest, search is not None, blocks.n_points)
        layout.pull = part.pull(kernel, bandwidth, structure.preserve_variance)
    # anew: for the search copies were made one in it
    whole = PointsSummary(blocks, layout, whole.moments, whole.largest_norm)
    density = BlockDensity(blocks, whole, kernel, bandwidth, log_scale)
    return Fitted(density, structure, search)


def _by_rule(blocks, whole, kernel, rule):
    if rule in REFERENCE_RULES:
        spectrum = functools.partial(_spectrum, blocks, whole)
        return reference_bandwidth(whole, rule, kernel, "bandwidth", spectrum), None
    queries = BlockLeaveOneOut(blocks, whole, kernel)
    return queried_bandwidth(queries, rule, "bandwidth", N_BANDWIDTHS, queries.n_copies)


def _spectrum(blocks, whole):
    """See :func:`~skhdkde._spectrum.covariance_spectrum`."""
    # coordinates about their mean, in scaled units
    whitening, mean = whole.layout.whitening, whole.moments.mean
    if whitening is None:
        whitening = Whitening(mean, np.full(blocks.n_features, whole.scale))
    else:
        whitening = Whitening(whitening.invert(mean[None])[0], whitening.linear * whole.scale)
    (scatter,) = blocks.run(ScatterTask(Split(), [whitening], blocks.dtype, blocks.heaviest))
    covariance, error = scatter.covariance()
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    return shrunk_eigenvalues(eigenvalues, error)
