"""The search over structures for training points in blocks.

As in ``_structure.py``, a fold's mean log density is taken with a structure fitted to
the points outside of it. Every block knows by their hashes which of its points are in a
fold; and what is fitted follows from moments.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._density.components import Whitened
from skhdkde._density.covariance import make_whitening, scales, shrunk
from skhdkde._density.whitening import Whitening
from skhdkde._distributed.tasks import ExtentTask, Layout, PairsTask, ScatterTask, Split
from skhdkde._fit import check_foldable
from skhdkde._pairwise.kernel_grid import KernelGridSums
from skhdkde._pairwise.points import scale_for
from skhdkde._pairwise.reductions import KSmallest
from skhdkde._selection.cross_validation import (
    N_PILOT,
    NEAREST_TOL,
    TOL,
    HeldOut,
    fold_ends,
)


@dataclass
class WhitenedBlocks(Whitened):
    """Points in blocks, in one whitening: what is known of them all.

    Attributes
    ----------
    whitening : Whitening
    layout : Layout
    moments : Moments
        Of the coordinates.
    largest_norm : float
        Of the coordinates.
    spread : float
        See :class:`~skhdkde._parts.WhitenedPoints`.
    """

    whitening: Whitening
    layout: Layout
    moments: Any
    largest_norm: float
    spread: float


def whiten_blocks(blocks, structure, split, moments, whole=None):
    """The part of a structure fitted to the points outside of each fold.

    Parameters
    ----------
    blocks : Blocks
    structure : Structure
        Of one component, without local scales.
    split : Split
    moments : list of Moments
        Of the points outside of each fold, in data units.
    whole : tuple, default=None
        See :func:`~skhdkde._covariance.fit_whitenings`.

    Returns
    -------
    list of WhitenedBlocks
    """
    if structure.covariance_type == "spherical":
        whitenings = [Whitening(m.mean, np.ones(blocks.n_features)) for m in moments]
    else:
        known = [_standardized(m, whole) for m in moments]
        whitenings = [Whitening(location, 1.0 / scale) for location, scale in known]
    if structure.covariance_type == "full":
        task = ScatterTask(split, whitenings, blocks.dtype, blocks.heaviest)
        zero = np.zeros(blocks.n_features)
        whitenings = [
            make_whitening(*standard, zero, shrunk(*scatter.covariance()))
            for standard, scatter in zip(known, blocks.run(task), strict=True)
        ]
    parts = []
    extents = blocks.run(ExtentTask(split, whitenings, blocks.dtype))
    for whitening, (found, largest) in zip(whitenings, extents, strict=True):
        spread = 1.0
        if structure.covariance_type == "spherical":
            spread = float(np.sqrt(found.variance.mean()))
        scale = scale_for(found.largest.max(), blocks.dtype)
        layout = Layout(blocks.dtype, scale, blocks.heaviest, whitening=whitening)
        parts.append(WhitenedBlocks(whitening, layout, found, largest, spread))
    return parts


def _standardized(moments, whole):
    if moments.n_points == 1:
        raise ValueError("a covariance needs at least two points in X, got n_samples=1.")
    return scales(moments.mean.copy(), moments.variance, moments.largest, whole)


class BlockFolds:
    """Splits of the training points, as :class:`~skhdkde._structure.Folds` makes them.

    Parameters
    ----------
    blocks : Blocks
    """

    def __init__(self, blocks):
        self.blocks = blocks
        drawn = blocks.draw(lambda n_distinct: fold_ends(n_distinct)[-1])
        self.n_copies = blocks.n_points - drawn.n_distinct
        check_foldable(drawn.n_distinct, self.n_copies)
        ends = fold_ends(drawn.n_distinct)[:-1]
        self.queries = np.split(drawn.X, ends)
        self.shares = drawn.weights / drawn.weights.sum()
        self.split = Split(np.split(drawn.hashes, ends))
        whitenings = [None] * len(self.queries)
        self.moments = blocks.run(ExtentTask(self.split, whitenings, blocks.dtype))

    def held_out(self, structure):
        return BlockHeldOut(self, structure)


class BlockHeldOut(HeldOut):
    """Log density of the folds for one structure, fitted to the points outside."""

    def __init__(self, folds, structure):
        self.folds, self.structure, self.blocks = folds, structure, folds.blocks
        self.n_features, whole = self.blocks.n_features, None
        if structure.covariance_type in ("diag", "full"):
            whole = _standardized(self.blocks.moments, None)
        moments = [found[0] for found in folds.moments]
        self.fitted = whiten_blocks(self.blocks, structure, folds.split, moments, whole)
        self.parts = [[part] for part in self.fitted]
        self.dtype = self._narrow() if self._is_sharp_in_float32() else np.float64

    def _largest_entry(self):
        return max(part.moments.largest.max() for part in self.fitted)

    def _narrow(self):
        for part in self.fitted:
            part.layout.coordinates = np.dtype(np.float32)
        return np.float32

    def _spreads(self):
        moments = [part.moments for part in self.fitted]
        return [np.mean(m.variance + m.mean**2) for m in moments]

    def _nearest(self):
        queries = [q[:N_PILOT] for q in self.folds.queries]
        reductions = [KSmallest(1, NEAREST_TOL) for _ in self.fitted]
        found = self._reduced(reductions, queries, self.folds.split, dtype=None)
        pairs = zip(found, self.fitted, strict=True)
        return [sq[:, 0] / part.layout.scale**2 for sq, part in pairs]

    def log_density(self, cells):
        return self._log_density(cells, self.folds.queries, self.folds.split)

    def pilot(self, cells):
        queries = [self.folds.queries[0][:N_PILOT]]
        first = Split(self.folds.split.folds[:1])
        return self._log_density(cells, queries, first)

    def _log_density(self, cells, queries, split):
        fitted = self.fitted[: len(queries)]
        reductions = [self._sums(part, cells) for part in fitted]
        found = self._reduced(reductions, queries, split, dtype=self.dtype)
        d, logs = self.n_features, []
        volumes = np.array([k.log_normalizer(d) + d * np.log(h) for k, h in cells])
        for log_sums, part in zip(found, fitted, strict=True):
            total = part.moments.total * (part.moments.heaviest / self.blocks.heaviest)
            logs.append(log_sums + part.whitening.log_det - np.log(total) - volumes)
        return np.vstack(logs)

    def _sums(self, part, cells):
        preserve, scale = self.structure.preserve_variance, part.layout.scale
        return KernelGridSums(
            [(k, h * scale, part.pull(k, h, preserve)) for k, h in cells], TOL
        )

    def _reduced(self, reductions, queries, split, dtype):
        layouts = [part.layout for part in self.fitted[: len(queries)]]
        engine = {**self.blocks.engine, "dtype": dtype}
        return self.blocks.run(PairsTask(layouts, reductions, engine, queries, split))
