"""Fused log sums on a GPU, by Triton.

Plain torch makes a tile of products and reads it again for every step: exponentials,
weights, sums, the largest. Here is one pass instead. :func:`tile_sums` makes it over the
product of a matrix multiplication. :func:`direct_sums`, for few features, makes the
product too, and stores nothing.

Both serve values that are powers of two of something linear in the squared distance
("gaussian"), or powers of that ("student"). All tensors of a call are on one device and
have one dtype, float32 or float64. Sums are compensated, so that their error does not
grow with the number of points: about 4 rounding errors of their dtype, beside those of
the values.
"""

import functools
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch

from skhdkde._kernels import Kernel
from skhdkde._pairwise.reductions import LARGEST_EXPONENT, squaring_chains
from skhdkde._utils.typing import FloatArray
from skhdkde._utils.warnings import warn_user

try:
    import triton
    import triton.language as tl
except ImportError:  # plain torch does the work
    triton, tl = None, SimpleNamespace(constexpr=None)

# Features up to which `direct_sums` is faster: the tile it saves costs 8 bytes of traffic
# a pair, in which time an H100 multiplies and adds 70 times.
LARGEST_FEATURES = 64
# Features that a product takes at a time: the fewest that it can.
CHUNK = 16
# Bandwidths of a chain for which there are programs; those that are not used cost little.
CHAIN_LENGTHS = (1, 2, 4, 8)
LOG2_E = 1.4426950408889634
# One program sums so many rows of a tile. A warp reads so many bytes of a row at a time,
# 16 for each thread. Programs that run on one multiprocessor ask for 72 KiB at once, more
# than the memory delivers while they wait.
TILE_ROWS, TILE_BYTES = 16, 512
# Programs for each multiprocessor: some run at once, and the last to end are few.
PROGRAMS = 8
# Points of a part, at least: what a program does before and after is then less than 1 %.
SMALLEST_PART = 2048


@dataclass(frozen=True)
class Profile:
    """Values of a kernel at some bandwidths, as :func:`direct_sums` takes them.

    Attributes
    ----------
    rates : tuple of float
        For the first bandwidth of each chain: ``log2(e) / (2 h^2)``, or, for "student",
        the squared distance ``nu h^2``.
    chains : tuple of tuple of int
        Bandwidths in order of their values, of which each is the square of the one
        before.
    exponent : float
        Of "student"; 0 for "gaussian".
    """

    rates: tuple[float, ...]
    chains: tuple[tuple[int, ...], ...]
    exponent: float = 0.0

    @classmethod
    def of(cls, kernel: Kernel, bandwidths_scaled: FloatArray) -> Self | None:
        """Return the profile of a kernel, or None if there is no fused sum for it."""
        h = np.atleast_1d(np.asarray(bandwidths_scaled, dtype=np.float64))
        if kernel.name == "gaussian":
            chains = squaring_chains(h, kernel.squaring_ratio)
            with np.errstate(over="ignore", divide="ignore"):
                rates = [float(0.5 * LOG2_E / h[chain[0]] ** 2) for chain in chains]
            return cls(tuple(rates), tuple(map(tuple, chains)))
        exponent = getattr(kernel, "exponent", np.inf)
        if kernel.name != "student" or len(h) > 1 or exponent > LARGEST_EXPONENT:
            return None
        with np.errstate(over="ignore", under="ignore"):
            core_sq = float(kernel.degrees_of_freedom * h[0] ** 2)
        return cls((core_sq,), ((0,),), exponent)

    @property
    def width(self) -> int:
        """Number of bandwidths."""
        return sum(map(len, self.chains))

    @property
    def length(self) -> int:
        """Number of bandwidths that one program sums: those of the longest chain."""
        longest = max(map(len, self.chains))
        return next(length for length in CHAIN_LENGTHS if length >= longest)

    def log2_factors(self, lowest: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the log2 of values at ``other`` relative to those at ``lowest``.

        For the first bandwidth of each chain, (n_chains, *shape).
        """
        rates = _terms(self.rates, 0.0, lowest.device, lowest.dtype)[:-1]
        rates = rates.reshape(-1, *[1] * other.ndim)
        if self.exponent:
            ratio = 1.0 + (other - lowest) / (lowest + rates)
            return -self.exponent * torch.log2(ratio)
        return (lowest - other) * rates


def tile_sums(
    product: torch.Tensor,
    weights: torch.Tensor,
    exponent: float | None = None,
    profile: Profile | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums of ``w v`` over rows of a tile, and the extreme of each row.

    The tile is read once for each chain of bandwidths.

    Parameters
    ----------
    product : tensor of shape (n_rows, n_cols)
        By default logs of the values, ``rate (reference - sq)``, and -inf for pairs that
        are left out. It is read fastest if the distance between its rows is a multiple
        of 16 entries.
    weights : tensor of shape (n_cols,)
    exponent : float, default=None
        If given, ``product`` is ``(c + sq) / (c + reference)``, of which the values are
        the power ``-exponent``, and inf for pairs that are left out.
    profile : Profile, default=None
        Of "gaussian". If given, ``product`` is ``reference - sq``, and there is a sum for
        each bandwidth.

    Returns
    -------
    sums : tensor of shape (n_rows,), or (n_rows, n_bandwidths) with a profile, float64
        Infinite where a value is out of range or no number.
    extreme : tensor of shape (n_rows,), of the dtype of ``product``
        The largest entry of each row; with an exponent the smallest.

    Notes
    -----
    The relative error of a value is about ``(2 + |log v|)`` rounding errors, with an
    exponent about ``exponent`` of them; each squaring doubles it.
    """
    single = profile is None
    if profile is None:
        profile = Profile((LOG2_E,), ((0,),), exponent or 0.0)
    product = product if product.stride(1) == 1 else product.contiguous()
    (n_rows, n_cols), length = product.shape, profile.length
    n_chains, device = len(profile.chains), product.device
    terms = _profile_terms(profile, product)
    n_blocks = -(-n_rows // TILE_ROWS)
    block = TILE_BYTES // product.element_size()
    parts, part_size = _split(n_blocks * n_chains, n_cols, block, device)
    extremes = product.new_empty((parts, n_rows))
    sums = product.new_empty((n_chains, length, parts, n_rows), dtype=torch.float64)
    with torch.cuda.device_of(product):
        _tile_kernel[(n_blocks, parts, n_chains)](
            product, weights.contiguous(), extremes, sums, terms,
            n_rows, n_cols, product.stride(0), part_size,
            STUDENT=bool(profile.exponent), LENGTH=length,
            BLOCK_M=TILE_ROWS, BLOCK_N=block, num_warps=4,
        )  # fmt: skip
    totals = _in_order(profile, sums.sum(2))
    extreme = extremes.amin(0) if profile.exponent else extremes.amax(0)
    return (totals[:, 0] if single else totals), extreme


def direct_sums(
    queries: torch.Tensor,
    query_sq: torch.Tensor,
    points: torch.Tensor,
    point_sq: torch.Tensor,
    weights: torch.Tensor,
    profile: Profile,
    leave_out: torch.Tensor | None = None,
    n_parts: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest squared distances and sums of ``w v`` by row; no tile is stored.

    Parameters
    ----------
    queries : tensor of shape (n_rows, n_features)
        At most ``LARGEST_FEATURES`` features.
    query_sq : tensor of shape (n_rows,)
        ``|x|^2``.
    points : tensor of shape (n_points, n_features)
        What :func:`arranged` returns is not copied again.
    point_sq, weights : tensor of shape (n_points,)
    profile : Profile
    leave_out : tensor of int of shape (n_rows,), default=None
        The point that each query does not see; -1 for none.
    n_parts : int, default=None
        Parts of the points that are summed side by side; None for as many as keep the
        device busy.

    Returns
    -------
    nearest_sq : tensor of shape (n_rows,), float64
        Infinite where there is no point.
    sums : tensor of shape (n_rows, n_bandwidths), float64
        Relative to the value at ``nearest_sq``, so that none is out of range.

    Notes
    -----
    ``sq`` is rounded thus: ``p = fma(x_k, y_k, p)`` for ``k = 0, 1, ...`` from ``p = 0``,
    then ``s = |x|^2 + |y|^2``, then ``max(fma(-2, p, s), 0)``. Tensor cores that multiply
    float64 add its terms by fours, in an order of their own.
    """
    (n_rows, n_features), n_points = queries.shape, len(points)
    points, shape = arranged(points), direct_shape(queries.dtype, n_features, profile)
    n_chains, length = len(profile.chains), profile.length
    n_blocks = -(-n_rows // shape["BLOCK_M"])
    parts, part_size = _split(
        n_blocks * n_chains, n_points, shape["BLOCK_N"], queries.device, n_parts
    )
    if leave_out is not None:
        leave_out = torch.where(leave_out < n_points, leave_out, -1).to(torch.int32)
    nearest = queries.new_empty((parts, n_rows))
    sums = queries.new_empty((n_chains, length, parts, n_rows), dtype=torch.float64)
    queries = queries if queries.stride(1) == 1 else queries.contiguous()
    with torch.cuda.device_of(queries):
        _direct_kernel[(n_blocks, parts, n_chains)](
            queries, query_sq.contiguous(), points, point_sq.contiguous(),
            weights.contiguous(), query_sq if leave_out is None else leave_out,
            nearest, sums, _profile_terms(profile, queries),
            n_rows, n_points, n_features, queries.stride(0), points.stride(1), part_size,
            STUDENT=bool(profile.exponent), LENGTH=length,
            LEAVE_OUT=leave_out is not None, **shape,
        )  # fmt: skip
    return _merged(profile, nearest.double(), sums)


def arranged(points: torch.Tensor) -> torch.Tensor:
    """Return points with their features apart, as programs read them; of the same shape.

    The distance from feature to feature is a multiple of 16 entries.
    """
    n_points, n_features = points.shape
    if points.stride(0) == 1 and points.stride(1) % 16 == 0:
        return points
    columns = points.new_empty((n_features, -(-n_points // 16) * 16))
    view = columns.T[:n_points]
    view.copy_(points)
    return view


def direct_shape(dtype: torch.dtype, n_features: int, profile: Profile) -> dict[str, int]:
    """Return the sizes of blocks of :func:`direct_sums`, and its number of warps.

    A thread has at most 255 registers on the H100, and with 128 of them 16 warps run at
    once. A block of 64 x 64 on 4 warps takes 128 registers for 16 features and one sum;
    more features or sums take 8 warps, or they would not fit. Two stages of 64 features
    take 32 KiB of the 228 KiB of shared memory. Entries of float64 take two registers.
    """
    n_chunks = -(-n_features // CHUNK)
    wide = dtype == torch.float64
    block = 32 if wide else 64
    few = wide or (n_chunks == 1 and profile.length <= 2)
    return dict(
        N_CHUNKS=n_chunks, CHUNK=CHUNK, BLOCK_M=block, BLOCK_N=block,
        num_warps=4 if few else 8, num_stages=2,
    )  # fmt: skip


def _split(n_programs, n_points, block, device, n_parts=None):
    """Return the number of parts of the points, and the size of each, in whole blocks."""
    if n_parts is None:
        multiprocessors = 1
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            multiprocessors = properties.multi_processor_count
        wanted = -(-PROGRAMS * multiprocessors // max(n_programs, 1))
        n_parts = min(wanted, n_points // SMALLEST_PART)
    n_blocks = max(-(-n_points // block), 1)
    size = -(-n_blocks // max(n_parts, 1))
    return -(-n_blocks // size), size * block


def _merged(profile, nearest, sums):
    """Return the nearest of all parts, and their sums relative to the value there."""
    nearest_sq = nearest.amin(0)
    lowest = torch.where(torch.isfinite(nearest_sq), nearest_sq, 0.0)
    log2_factors = profile.log2_factors(lowest, nearest)[:, None]
    powers = 2.0 ** torch.arange(sums.shape[1], device=sums.device)
    factors = torch.exp2(log2_factors * powers[:, None, None])
    return nearest_sq, _in_order(profile, (sums * factors).sum(2))


def _in_order(profile, sums):
    """Return sums of chains, (n_chains, length, n_rows), in the order of bandwidths."""
    ordered = sums.new_empty((sums.shape[2], profile.width))
    for chain, of_chain in zip(profile.chains, sums, strict=True):
        for g, row in zip(chain, of_chain, strict=False):
            ordered[:, g] = row
    return ordered


def _profile_terms(profile, like):
    return _terms(profile.rates, profile.exponent, like.device, like.dtype)


@functools.lru_cache(maxsize=64)
def _terms(rates, exponent, device, dtype):
    """Return the rates, then the exponent, on the device; an upload is a stall.

    Rates are in a range in which they, and their reciprocals, are not 0 or infinite.
    """
    limits = torch.finfo(dtype)
    rates = np.clip(rates, 4.0 * limits.tiny, 0.01 * limits.max)
    return torch.tensor([*rates, exponent], dtype=dtype, device=device)


# Whether the kernels work, by device and dtype, as far as that was tried.
_WORKS: dict[tuple, bool] = {}
_TRYING = threading.Lock()


def usable(device: Any, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether the kernels work on a device, for tensors of this dtype.

    The first call tries them on a small problem. Where they fail or are wrong, it warns,
    and the answer is no for the rest of the process. Where Triton is not installed, is
    not for such a device, or is so old that it multiplies no float64, the answer is no
    without a warning.
    """
    device = torch.device(device)
    if triton is None or not (device.type == "cuda" or INTERPRETED):
        return False
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    key, failure = (device, dtype), ""
    with _TRYING:
        if key not in _WORKS:
            failure, known = _failure(device, dtype)
            _WORKS[key] = not failure
            failure = "" if known else failure
    if failure:
        warn_user(
            f"The fused kernels of triton {triton.__version__} do not work on {device} "
            f"for {dtype}: {failure}. Results come from plain torch instead, which takes "
            "longer. There is nothing that you must do."
        )
    return _WORKS[key]


def _failure(device, dtype):
    """Return what is wrong with the kernels on a device, and whether that is known."""
    wide = dtype == torch.float64
    try:
        error = float(max(_errors(device, dtype)))
    except Exception as reason:  # compilers and drivers raise all kinds
        lines = str(reason).strip().splitlines()
        known = wide and isinstance(reason, triton.CompilationError)
        return f"{type(reason).__name__}: {lines[0] if lines else 'no message'}", known
    tolerance = 1e-10 if wide else 1e-4
    return "" if error <= tolerance else f"results are wrong by {error:.1e}", False


def _errors(device, dtype):
    """Yield errors of both kernels on a small problem, against float64 on the CPU."""
    random = torch.Generator().manual_seed(0)
    x, y, weights = (torch.rand(n, generator=random) for n in ((5, 3), (70, 3), (70,)))
    sq = (x.double()[:, None] - y.double()).square().sum(2)
    left_out = torch.arange(len(x))
    sq[left_out, left_out] = torch.inf
    nearest_sq, w = sq.amin(1), weights.double()
    x, y, weights = (array.to(device, dtype) for array in (x, y, weights))
    operands = x, x.square().sum(1), y, y.square().sum(1), weights
    gaussian, student = Profile((LOG2_E,), ((0, 1),)), Profile((3.0,), ((0,),), 2.0)
    for profile, product, values in (
        (gaussian, nearest_sq[:, None] - sq, lambda sq: torch.exp(-sq)),
        (student, (3.0 + sq) / 3.0, lambda sq: (1.0 + sq / 3.0) ** -2),
    ):
        at, tile = values(nearest_sq), product.to(device, dtype)
        found, sums = direct_sums(*operands, profile, left_out.to(device))
        yield (found.cpu() - nearest_sq).abs().max()
        for power in range(profile.width):
            expected = (values(sq) / at[:, None]) ** (power + 1) @ w
            yield (sums[:, power].cpu() / expected - 1.0).abs().max()
        sums, extreme = tile_sums(tile, weights, profile.exponent or None)
        relative_to = 1.0 if profile.exponent else at
        yield (sums.cpu() * relative_to / (values(sq) @ w) - 1.0).abs().max()
        expected = product.amin(1) if profile.exponent else product.amax(1)
        yield (extreme.cpu().double() - expected).abs().max()


def _jit(function):
    """Return a kernel, or what kernels call; without triton the function itself."""
    return function if triton is None else triton.jit(function)


@_jit
def _power(ratio, exponent):
    return tl.exp2(-exponent * tl.log2(ratio))


@_jit
def _values(sq, reference, rate, exponent, STUDENT: tl.constexpr):
    """Return values at ``sq`` relative to those at ``reference``; 0 at infinity."""
    if STUDENT:
        # so that only 1 + t is rounded, where t is small
        return _power((sq - reference) * (1.0 / (reference + rate)) + 1.0, exponent)
    else:
        return tl.exp2((reference - sq) * rate)


@_jit
def _add(total, lost, factor, values):
    """Return ``factor total`` with the rows of a block added, and what rounding lost."""
    term = tl.sum(values, 1) - lost * factor
    before = total * factor
    total = before + term
    return total, (total - before) - term


@_jit
def _add_square(total, lost, factor, values, weights):
    """Return a sum with the squares of ``values`` added, and these squares."""
    factor, values = factor * factor, values * values
    total, lost = _add(total, lost, factor, values * weights)
    return total, lost, factor, values


@_jit
def _add_chain(
    s0, s1, s2, s3, s4, s5, s6, s7,
    c0, c1, c2, c3, c4, c5, c6, c7,
    factor, values, weights, LENGTH: tl.constexpr,
):  # fmt: skip
    """Return the sums of a chain, and what rounding lost, with a block added to each."""
    s0, c0 = _add(s0, c0, factor, values * weights)
    if LENGTH > 1:
        s1, c1, factor, values = _add_square(s1, c1, factor, values, weights)
    if LENGTH > 2:
        s2, c2, factor, values = _add_square(s2, c2, factor, values, weights)
        s3, c3, factor, values = _add_square(s3, c3, factor, values, weights)
    if LENGTH > 4:
        s4, c4, factor, values = _add_square(s4, c4, factor, values, weights)
        s5, c5, factor, values = _add_square(s5, c5, factor, values, weights)
        s6, c6, factor, values = _add_square(s6, c6, factor, values, weights)
        s7, c7, factor, values = _add_square(s7, c7, factor, values, weights)
    return s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, c4, c5, c6, c7


@_jit
def _store(sums_ptr, row, total, lost, mask):
    """Store a sum, infinite where it is not finite."""
    total = total.to(tl.float64) - lost.to(tl.float64)
    total = tl.where(total == total, total, float("inf"))
    tl.store(sums_ptr + row, total, mask=mask)


@_jit
def _store_chain(
    s0, s1, s2, s3, s4, s5, s6, s7,
    c0, c1, c2, c3, c4, c5, c6, c7,
    sums_ptr, row, step, mask, LENGTH: tl.constexpr,
):  # fmt: skip
    """Store the sums of a chain ``step`` entries from each other."""
    _store(sums_ptr, row, s0, c0, mask)
    if LENGTH > 1:
        _store(sums_ptr, row + step, s1, c1, mask)
    if LENGTH > 2:
        _store(sums_ptr, row + 2 * step, s2, c2, mask)
        _store(sums_ptr, row + 3 * step, s3, c3, mask)
    if LENGTH > 4:
        _store(sums_ptr, row + 4 * step, s4, c4, mask)
        _store(sums_ptr, row + 5 * step, s5, c5, mask)
        _store(sums_ptr, row + 6 * step, s6, c6, mask)
        _store(sums_ptr, row + 7 * step, s7, c7, mask)


@_jit
def _tile_kernel(
    product_ptr, weight_ptr, extreme_ptr, sums_ptr, terms_ptr,
    n_rows, n_cols, stride, part_size,
    STUDENT: tl.constexpr, LENGTH: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Sum some rows of a part of a tile at the bandwidths of a chain."""
    part, chain = tl.program_id(1), tl.program_id(2)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    dtype: tl.constexpr = product_ptr.dtype.element_ty
    rate = tl.load(terms_ptr + chain)
    exponent = tl.load(terms_ptr + tl.num_programs(2))
    outside: tl.constexpr = float("inf") if STUDENT else float("-inf")
    extreme = tl.full((BLOCK_M,), outside, dtype)
    one = tl.full((BLOCK_M,), 1.0, dtype)
    zero = tl.zeros((BLOCK_M,), dtype)
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    c0, c1, c2, c3, c4, c5, c6, c7 = zero, zero, zero, zero, zero, zero, zero, zero
    row_ptr = product_ptr + rows.to(tl.int64)[:, None] * stride
    start = part * part_size
    stop = tl.minimum(start + part_size, n_cols)
    for first in range(start, stop, BLOCK_N):
        cols = first + tl.arange(0, BLOCK_N)
        there = cols < stop
        weights = tl.load(weight_ptr + cols, mask=there, other=0.0)
        mask = inside[:, None] & there[None, :]
        product = tl.load(row_ptr + cols[None, :], mask=mask, other=outside)
        if STUDENT:
            extreme = tl.minimum(extreme, tl.min(product, 1))
            values = _power(product, exponent)
        else:
            extreme = tl.maximum(extreme, tl.max(product, 1))
            values = tl.exp2(product * rate)
        s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, c4, c5, c6, c7 = _add_chain(
            s0, s1, s2, s3, s4, s5, s6, s7,
            c0, c1, c2, c3, c4, c5, c6, c7,
            one, values, weights[None, :], LENGTH,
        )  # fmt: skip
    step = tl.num_programs(1).to(tl.int64) * n_rows
    at = part.to(tl.int64) * n_rows + rows
    tl.store(extreme_ptr + at, extreme, mask=inside)
    _store_chain(
        s0, s1, s2, s3, s4, s5, s6, s7,
        c0, c1, c2, c3, c4, c5, c6, c7,
        sums_ptr, at + chain.to(tl.int64) * LENGTH * step, step, inside, LENGTH,
    )  # fmt: skip


@_jit
def _direct_kernel(
    x_ptr, x_sq_ptr, y_ptr, y_sq_ptr, weight_ptr, leave_ptr,
    nearest_ptr, sums_ptr, terms_ptr,
    n_rows, n_points, n_features, x_stride, y_stride, part_size,
    STUDENT: tl.constexpr, LENGTH: tl.constexpr, LEAVE_OUT: tl.constexpr,
    N_CHUNKS: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Sum over a part of the points, for some queries, at the bandwidths of a chain.

    Sums are relative to the value at the nearest point so far. No factor is more than 1.
    """
    part, chain = tl.program_id(1), tl.program_id(2)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    feature = tl.arange(0, CHUNK)
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    x_at = x_ptr + rows.to(tl.int64)[:, None] * x_stride + feature[None, :]
    x_sq = tl.load(x_sq_ptr + rows, mask=inside, other=0.0)
    rate = tl.load(terms_ptr + chain)
    exponent = tl.load(terms_ptr + tl.num_programs(2))
    left_out = rows
    if LEAVE_OUT:
        left_out = tl.load(leave_ptr + rows, mask=inside, other=-1)
    nearest = tl.full((BLOCK_M,), float("inf"), dtype)
    zero = tl.zeros((BLOCK_M,), dtype)
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    c0, c1, c2, c3, c4, c5, c6, c7 = zero, zero, zero, zero, zero, zero, zero, zero
    y_step = tl.full((1, 1), 1, tl.int64) * y_stride
    y_at = y_ptr + feature[:, None] * y_step
    start = part * part_size
    stop = tl.minimum(start + part_size, n_points)
    for first in range(start, stop, BLOCK_N):
        cols = first + tl.arange(0, BLOCK_N)
        there = cols < stop
        # infinitely far where there is no point
        y_sq = tl.load(y_sq_ptr + cols, mask=there, other=float("inf"))
        weights = tl.load(weight_ptr + cols, mask=there, other=0.0)
        inner = tl.zeros((BLOCK_M, BLOCK_N), dtype)
        # by few features, whose entries fit the registers
        for chunk in tl.static_range(N_CHUNKS):
            known = feature + chunk * CHUNK < n_features
            x_mask = inside[:, None] & known[None, :]
            y_mask = known[:, None] & there[None, :]
            x = tl.load(x_at + chunk * CHUNK, mask=x_mask, other=0.0)
            y_chunk_at = y_at + chunk * CHUNK * y_step
            y = tl.load(y_chunk_at + cols[None, :], mask=y_mask, other=0.0)
            inner = tl.dot(x, y, inner, input_precision="ieee", out_dtype=dtype)
        sq = tl.maximum((x_sq[:, None] + y_sq[None, :]) - 2.0 * inner, 0.0)
        if LEAVE_OUT:
            sq = tl.where(cols[None, :] == left_out[:, None], float("inf"), sq)
        before, nearest = nearest, tl.minimum(nearest, tl.min(sq, 1))
        reference = tl.where(nearest < float("inf"), nearest, 0.0)
        factor = _values(before, reference, rate, exponent, STUDENT)
        values = _values(sq, reference[:, None], rate, exponent, STUDENT)
        s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, c4, c5, c6, c7 = _add_chain(
            s0, s1, s2, s3, s4, s5, s6, s7,
            c0, c1, c2, c3, c4, c5, c6, c7,
            factor, values, weights[None, :], LENGTH,
        )  # fmt: skip
    step = tl.num_programs(1).to(tl.int64) * n_rows
    at = part.to(tl.int64) * n_rows + rows
    tl.store(nearest_ptr + at, nearest, mask=inside)
    _store_chain(
        s0, s1, s2, s3, s4, s5, s6, s7,
        c0, c1, c2, c3, c4, c5, c6, c7,
        sums_ptr, at + chain.to(tl.int64) * LENGTH * step, step, inside, LENGTH,
    )  # fmt: skip


# Whether Triton runs kernels step by step on the CPU, as tests do.
INTERPRETED = triton is not None and not isinstance(_direct_kernel, triton.JITFunction)
