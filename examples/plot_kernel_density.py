"""
Are the log densities of KernelDensity right?
=============================================

Not with many features. scikit-learn's ``KernelDensity`` may be wrong by tens of nats, and
gives no warning. This example shows when, and by how much.
"""

# %%
# The same estimate, three times
# ------------------------------
#
# The points, the bandwidth and the kernel are the same, so all three should agree. With
# ``leaf_size=n_samples`` the tree of ``KernelDensity`` has a single leaf. It is exact
# then, and slow.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from skhdkde import HighDimKernelDensity

n = 2000
rng = np.random.default_rng(0)
X, queries = rng.normal(size=(n, 100)), rng.normal(size=(300, 100))

ours = HighDimKernelDensity().fit(X)
h = ours.bandwidth_
theirs = KernelDensity(bandwidth=h).fit(X).score_samples(queries)
exact = KernelDensity(bandwidth=h, leaf_size=n).fit(X).score_samples(queries)
for name, found in [
    ("skhdkde", ours.score_samples(queries)),
    ("KernelDensity", theirs),
]:
    error = np.abs(found - exact)
    print(f"{name:14} largest error {error.max():8.1e} nats", end=", ")
    print(f"{np.mean(error > 1):.0%} of queries off by more than 1 nat")

# %%
# Half of the log densities are far too high. Here each query is one mark.

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(exact, theirs, "x", color="#D55E00", label="KernelDensity")
ax.plot(exact, ours.score_samples(queries), ".", color="#0072B2", label="skhdkde")
ax.set(xlabel="exact log density (nats)", ylabel="reported (nats)")
ax.set_title("100 features: half are wrong")
ax.legend(frameon=False)

# %%
# Why
# ---
#
# The tree first bounds the sum as if all points were at the query, and then subtracts.
# The rounding error of that first bound stays: :math:`10^{-16}` of it, or 36 nats below
# the peak of a kernel. Smaller densities drown in it. Tolerances do not help.

peak = -100 * np.log(h) - 50 * np.log(2 * np.pi)  # log kernel at distance zero
low, high = np.min(peak - exact), np.max(peak - exact)
print(f"exact log densities are {low:.0f} to {high:.0f} nats below the peak")
for rtol in (1e-8, 0.0):
    strict = KernelDensity(bandwidth=h, rtol=rtol, atol=0.0).fit(X)
    error = np.abs(strict.score_samples(queries) - exact)
    print(f"rtol={rtol:g}: largest error {error.max():.1f} nats")

# %%
# From how many features on?
# --------------------------
#
# The share of queries that are wrong by more than 0.01 nats, at the best bandwidth and at
# two thirds of it. A grid search tries such small bandwidths, too.

print("features   best bandwidth   two thirds of it")
for d in [5, 10, 15, 20, 30, 50]:
    points, fresh = rng.normal(size=(n, d)), rng.normal(size=(200, d))
    best = HighDimKernelDensity().fit(points).bandwidth_
    wrong = []
    for bandwidth in (best, 0.67 * best):
        right = HighDimKernelDensity(bandwidth=bandwidth).fit(points)
        tree = KernelDensity(bandwidth=bandwidth).fit(points)
        error = tree.score_samples(fresh) - right.score_samples(fresh)
        wrong.append(np.mean(np.abs(error) > 0.01))
    print(f"{d:8d} {wrong[0]:15.0%} {wrong[1]:17.0%}")

# %%
# The cosine kernel is wrong with two features already. A density integrates to one; this
# is the integral of a kernel around a single point.

square = rng.uniform(-1.0, 1.0, size=(200_000, 2))
for estimator in (KernelDensity, HighDimKernelDensity):
    cosine = estimator(kernel="cosine", bandwidth=1.0).fit(np.zeros((1, 2)))
    with np.errstate(all="ignore"):
        log_mean = logsumexp(cosine.score_samples(square)) - np.log(len(square))
    print(f"{estimator.__name__:22} integral {4.0 * np.exp(log_mean):.2f}")

plt.show()
