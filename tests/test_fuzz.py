"""Log densities for random data and parameters against longdouble sums."""

import warnings

import dask.array as da
import numpy as np
import oracles
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sphere_oracle import restricted, unit
from test_tiles import QUERIES, ROWS

from skhdkde import HighDimKernelDensity
from skhdkde.dask import DaskHighDimKernelDensity

pytestmark = [
    pytest.mark.usefixtures("in_this_thread"),
    pytest.mark.filterwarnings("ignore:Features of X are apart in scale"),
]

ATOL = {np.float64: 1e-8, np.float32: 1e-3}
# Roundings of the result, where that is more.
RTOL = {np.float64: 2e-15, np.float32: 5e-7}


class Setting:
    """Training points, queries, weights, and parameters of an estimate."""

    def __init__(self, draw):
        self.rng = rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.dtype = draw(st.sampled_from([np.float64, np.float32]))
        n = draw(st.sampled_from([1, 2, 3, 10, 100, 300]))
        d = draw(st.sampled_from([1, 2, 3, 8, 40, 200, 800]))
        self.law = draw(st.sampled_from(sorted(ROWS)))
        rows = ROWS[self.law](rng, n, d)
        rows = rows / max(np.abs(rows).max(), 1e-300)
        if draw(st.booleans()):  # among ordinary rows
            rows[: n // 2] = rng.standard_normal((n // 2, d))
        shift = draw(st.sampled_from([0.0, 0.0, 1.0, 30.0]))
        self.X = (rows + shift).astype(self.dtype)
        moved = QUERIES[draw(st.sampled_from(sorted(QUERIES)))](rng, self.X[:6])
        fresh = (rng.standard_normal((4, d)) + shift).astype(self.dtype)
        self.queries = np.vstack([moved.astype(self.dtype), fresh, self.X[-2:]])
        self.queries = self.queries[rng.permutation(len(self.queries))]
        self.kernel = draw(st.sampled_from(oracles.KERNEL_NAMES))
        size = {"gaussian": 1.0, "exponential": 1.0 / np.sqrt(d)}  # others reach as far
        size = size.get(self.kernel, np.sqrt(d))
        # not where a point is at the rim of a compact kernel, which is ill-conditioned
        self.h = 1.0137 * size * 10.0 ** draw(st.floats(-4.0, 1.0))
        self.weights = self._weights(draw) if draw(st.booleans()) else None
        kinds = ["numpy", "numpy", "threads", "torch", "dask"]
        self.kind = draw(st.sampled_from(kinds))
        self.on_sphere = d > 1 and draw(st.sampled_from([False, False, True]))
        if self.on_sphere:
            self._put_on_sphere(draw)

    def _put_on_sphere(self, draw):
        """Make rows unit vectors, without constant features; in float64."""
        self.dtype, n = np.float64, len(self.X)
        rows = np.vstack([self.X, self.queries]).astype(np.float64)
        rows = rows / np.abs(rows).max()
        rows += 10.0 ** draw(st.floats(-5.0, 0.0)) * self.rng.standard_normal(rows.shape)
        self.X, self.queries = np.split(unit(rows), [n])
        self.queries[-2:] = self.X[-2:]
        self.kind = "numpy" if self.kind == "dask" else self.kind

    def expected(self, rows=None):
        """Log densities at queries, or at training points, each without itself."""
        X = self.queries if rows is None else self.X[rows]
        oracle = restricted if self.on_sphere else oracles.log_density
        options = {"kernel": self.kernel, "weights": self.weights, "leave_out": rows}
        return oracle(X, self.X, self.h, **options)

    def _weights(self, draw):
        """Return weights over up to 30 decades, of which some are zero."""
        decades = draw(st.sampled_from([0.0, 3.0, 30.0]))
        weights = 10.0 ** (decades * self.rng.random(len(self.X)))
        weights[self.rng.random(len(self.X)) < 0.1] = 0.0
        weights[0] = 1.0
        return weights

    def fitted(self):
        """Return the fitted estimator."""
        options = {"bandwidth": self.h, "kernel": self.kernel}
        if self.on_sphere:
            options["support"] = "sphere"
        if self.kind == "dask":
            blocks = da.from_array(self.X, chunks=(max(len(self.X) // 3, 1), -1))
            kde = DaskHighDimKernelDensity(**options)
            return kde.fit(blocks, sample_weight=self.weights)
        if self.kind == "torch":
            pytest.importorskip("torch")
        n_jobs = 2 if self.kind == "threads" else 1
        backend = "torch" if self.kind == "torch" else "numpy"
        kde = HighDimKernelDensity(**options, n_jobs=n_jobs, backend=backend)
        return kde.fit(self.X, sample_weight=self.weights)

    def __repr__(self):
        weights = None if self.weights is None else "weights"
        return (
            f"{self.law}, X {self.X.shape} {np.dtype(self.dtype)}, {self.kernel}, h "
            f"{self.h:.3g}, {weights}, {self.kind}, on the sphere: {self.on_sphere}"
        )

    def assert_close(self, found, expected):
        found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected)
        rtol, atol = RTOL[self.dtype], ATOL[self.dtype]
        rim = np.isneginf(found) != np.isneginf(expected)
        if rim.any():  # a point at the rim of a compact kernel
            assert self.kernel in oracles.KERNEL_NAMES[1:]
            found, expected = found[~rim], expected[~rim]
            assert rim.sum() <= 2
        assert_allclose(found, expected, rtol=rtol, atol=atol)


settings_of_estimates = st.composite(Setting)()


@examples(60)
@given(setting=settings_of_estimates)
def test_queries(setting):
    found = setting.fitted().score_samples(setting.queries)
    setting.assert_close(found, setting.expected())


@examples(40)
@given(setting=settings_of_estimates)
def test_training_points(setting):
    seen = len(setting.X)
    if setting.weights is not None:
        seen = np.count_nonzero(setting.weights)
    if seen < 3:
        return
    rows = setting.rng.permutation(len(setting.X))[:8]
    if setting.weights is not None:  # those without weight see all others anyway
        rows = rows[setting.weights[rows] > 0.0]
    expected = setting.expected(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Features of X are apart in scale")
        found = np.asarray(setting.fitted().score_samples(None))
    setting.assert_close(found[rows], expected)
