"""Visits of blocks of queries by torch, without waiting for what is found."""

import dataclasses

import numpy as np
import torch

from skhdkde._pairwise.backends import tile_ranges
from skhdkde._pairwise.points import in_range
from skhdkde._pairwise.reductions import LogSumExp
from skhdkde._pairwise.tiles import BareProducts, Tile, error_at, error_bound
from skhdkde._utils.arrays import to_host

# States of tiles that are added at once.
MOST_PARTS = 16


class QuickVisit:
    """A block of queries, visited as if all squared distances were sharp.

    Nothing is read before the end: the device need not wait for the host.
    """

    def __init__(self, reduction, queries, points, device):
        self.reduction, self.queries, self.points = reduction, queries, points
        self.device = device
        self.doubtful = ~in_range(queries.exact).all(1)
        self.nearest_sq = torch.full_like(queries.sq_norms, torch.inf)
        self.products = BareProducts(reduction, queries, points, device)
        self.n_products, self.fused, self.parts = 0, None, []
        if device.fused(queries.augmented.dtype) is not None:
            self.fused = fused_sums(reduction, queries, points, device)
        dtype = queries.dtype
        if dtype not in device.tracks and self.fused is None:
            device.tracks[dtype] = bool(self._suspects(tracked=False).any())
        self.tracks = self.fused is not None or device.tracks[dtype]

    def state(self, cols, check):
        """Return the state of the reduction over the points ``cols``, on the device."""
        n_rows = len(self.queries.exact)
        if self.fused is not None and self.fused.without_tiles:
            check(n_rows * (cols.stop - cols.start))
            self.nearest_sq, sums = self.fused.direct(cols)
            return self.nearest_sq, sums
        state = self.device.start(self.reduction, n_rows)
        for i, some in enumerate(
            tile_ranges(cols, self.queries, self.points, self.device)
        ):
            check(n_rows * (some.stop - some.start))
            enough = i > 0 and self.products.prepare(state, exactly=self.tracks)
            state = (self._from_product if enough else self._from_tile)(state, some)
        return self._with_parts(state) if self.parts else state

    def _from_tile(self, state, cols):
        tile = (self.points.tile_class or Tile)(
            self.queries, self.points, cols, self.device
        )
        tile.mends = False
        self.nearest_sq = torch.minimum(self.nearest_sq, tile.nearest_sq)
        tile.transform(self.reduction)
        state = self.reduction.update(state, tile)
        if tile.doubtful is not None:
            self.doubtful |= tile.doubtful
        return state

    def _from_product(self, state, cols):
        product, scratch, weights = self.products.product(cols)
        self.n_products += 1
        if self.tracks:
            self.parts.append(self._about(product, scratch, weights))
            return self._with_parts(state) if len(self.parts) == MOST_PARTS else state
        state, out_of_range = self.reduction.update_from_product(
            state, product, scratch, weights
        )
        self.doubtful |= out_of_range
        return state

    def _about(self, product, scratch, weights):
        """Return the state of a tile of products."""
        products, factor = self.products, self.products.factor
        if self.fused is None:
            largest = products.left_out < 0.0
            extreme = (torch.amax if largest else torch.amin)(product, 1).double()
        else:
            sums, extreme = self.fused.of_product(product, weights, products.rate)
        nearest_sq = products.reference - extreme / products.rate
        if self.fused is None:
            args = product, extreme, nearest_sq, factor, scratch, weights
            sums = self.reduction.sums_about(*args)
        return nearest_sq, sums

    def _with_parts(self, state):
        """Return the state with the states of tiles of products added, all at once.

        The device would have to wait for many small steps otherwise.
        """
        parts = [state, *self.parts]
        nearest_sq, sums = (torch.stack(both) for both in zip(*parts, strict=True))
        self.parts = []
        self.nearest_sq = torch.minimum(self.nearest_sq, nearest_sq.amin(0))
        self.doubtful |= ~sums.isfinite().all(2).all(0)
        return self.reduction.merged(nearest_sq, sums)

    def doubtful_rows(self):
        """Return the rows in which an error would be felt, on the host."""
        tracked = self.tracks or not self.n_products
        suspects = self._suspects(tracked)
        if suspects.any() and not tracked:
            self.device.tracks[self.queries.dtype] = True
        elif suspects.any():
            suspects = self._suspects(tracked, self.queries.rounding)
        return np.flatnonzero(suspects | to_host(self.doubtful))

    def _suspects(self, tracked, rounding=None):
        """Return the rows in which the bound says so, by default at worst."""
        queries, rounding = self.queries, rounding or self.queries.worst_rounding
        if tracked:
            nearest_sq, every = to_host(self.nearest_sq), slice(None)
            delta = error_at(
                self.reduction,
                queries,
                self.points,
                every,
                nearest_sq,
                rounding=rounding,
                more_sq=self._more_sq(),
            )
        else:
            nearest_sq = np.zeros_like(queries.sq_norms_on_host)
            delta = error_bound(
                queries.sq_norms_on_host, rounding, self.points, queries.dtype
            )
        return self.reduction.suspect_rows(nearest_sq, delta)

    def _more_sq(self):
        """Return what is rounded in a relative product and not in a squared distance.

        That is ``reference - |x|^2`` in place of ``|x|^2``.
        """
        if not self.n_products:
            return 0.0
        products, sq_norms = self.products, self.queries.sq_norms
        extra = abs(products.reference - sq_norms) - sq_norms
        return np.maximum(to_host(extra), 0.0)


def fused_sums(reduction, queries, points, device):
    """Return what makes the sums of a reduction by fused kernels, or None."""
    plain = points.tile_class is None and points.kept_in(queries.dtype)
    if not plain or not isinstance(reduction, LogSumExp):
        return None
    fused = device.fused(queries.augmented.dtype)
    profile = fused.Profile.of(reduction.kernel, reduction.bandwidths)
    if profile is None:
        return None
    return FusedSums(fused, profile, queries, points, device)


class FusedSums:
    """Sums of a block of queries by fused kernels.

    ``without_tiles`` is whether there are so few features that no tile is stored.
    """

    def __init__(self, fused, profile, queries, points, device):
        self.kernels, self.profile = fused, profile
        self.queries, self.points, self.device = queries, points, device
        few = points.shape[1] <= fused.LARGEST_FEATURES
        left_out = queries.leave_out
        self.without_tiles = few and (left_out is None or left_out.ndim == 1)

    def direct(self, cols):
        """Return nearest squared distances and sums over the points ``cols``."""
        queries, apart, left_out = self.queries, self.device.apart(self.points), None
        if queries.leave_out is not None:
            left_out = self.device.put(np.maximum(queries.leave_out - cols.start, -1))
        return self.kernels.direct_sums(
            queries.augmented[:, :-2] * -0.5,
            queries.augmented[:, -1],
            apart[cols, :-2],
            apart[cols, -2],
            self.device.weights(self.points, cols, queries.dtype),
            self.profile,
            left_out,
        )

    def of_product(self, product, weights, rate):
        """Return sums relative to the extremes of the rows of a tile, and these.

        The tile has products ``rate (reference - sq)``.
        """
        if self.profile.exponent:  # relative to the extreme the rate does not matter
            sums, extreme = self.kernels.tile_sums(
                product, weights, self.profile.exponent
            )
            return sums[:, None], extreme.double()
        rates = tuple(own / float(rate) for own in self.profile.rates)
        profile = dataclasses.replace(self.profile, rates=rates)
        sums, extreme = self.kernels.tile_sums(product, weights, profile=profile)
        return sums, extreme.double()
