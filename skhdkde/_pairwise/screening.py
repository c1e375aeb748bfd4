"""Log sums of float64 data from float32 tiles, and from differences where they matter.

Where a few pairs make up nearly all of a sum, as below the bandwidth ``h_G``, the others
need few digits: their errors count by their share. A tile is a float32 product, which
takes half the time. Pairs whose weighted value is above a threshold are left out of its
sums and made of differences of the coordinates, in float64. If logs of values are wrong
by ``e`` at most, what is left is wrong by ``exp(e) - 1`` times its sum at most; that of
the squared distances in ``e`` is the bound of `error_bound`, of random walks. In rows
where that is above what is promised, once all points are seen, float64 is used after all.
So it is in rows where ``e`` is large: float32 does not say there which points are near,
and values relative to the nearest may be out of range.

A few rows of a block say from some of the tiles where the threshold must be, and whether
so few pairs are above it that this pays. Those tiles may not be like the others: where
far more pairs turn out to be above it, float64 is used for the whole block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skhdkde._pairwise.points import QueryBlock, TrainingPoints, in_range
from skhdkde._pairwise.reductions import LogSumExp
from skhdkde._pairwise.tiles import error_bound
from skhdkde._utils.arrays import finite_or_zero, row_batches
from skhdkde._utils.typing import Device, IntArray

NARROW, WIDE = np.dtype(np.float32), np.dtype(np.float64)
# With fewer features, tiles or rows it does not pay.
LEAST_FEATURES, LEAST_TILES, LEAST_ROWS = 256, 4, 64
# A pair from differences takes the time of so many of a float64 tile. Of the time that
# float32 tiles save this share may go to such pairs.
PAIR_COST, WORTH = 80.0, 0.7
# So many times as many pairs as that are the most.
MOST = 2.0
# Rows that say where thresholds are, and how much less error they are to leave.
N_TRIED, TRIED_TILES, SAFETY, QUANTILE = 16, 4, 1.5, 0.2
# Of the error that is promised, what screening may have.
ALLOWED = 0.9
# Bound on the error of a log of a value, in nats, from which on float32 is of no use.
LARGEST_ERROR = 0.5
# Bound on the error, in eps, of a sum of up to a million terms of a row of numpy's, which
# are added in pairs.
SUMMED = 16.0
# Entries of the differences that are made at once: they stay in the cache.
BATCH = 2**17


class Screening:
    """How a block of queries is visited by float32 tiles.

    A state is one of the reduction, but with two sums a row: of the pairs made of
    differences, and of the others. :meth:`of` returns None where it does not pay.
    """

    share = 0.0  # of the sum of its row that a pair has at least if it is heavy

    def __init__(self, reduction: LogSumExp, queries, points, device: Device):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.device = device
        self.block = queries.in_dtype(NARROW, points)
        rounded = self.block.augmented[:, :-2] * np.float32(-0.5)
        rounded = rounded - (queries.exact - points.center)
        self.shift = np.sqrt(np.einsum("ij,ij->i", rounded, rounded))
        self.shift += points.narrow.largest_shift
        self.errors = np.zeros(len(queries.exact))

    @classmethod
    def of(
        cls, reduction: Any, queries: QueryBlock, points: TrainingPoints, tiles, device
    ):
        """Return the screening of a block of queries over tiles of points, or None."""
        n_rows = len(queries.exact)
        if n_rows < LEAST_ROWS or len(tiles) < LEAST_TILES:
            return None
        if not _possible(reduction, queries, points):
            return None
        tried = np.linspace(0, n_rows - 1, N_TRIED).astype(int)
        few = cls(reduction, queries.subset(tried), points, device)
        share, n_pairs = few.try_tiles(tiles[::TRIED_TILES])
        # later tiles have ever fewer pairs that are nearer than those before
        n_expected = n_pairs * (1.0 / np.arange(1, len(tiles) + 1)).sum()
        n_points = tiles[-1].stop - tiles[0].start
        if n_expected * PAIR_COST > WORTH * 0.5 * n_points:
            return None
        screening = cls(reduction, queries, points, device)
        screening.share = share
        return screening

    def try_tiles(self, tiles: list) -> tuple[float, float]:
        """Return the share that makes pairs heavy, and how many a row has in the mean.

        There are infinitely many if float32 is of no use.
        """
        parts = []
        for cols in tiles:
            values, lowest = self._values(cols, np.inf)
            parts.append((lowest, values.astype(WIDE)))
        if self.lost.mean() > QUANTILE:
            return 0.0, np.inf
        lowest = np.min([low for low, _ in parts], axis=0)
        merge = self.reduction.merge
        nothing = lowest, np.zeros((len(lowest), 1))
        shares = np.hstack([merge(nothing, part)[1] for part in parts])
        shares /= np.clip(shares.sum(axis=1), np.finfo(WIDE).tiny, None)[:, None]
        shares.sort(axis=1)
        errors = np.expm1(np.minimum(self.errors, LARGEST_ERROR))
        allowed = ALLOWED * self.reduction.tol / SAFETY / errors
        n_light = (np.cumsum(shares, axis=1) <= allowed[:, None]).sum(axis=1)
        place = np.maximum(n_light - 1, 0)
        least = float(np.quantile(shares[np.arange(len(place)), place], QUANTILE))
        return least, float((shares > least).sum(axis=1).mean())

    @property
    def lost(self) -> np.ndarray:
        """In which rows float32 is of no use, by the tiles so far."""
        return ~(self.errors <= LARGEST_ERROR)

    def state(self, tiles: list, check: Any) -> tuple[tuple, IntArray]:
        """Return the state of the reduction, and the rows in which it is not sharp."""
        n_rows, n_points = len(self.queries.exact), tiles[-1].stop - tiles[0].start
        most = MOST * WORTH * 0.5 * n_rows * n_points / PAIR_COST
        state: tuple = np.full(n_rows, np.inf), np.zeros((n_rows, 2))
        for cols in tiles:
            check(n_rows * (cols.stop - cols.start))
            values, lowest = self._values(cols, state[0])
            _, before = self.reduction.merge((lowest, np.zeros((n_rows, 2))), state)
            rows, places = self._taken_out(values, before.sum(axis=1))
            most -= len(rows)
            if most < 0.0:
                return self.reduction.start(n_rows), np.arange(n_rows)
            exact = self._exact_values(rows, cols.start + places, lowest)
            exact = np.bincount(rows, exact, n_rows)
            state = lowest, before + np.column_stack([exact, values.sum(axis=1)])
        lowest, sums = state
        total = sums.sum(axis=1)
        errors = np.expm1(np.minimum(self.errors, LARGEST_ERROR)) * sums[:, 1]
        sharp = ~self.lost & (errors <= ALLOWED * self.reduction.tol * total)
        return (lowest, total[:, None]), np.flatnonzero(~sharp)

    def _taken_out(self, values, before):
        """Return rows and places of heavy pairs, whose values are set to 0.

        ``before`` are the sums of the tiles before.
        """
        threshold = self.share * (before + values.sum(axis=1))
        heavy = np.flatnonzero(values > threshold[:, None].astype(NARROW))
        values.ravel()[heavy] = 0.0
        return np.divmod(heavy, values.shape[1])

    def _values(self, cols, lowest):
        """Return weighted values in float32, and the energies that they are relative to.

        These are those given, or the least of the tile in rows where they are lower.
        Values are 0 in rows that are lost.
        """
        kernel, (h,) = self.reduction.kernel, self.reduction.bandwidths
        sq = self.device.product(self.block.augmented, self.points.narrow.augmented[cols])
        self.block.exclude(sq, cols, np.inf)
        lowest = np.minimum(sq.min(axis=1).astype(WIDE), lowest)
        reference, eps = finite_or_zero(lowest), float(np.finfo(NARROW).eps)
        errors = kernel.screened_errors(
            reference, self._sq_errors(reference), h, eps, self.reduction.margin
        )
        np.maximum(self.errors, errors + SUMMED * eps, out=self.errors)
        shifted = kernel.shift(sq, reference)
        with np.errstate(divide="ignore", invalid="ignore"):  # in rows that are lost
            values = kernel.values(shifted, h, shifted, reference)
        if self.points.weights is not None:
            values *= self.points.weight_block(cols, NARROW)
        values[self.lost] = 0.0
        return values, lowest

    def _sq_errors(self, nearest_sq):
        """Return bounds on errors of the squared distances that matter, by row."""
        reach_sq = self.points.reach(self.reduction, nearest_sq)
        block = self.block
        delta = error_bound(
            block.sq_norms, block.rounding, self.points, NARROW, nearest_sq, reach_sq
        )
        # what was rounded to float32 is moved, each row and each point
        return delta + self.shift * (2.0 * np.sqrt(reach_sq) + self.shift)

    def _exact_values(self, rows, points, lowest):
        """Return weighted values of pairs from differences, in float64."""
        kernel, (h,) = self.reduction.kernel, self.reduction.bandwidths
        sq = np.empty(len(rows))
        for batch in row_batches(len(rows), self.points.shape[1], BATCH):
            x = self.queries.exact[rows[batch]]
            x -= self.points.exact[points[batch]]
            sq[batch] = np.einsum("ij,ij->i", x, x)
        reference, energy = lowest[rows], sq[:, None]
        shifted = kernel.shift(energy, reference)
        values = kernel.values(shifted, h, shifted, reference)[:, 0]
        return (
            values
            if self.points.weights is None
            else values * self.points.weights[points]
        )


def _possible(reduction, queries, points):
    """Return whether float32 tiles can have all that a reduction needs."""
    if type(reduction) is not LogSumExp or len(reduction.bandwidths) > 1:
        return False
    if queries.dtype != WIDE or points.dtype != WIDE or points.shape[1] < LEAST_FEATURES:
        return False
    if points.tile_class is not None or points.sq_factor is not None:
        return False
    if not points.fit_float32(reduction.smallest_bandwidth):
        return False
    return reduction.kernel.screened and in_range(queries.exact).all()
