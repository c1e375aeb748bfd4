"""Training points in blocks, as a fit needs them.

Blocks themselves are not looked at here: all is made of what tasks say of them, merged.
``run(task, extras=None)`` returns that; how, it knows alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from skhdkde._density import (
    FEW,
    MOST_OF_VARIANCE,
    N_TYPICAL,
    TypicalRows,
    UnitSphere,
    Whitening,
    constant_at,
    plain_component,
    scatter_spectrum,
)
from skhdkde._distributed.cross_validation import BlockFolds, whiten_blocks
from skhdkde._distributed.density import BlockDensity, PointsSummary
from skhdkde._distributed.tasks import (
    FarRowsTask,
    FoldSplit,
    GatherTask,
    PairsTask,
    PointsLayout,
    RowNumbersTask,
    ScatterTask,
    SummaryTask,
    UnitRowsTask,
)
from skhdkde._fit import Training
from skhdkde._pairwise import ComputeOptions, KSmallest, scale_for, useful_center
from skhdkde._selection import (
    N_BANDWIDTHS,
    N_NEIGHBORS,
    N_QUERIES,
    REFERENCE_RULES,
    SMALLEST_FLOAT32,
    Choice,
    Distinct,
    LeaveOneOut,
    queried_bandwidth,
    reference_bandwidth,
    warn_of_near_duplicates,
)
from skhdkde._utils.hashing import find_hashes
from skhdkde._utils.random import lowest, sampling_ranks, seed_from
from skhdkde._utils.validation import ALL_ZERO, check_squares

# From which random samples of the distinct points are taken.
N_CANDIDATES, MOST_CANDIDATES = 2**16, 2**20
# Share of rows seen once among these, below which hardly any distinct one is missing.
LARGEST_MISSED = 0.01


@dataclass(frozen=True)
class Drawn:
    """Distinct points at random, in random order."""

    X: np.ndarray  # (n_drawn, n_features)
    hashes: np.ndarray  # (n_drawn,)
    index: np.ndarray  # (n_drawn,), of each among the points of positive weight
    # (n_drawn,), relative weight of all duplicates, and of all other points
    weights: np.ndarray
    others: np.ndarray
    n_distinct: int  # of all points; estimated if there are more than could be looked at
    largest_norm: float  # in scaled units


class Blocks(Training):
    """What is known of the blocks of training points, and what a fit makes of them.

    Parameters
    ----------
    run : callable
        ``run(task, extras=None)`` returns the merged results of a task for all blocks.
    n_features : int
    dtype : dtype
    sizes : ndarray of int of shape (n_blocks, 2)
        Rows, and those of positive weight.
    weighted : bool
    estimator : DaskHighDimKernelDensity

    Attributes
    ----------
    totals : ndarray of shape (n_blocks,)
        Relative weight of each block.
    backends : set of str
        In use by the workers.
    moments : Moments
        In data units.
    """

    def __init__(self, run, n_features, dtype, sizes, weighted, estimator):
        self.run, self.n_features, self.dtype = run, n_features, np.dtype(dtype)
        self.sizes, self.weighted = sizes, weighted
        self._far_rows_checked = False
        self.options = ComputeOptions(estimator.backend, estimator.n_jobs or 1)
        self._seed = seed_from(estimator.random_state)
        summary = self._summary(N_CANDIDATES)
        if summary.moments is None:
            raise no_points(sizes)
        largest = summary.moments.largest.max()
        check_squares(largest)
        self.moments, self.backends = summary.moments, summary.backends
        self.n_points = self.moments.n_points
        self.shape = self.n_points, n_features
        self.totals = summary.totals
        self._candidates = summary.candidates
        plain, scale = summary.unweighted, scale_for(largest, dtype)
        if estimator.support == "sphere":
            scale = 1.0  # kernels on the sphere are not those of another size
        mean = plain.mean * scale
        mean_sq = plain.variance.sum() * scale**2 + mean @ mean
        center = useful_center(mean, mean_sq, self.dtype)
        self._layout = PointsLayout(self.dtype, scale, center=center)

    def _summary(self, n_candidates):
        """Return the merged summary of all blocks, with a sample of so many points."""
        task = SummaryTask(
            self.n_features, self.dtype, self.options, self._seed, n_candidates
        )
        pairs = zip(self._before, self.sizes[:, 0].tolist(), strict=True)
        return self.run(task, [(*before, rows) for before, rows in pairs])

    @property
    def _before(self):
        """Number of points in the blocks before each, as a task takes it."""
        return [(int(n),) for n in np.cumsum(self.sizes[:, 1]) - self.sizes[:, 1]]

    @property
    def _rows_before(self):
        """Number of rows in the blocks before each."""
        return np.cumsum(self.sizes[:, 0]) - self.sizes[:, 0]

    def row_numbers(self, index):
        """Return which rows of X some of the points of positive weight are."""
        if (self.sizes[:, 0] == self.sizes[:, 1]).all():
            return index
        pairs = zip(self._before, self._rows_before.tolist(), strict=True)
        found = self.run(RowNumbersTask(index), [(*b, rows) for b, rows in pairs])
        return found[np.argsort(found[:, 0]), 1]

    def check_far_rows(self):
        """Warn of few rows that decide the variance of a feature, as on one machine.

        Points are looked at only if their moments allow that there are such rows.
        """
        if self._far_rows_checked:
            return
        self._far_rows_checked = True
        m, few = self.moments, max(FEW * self.n_points, 1.0)
        farthest = m.largest + np.abs(m.mean) + np.sqrt(m.variance)  # from the median
        possible = few * farthest**2 >= MOST_OF_VARIANCE * m.squares
        if not (possible & (m.squares > 0.0)).any():
            return
        typical = TypicalRows.of(self.as_given())
        before = [(int(n),) for n in self._rows_before]
        found = self.run(FarRowsTask(typical, self.dtype), before)
        found.warn(typical, self.feature_numbers)

    def as_given(self):
        ranks, _, hashes = self._candidates
        wanted, place = np.unique(hashes[lowest(ranks, N_TYPICAL)], return_inverse=True)
        task = GatherTask(self._layout, wanted, len(wanted))
        return self.run(task, self._before).rows[place]

    def draw(self, count, layout=None):
        """Draw distinct points at random.

        Parameters
        ----------
        count : callable
            How many, given how many distinct points there are.
        layout : PointsLayout, default=None
            Of whose points the largest norm is sought, if it is.

        Returns
        -------
        Drawn
        """
        layout = layout or self._layout
        ranks, index, hashes = self._candidates
        order = np.argsort(ranks)
        index, hashes = index[order], hashes[order]
        distinct = _in_order(hashes)
        n_gathered = min(count(self.n_points), len(distinct))
        found = self.run(GatherTask(layout, distinct, n_gathered), self._before)
        place = find_hashes(hashes, distinct)[1]
        # only first duplicates count; of the others there is a share as in the sample
        first = np.flatnonzero(found.index[place] == index)
        n_distinct = len(first)
        if len(index) < self.n_points:
            n_distinct = round(self.n_points * n_distinct / len(index))
            n_distinct = max(n_distinct, len(distinct))
            few = len(first) < count(n_distinct)
            missed = np.mean(np.bincount(place) == 1) > LARGEST_MISSED
            if few and missed and len(index) < MOST_CANDIDATES:
                self._candidates = self._summary(8 * len(index)).candidates
                return self.draw(count, layout)
            if few:  # most candidates are duplicates: of all that there are, nearly
                place = np.argsort(sampling_ranks(found.index, self._seed))
                first = np.arange(len(place))
        chosen = place[first[: count(n_distinct)]]
        return Drawn(
            self._rows_of(chosen, found, n_gathered, layout, distinct),
            distinct[chosen],
            found.index[chosen],
            found.weights[chosen],
            found.others[chosen],
            n_distinct,
            found.largest_norm,
        )

    def _rows_of(self, chosen, found, n_gathered, layout, distinct):
        """Return the rows of chosen points, of which the first were gathered."""
        if chosen.max() < n_gathered:
            return found.rows[chosen]
        again = GatherTask(layout, distinct[chosen], len(chosen))
        return self.run(again, self._before).rows

    def constant_features(self):
        """Return the constant features; None if there are none, or all are."""
        moments = self.moments
        columns = np.flatnonzero(~moments.varies)
        return constant_at(columns, moments.mean[columns], self.n_features)

    def folds(self):
        self.check_far_rows()
        return BlockFolds(self)

    def whiten(self, structure):
        self.check_far_rows()
        return whiten_blocks(self, structure, FoldSplit(), [self.moments])

    def points(self, component=None):
        if component is None:
            return PointsSummary(self._layout, self.moments, self.shape, self.weighted)
        return self._summary_of(component, component.layout)

    def _summary_of(self, component, layout):
        """Return the summary of the points of a component in a layout."""
        return PointsSummary(
            layout,
            component.moments,
            self.shape,
            self.weighted,
            component.largest_norm * layout.scale,
        )

    def by_rule(self, points, rule, kernel):
        if rule in REFERENCE_RULES:
            spectrum = functools.partial(self._spectrum, points)
            return Choice(
                reference_bandwidth(points, rule, kernel, "bandwidth", spectrum)
            )
        queries = BlockLeaveOneOut(self, points, kernel, rule)
        return queried_bandwidth(
            queries, rule, "bandwidth", N_BANDWIDTHS, queries.distinct
        )

    def typical_deviation(self):
        return float(np.median(np.sqrt(self.moments.variance)))

    def _spectrum(self, points):
        """Return the eigenvalues of the covariance, in squared scaled units."""
        # coordinates about their mean, in scaled units
        whitening, mean = points.whitening, points.moments.mean
        if whitening is None:
            whitening = Whitening(mean, np.full(self.n_features, points.scale))
        else:
            center = whitening.invert(mean[None])[0]
            whitening = Whitening(center, whitening.linear * points.scale)
        task = ScatterTask(FoldSplit(), [whitening], self.dtype)
        return scatter_spectrum(self.run(task)[0])

    def density(self, structure, components, kernel, bandwidth):
        if components is None:
            component = plain_component(self.points(), kernel, bandwidth)
        else:
            (whitened,) = components
            preserve = structure.preserve_variance
            shrinkage = whitened.shrinkage(kernel, bandwidth, preserve)
            layout = whitened.layout_for(kernel, bandwidth, shrinkage)
            component = whitened.component_class(
                self._summary_of(whitened, layout),
                kernel,
                bandwidth,
                log_det=whitened.whitening.log_det,
            )
        return BlockDensity(component, self.totals, self.options)


class BlockLeaveOneOut(LeaveOneOut):
    """Distinct training points in blocks as queries, each without itself."""

    def __init__(self, blocks, points, kernel, rule):
        drawn = blocks.draw(lambda n_distinct: min(n_distinct, N_QUERIES), points.layout)
        self.blocks, self.X, self.hashes = blocks, drawn.X, drawn.hashes
        n_exact = blocks.n_points - drawn.n_distinct
        summary = PointsSummary(
            points.layout,
            points.moments,
            (drawn.n_distinct, blocks.n_features),
            blocks.weighted or n_exact > 0,  # merged, they have weights
            drawn.largest_norm,
        )
        rows, weights = np.arange(len(drawn.X)), drawn.weights
        self.distinct = Distinct(None, None, None, drawn.n_distinct, n_exact)
        self.rule = rule
        self._set(
            summary, kernel, rows, drawn.index, weights, drawn.others, blocks.options
        )

    def row_numbers(self, which):
        return self.blocks.row_numbers(self.index[which])

    def _neighbors_sq(self, rows, tol, dtype, k=1):
        # in the one pass that there is for the nearest point
        reduction = KSmallest(max(k, N_NEIGHBORS), tol, dtype)
        neighbors_sq = self._reduce(reduction, rows)
        if dtype == np.float64 or neighbors_sq.min() > SMALLEST_FLOAT32:
            distances = np.sqrt(neighbors_sq[:, :N_NEIGHBORS])
            warn_of_near_duplicates(distances, self.points.scale, self.rule)
        return neighbors_sq

    def _reduce(self, reduction, rows):
        task = PairsTask(
            [self.points.layout],
            [reduction],
            self.blocks.options,
            [self.X[rows]],
            left_out=self.hashes[rows],
        )
        return self.blocks.run(task)[0]


def sphere_of(run, n_features, dtype, sizes):
    """Return the sphere that the points in blocks are on.

    Parameters are as those of :class:`Blocks`.

    Raises
    ------
    ValueError
        If a row is not of unit norm, or there is no point of positive weight.
    """
    rows = sizes[:, 0]
    before = np.cumsum(rows) - rows
    more = list(zip(before.tolist(), rows.tolist(), strict=True))
    ranges = run(UnitRowsTask(n_features, np.dtype(dtype)), more)
    if ranges is None:
        raise no_points(sizes)
    return UnitSphere.without_features(ranges.constant(dtype), n_features)


def no_points(sizes):
    """Return the error for blocks of these sizes without a point of positive weight."""
    return ValueError(
        ALL_ZERO
        if sizes[:, 0].any()
        else "X must have at least one row; all of its blocks are empty."
    )


def _in_order(hashes):
    """Return distinct hashes in the order of their first occurrence."""
    distinct, first = np.unique(hashes, return_index=True)
    return distinct[np.argsort(first)]
