"""The comparison of structures on folds, for training points in blocks.

As on one machine, a fold's mean log density is taken with a structure fitted to the
points outside of it. Every block knows by their row hashes which of its points are in a
fold; and what is fitted follows from moments.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skhdkde._density import (
    Whitened,
    Whitening,
    centering,
    full_whitening,
    shrink,
    standardizing,
)
from skhdkde._distributed.tasks import (
    ExtentTask,
    FoldSplit,
    PairsTask,
    PointsLayout,
    ScatterTask,
)
from skhdkde._fit import check_foldable
from skhdkde._pairwise import KernelGridSums, KSmallest, scale_for
from skhdkde._selection import (
    HELD_OUT_NEAREST_TOL,
    HELD_OUT_TOL,
    N_NEIGHBORS,
    N_PILOT,
    BaseFolds,
    BaseHeldOut,
    Distinct,
    fold_ends,
    warn_of_near_duplicates,
)
from skhdkde._utils.moments import Moments

if TYPE_CHECKING:
    from skhdkde._distributed.fit import Blocks


@dataclass(frozen=True)
class WhitenedBlocks(Whitened):
    """Training points in blocks, in one whitening: what is known of them all."""

    whitening: Whitening
    spread: float  # see :class:`~skhdkde._density.Whitened`
    layout: PointsLayout
    moments: Moments  # of the coordinates
    largest_norm: float  # of the coordinates


def whiten_blocks(blocks, structure, split, moments, fallback=None):
    """Return the component of a structure fitted to the points outside of each fold.

    Parameters
    ----------
    blocks : Blocks
    structure : Structure
        Of one component, without local scales.
    split : FoldSplit
    moments : list of Moments
        Of the points outside of each fold, in data units.
    fallback : Whitening, default=None
        See :func:`~skhdkde._density.standardizing`.

    Returns
    -------
    list of WhitenedBlocks
    """
    if structure.covariance_type == "spherical":
        whitenings = [centering(m) for m in moments]
    else:
        whitenings = [standardizing(m, fallback) for m in moments]
    if structure.covariance_type == "full":
        task = ScatterTask(split, whitenings, blocks.dtype)
        center = np.zeros(blocks.n_features)
        whitenings = [
            full_whitening(standardization, center, shrink(*scatter.covariance()))
            for standardization, scatter in zip(whitenings, blocks.run(task), strict=True)
        ]
    found = []
    extents = blocks.run(ExtentTask(split, whitenings, blocks.dtype))
    for whitening, (extent, largest_norm) in zip(whitenings, extents, strict=True):
        spread = 1.0
        if structure.covariance_type == "spherical":
            spread = float(np.sqrt(extent.variance.mean()))
        layout = PointsLayout(
            blocks.dtype,
            scale_for(extent.largest.max(), blocks.dtype),
            whitening=whitening,
        )
        found.append(WhitenedBlocks(whitening, spread, layout, extent, largest_norm))
    return found


class BlockFolds(BaseFolds):
    """Splits of the distinct training points, with a few of each fold as queries."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        drawn = blocks.draw(lambda n_distinct: fold_ends(n_distinct)[-1])
        self.shape = drawn.n_distinct, blocks.n_features
        self.n_duplicates = blocks.n_points - drawn.n_distinct
        check_foldable(Distinct(None, None, None, drawn.n_distinct, self.n_duplicates))
        layout = blocks.points().layout
        near = PairsTask(
            [layout],
            [KSmallest(N_NEIGHBORS, HELD_OUT_NEAREST_TOL)],
            blocks.options,
            [drawn.X[:N_PILOT]],
            left_out=drawn.hashes[:N_PILOT],
        )
        warn_of_near_duplicates(np.sqrt(blocks.run(near)[0]), layout.scale, "kl")
        ends = fold_ends(drawn.n_distinct)[:-1]
        self.queries = np.split(drawn.X, ends)
        self.query_weights = drawn.weights
        self.split = FoldSplit(tuple(np.split(drawn.hashes, ends)))
        in_data_units = [None] * len(self.queries)
        task = ExtentTask(self.split, in_data_units, blocks.dtype)
        self.moments = [moments for moments, _ in blocks.run(task)]

    def held_out(self, structure):
        """Return log densities of the folds for a structure fitted to other points."""
        return BlockHeldOut(self, structure)


class BlockHeldOut(BaseHeldOut):
    """Held-out log density of the folds, for training points in blocks."""

    def __init__(self, folds, structure):
        blocks, fallback = folds.blocks, None
        if structure.covariance_type in ("diag", "full"):
            fallback = standardizing(blocks.moments)
        fitted = whiten_blocks(blocks, structure, folds.split, folds.moments, fallback)
        super().__init__(
            structure, [[component] for component in fitted], fitted[0].n_features
        )
        self.folds, self.blocks, self.fitted = folds, blocks, fitted
        self.dtype: np.dtype = np.dtype(np.float64)
        if self._is_sharp_in_float32(max(c.moments.largest.max() for c in fitted)):
            self.dtype = np.dtype(np.float32)
            self.fitted = [_as_float32(component) for component in fitted]

    def _mean_squares(self):
        moments = [component.moments for component in self.fitted]
        return [np.mean(m.variance + m.mean**2) for m in moments]

    def _nearest_sq(self):
        queries = [q[:N_PILOT] for q in self.folds.queries]
        reductions = [KSmallest(1, HELD_OUT_NEAREST_TOL) for _ in self.fitted]
        found = self._reduce(reductions, queries, self.folds.split)
        pairs = zip(found, self.fitted, strict=True)
        return [sq[:, 0] / component.layout.scale**2 for sq, component in pairs]

    def log_density(self, trials, places=None):
        return self._log_density(trials, self.folds.some(places), self.folds.split)

    def pilot(self, trials):
        queries = [self.folds.queries[0][:N_PILOT]]
        return self._log_density(trials, queries, FoldSplit(self.folds.split.folds[:1]))

    def _log_density(self, trials, queries, split):
        """Return log densities at the queries of some folds."""
        fitted = self.fitted[: len(queries)]
        reductions = [
            KernelGridSums(
                self.settings(trials, component, component.layout.scale),
                HELD_OUT_TOL,
                dtype=self.dtype,
            )
            for component in fitted
        ]
        found, logs = self._reduce(reductions, queries, split), []
        for log_sums, component in zip(found, fitted, strict=True):
            log_total = np.log(component.moments.total * component.moments.heaviest)
            logs.append(log_sums + component.whitening.log_det - log_total)
        return np.vstack(logs) - self.log_volumes(trials)

    def _reduce(self, reductions, queries, split):
        """Return the results of reductions, one for each fold of a split."""
        layouts = [component.layout for component in self.fitted[: len(queries)]]
        options = self.blocks.options
        return self.blocks.run(PairsTask(layouts, reductions, options, queries, split))


def _as_float32(component):
    """Return the component with coordinates rounded to float32."""
    layout = dataclasses.replace(component.layout, whitened_dtype=np.dtype(np.float32))
    return dataclasses.replace(component, layout=layout)
