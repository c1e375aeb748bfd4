"""
How fast is it with many rows?
==============================

The sum over all rows is a matrix product, which is much faster than a tree. For still
more rows an index finds the few neighbours that make up nearly all of the sum, and states
its error.
"""

# %%
# The index needs faiss: ``pip install "skhdkde[neighbors]"``. Rows have 32 features and
# vary mostly along ten directions.

import warnings
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import KernelDensity

from skhdkde import HighDimKernelDensity

warnings.filterwarnings("ignore", ".*stated error.*")  # they are counted below
rng = np.random.default_rng(0)
directions = np.linalg.qr(rng.normal(size=(32, 10)))[0].T
centers = rng.normal(size=(20, 10))


def draw(n):
    """Rows about 20 centers."""
    along = centers[rng.integers(20, size=n)] + rng.normal(size=(n, 10))
    noise = 0.1 * rng.normal(size=(n, 32))
    return (along @ directions + noise).astype(np.float32)


def milliseconds(kde, queries):
    """Time per query: the best of three runs."""
    times = []
    for _ in range(3):
        start = perf_counter()
        kde.score_samples(queries)
        times.append(perf_counter() - start)
    return 1e3 * min(times) / len(queries)


queries = draw(1000)
sizes = [2_000, 8_000, 32_000]
names = ["KernelDensity", "skhdkde, all rows", "skhdkde, neighbours"]
times = {name: [] for name in names}
for n in sizes:
    X = draw(n)
    near = HighDimKernelDensity(
        algorithm="neighbors", neighbors_index="hnsw", random_state=0
    ).fit(X)
    exact = HighDimKernelDensity(bandwidth=near.bandwidth_).fit(X)
    tree = KernelDensity(bandwidth=near.bandwidth_).fit(X)
    times["KernelDensity"].append(milliseconds(tree, queries[:40]))
    times["skhdkde, all rows"].append(milliseconds(exact, queries))
    times["skhdkde, neighbours"].append(milliseconds(near, queries))
    error = np.abs(near.score_samples(queries) - exact.score_samples(queries))
    listed = ", ".join(f"{name} {times[name][-1]:.3f} ms" for name in names)
    print(f"{n:6,d} rows: {listed}")
    print(f"by neighbours {np.mean(error < 0.01):.1%} of errors are below 0.01 nats")
print(near.approximation_)

# %%
# Both axes are logarithmic: each line across is a factor of ten in time.

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
for name, style, color in zip(
    names, ("^-", "o-", "s--"), ("#D55E00", "#0072B2", "#009E73"), strict=True
):
    ax.loglog(sizes, times[name], style, color=color, linewidth=3, label=name)
ax.set(xlabel="training rows", ylabel="time per query (ms)", ylim=(0.005, 300))
ax.set_xticks(sizes, [f"{n:,d}" for n in sizes])
ax.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
ax.tick_params(which="minor", labelbottom=False, labelleft=False)
ax.grid(axis="y", alpha=0.4)
ax.legend(frameon=False, loc="upper left", fontsize=14)

plt.show()
