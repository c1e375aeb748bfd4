"""The comparison of structures on folds, for training points in blocks.

As on one machine, a fold's mean log density is taken with a structure fitted to the
points outside of it. Every block knows by their row hashes which of its points are in a
fold; and what is fitted follows from moments.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from skhdkde._density import (
    Component,
    ProjectedComponent,
    ProjectedWhitened,
    ProjectedWhitening,
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
    ProjectedLayout,
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

    component_class: ClassVar = Component

    whitening: Whitening
    spread: float  # see :class:`~skhdkde._density.Whitened`
    layout: PointsLayout  # of the coordinates
    moments: Moments  # of the coordinates
    largest_norm: float  # of the coordinates

    def largest_entry(self):
        """Return the largest coordinate of a point or of a query that is one."""
        return self.moments.largest.max()

    def layout_for(self, kernel=None, bandwidth=np.nan, shrinkage=1.0):
        """Return the layout of points for sums of kernels; without one, of any."""
        return dataclasses.replace(self.layout, shrinkage=shrinkage)

    def grid_sums(self, settings, tol, dtype, layout):
        """Return the reduction to sums for kernel settings over points of a layout."""
        return KernelGridSums(settings, tol, dtype=dtype)

    def log_factors(self, X, layout):
        """Return logs of what the sums of `grid_sums` are multiplied by at queries X."""
        return self.whitening.log_det


@dataclass(frozen=True)
class ProjectedWhitenedBlocks(ProjectedWhitened, WhitenedBlocks):
    """Training points in blocks whose kernels are projected to the unit sphere."""

    component_class: ClassVar = ProjectedComponent

    @property
    def radius(self):
        """Root of the mean squared norm of the points about the centre of the sphere."""
        mean_sq = self.moments.variance + (self.moments.mean + self.origin) ** 2
        return float(np.sqrt(mean_sq.sum()))

    def largest_entry(self):
        return super().largest_entry() + np.abs(self.origin).max()

    def layout_for(self, kernel=None, bandwidth=np.nan, shrinkage=1.0):
        dtype = self.layout.dtype
        return ProjectedLayout(
            dtype,
            scale_for(self.largest_entry(), dtype),
            whitening=ProjectedWhitening(self.whitening, self.radius),
            shrinkage=shrinkage,
            coordinates=self.whitening,
            kernel=kernel,
            bandwidth=bandwidth,
        )

    def log_factors(self, X, layout):
        whitening = layout.whitening
        return whitening.log_factors(whitening.norms(X))[:, None]


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
    projected = structure.on_sphere and not structure.plain
    kind, found = ProjectedWhitenedBlocks if projected else WhitenedBlocks, []
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
        found.append(kind(whitening, spread, layout, extent, largest_norm))
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
        self.layouts = [component.layout_for() for component in fitted]
        self.dtype: np.dtype = np.dtype(np.float64)
        if self._is_sharp_in_float32(max(c.largest_entry() for c in fitted)):
            self.dtype = np.dtype(np.float32)
            self.layouts = [_as_float32(layout) for layout in self.layouts]

    def _mean_squares(self):
        moments = [component.moments for component in self.fitted]
        return [np.mean(m.variance + m.mean**2) for m in moments]

    def _nearest_sq(self):
        queries = [q[:N_PILOT] for q in self.folds.queries]
        reductions = [KSmallest(1, HELD_OUT_NEAREST_TOL) for _ in self.fitted]
        found = self._reduce(reductions, queries, self.folds.split)
        pairs = zip(found, self.layouts, strict=True)
        return [sq[:, 0] / layout.scale**2 for sq, layout in pairs]

    def log_density(self, trials, places=None):
        return self._log_density(trials, self.folds.some(places), self.folds.split)

    def pilot(self, trials):
        queries = [self.folds.queries[0][:N_PILOT]]
        return self._log_density(trials, queries, FoldSplit(self.folds.split.folds[:1]))

    def _log_density(self, trials, queries, split):
        """Return log densities at the queries of some folds."""
        # the pilot is of the first fold alone
        folds = list(zip(queries, self.fitted, self.layouts, strict=False))
        reductions, logs = [], []
        for _, component, layout in folds:
            settings = self.settings(trials, component, layout.scale)
            reductions.append(
                component.grid_sums(settings, HELD_OUT_TOL, self.dtype, layout)
            )
        found = self._reduce(reductions, queries, split)
        for log_sums, (X, component, layout) in zip(found, folds, strict=True):
            log_total = np.log(component.moments.total * component.moments.heaviest)
            logs.append(log_sums + component.log_factors(X, layout) - log_total)
        return np.vstack(logs) - self.log_volumes(trials)

    def _reduce(self, reductions, queries, split):
        """Return the results of reductions, one for each fold of a split."""
        layouts, options = self.layouts[: len(queries)], self.blocks.options
        return self.blocks.run(PairsTask(layouts, reductions, options, queries, split))


def _as_float32(layout):
    """Return the layout with coordinates rounded to float32."""
    return dataclasses.replace(layout, whitened_dtype=np.dtype(np.float32))
