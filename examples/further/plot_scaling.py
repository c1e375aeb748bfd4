"""
Many points: time per query and its error
=========================================

The exact sum visits every training point. At the bandwidth that is best in
Kullback-Leibler divergence a few neighbours are nearly all of it, and an index finds
those in a time that hardly grows with the number of points. How far off the result
may be is stated with it.
"""

# %%
# Data of many features usually vary along few directions. Here ten, among 32 features,
# with some noise in all.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity

warnings.filterwarnings("ignore", ".*stated error.*")
d, inner, n_queries = 32, 10, 1000
rng = np.random.default_rng(0)
axes_of_data = np.linalg.qr(rng.normal(size=(d, inner)))[0].T
means = rng.normal(size=(20, inner))


def draw(n):
    along = means[rng.integers(20, size=n)] + rng.normal(size=(n, inner))
    noise = 0.1 * rng.normal(size=(n, d))
    return (along @ axes_of_data + noise).astype(np.float32)


def seconds(kde, X):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        kde.score_samples(X)
        times.append(time.perf_counter() - start)
    return np.median(times)


# %%
# An index needs faiss: ``pip install "skhdkde[neighbors]"``. Both sums have the same
# bandwidth. ``score_samples`` warns of queries with an error over the tolerance; here
# they are counted below.

queries = draw(n_queries)
sizes = [5_000, 25_000, 120_000]
exact_times, near_times, errors, stated = [], [], [], []
print("     n  bandwidth  neighbours   exact    neighbours      error, nats")
print("                               us/query   us/query     median    99 %")
for n in sizes:
    X = draw(n)
    exact = HighDimKernelDensity(random_state=0).fit(X)
    near = HighDimKernelDensity(
        bandwidth=exact.bandwidth_,
        algorithm="neighbors",
        neighbors_index="hnsw",
        random_state=0,
    ).fit(X)
    exact_times.append(seconds(exact, queries) / n_queries)
    near_times.append(seconds(near, queries) / n_queries)
    errors.append(np.abs(near.score_samples(queries) - exact.score_samples(queries)))
    stated.append(near.approximation_.error)
    low, high = np.quantile(errors[-1], [0.5, 0.99])
    print(
        f"{n:7d}  {near.bandwidth_:8.3f}  {near.n_neighbors_:7d}  "
        f"{1e6 * exact_times[-1]:10.0f} {1e6 * near_times[-1]:10.0f}   "
        f"{low:9.1e} {high:9.1e}"
    )
print(near.approximation_)

# %%
# The exact sum costs in proportion to the number of points, and is the faster one while
# there are few. On the right, errors against it: the median over the queries and the
# 99 % quantile, with the tolerance ``tol``. Some are rounding in float32; others are
# neighbours that the index missed. How often that happens is measured at fit, on points
# that are kept out of the index, and is part of the stated error.

EXACT, NEAR = "#D55E00", "#0072B2"
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
left.loglog(sizes, 1e6 * np.array(exact_times), "o-", color=EXACT, label="all points")
left.loglog(sizes, 1e6 * np.array(near_times), "s-", color=NEAR, label="neighbours")
left.legend(fontsize="small", loc="upper left")
left.set(xlabel="training points", ylabel="time per query, µs")
left.grid(alpha=0.3, which="both")
right.loglog(sizes, [np.median(e) for e in errors], "s-", color=NEAR, label="median")
right.loglog(
    sizes, [np.quantile(e, 0.99) for e in errors], "^--", color=NEAR, label="99 %"
)
right.loglog(
    sizes,
    [np.median(e) for e in stated],
    ":",
    color="0.4",
    label="median of those stated",
)
right.axhline(near.tol, color="black", linewidth=1)
right.text(sizes[0], near.tol * 1.2, "tol")
right.set(xlabel="training points", ylabel="error of the log density, nats")
right.grid(alpha=0.3, which="major")
right.set_ylim(3e-6, 3e-2)
right.legend(fontsize="small", loc="center left")

# %%
# What "auto" chooses
# -------------------
#
# Below ``h_g`` a few neighbours are the sum; far above ``h_clt`` a sample is enough.
# Between them many points count a little, and "auto" takes all.

X = X[:40_000]
bandwidth = 1.1 * near.bandwidth_
print("bandwidth   neighbors  sampling  exact   largest stated error")
for factor in (1, 3, 10):
    kde = HighDimKernelDensity(
        bandwidth=factor * bandwidth,
        algorithm="auto",
        neighbors_index="hnsw",
        random_state=0,
    ).fit(X)
    kde.score_samples(queries)
    used = kde.approximation_
    shares = [np.mean(used.algorithm == n) for n in ("neighbors", "sampling", "exact")]
    print(
        f"{kde.bandwidth_:9.2f}  {shares[0]:10.0%} {shares[1]:9.0%} {shares[2]:6.0%}"
        f"   {used.error.max():12.4f}"
    )

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_scaling.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
