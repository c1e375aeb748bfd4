"""
The best bandwidth, and what a rule of thumb loses
==================================================

When the true density is known, the Kullback-Leibler divergence of the estimate can be
measured at every bandwidth. Here for normal data of 10 and of 100 features, with the
regimes of the estimate behind the curve.
"""

# %%
# Two data sets
# -------------
#
# ``BandwidthDisplay`` computes the curve on fresh queries and marks where the regimes
# meet. ``kl`` of :func:`~skhdkde.regimes.gaussian_thresholds` is the limit for many
# features.

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import BandwidthDisplay, HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

n, n_queries = 5000, 1000
rng = np.random.default_rng(0)


def true_log_density(X):
    return -0.5 * np.sum(X**2, axis=1) - 0.5 * X.shape[1] * np.log(2 * np.pi)


def divergence(kde, queries):
    return np.mean(true_log_density(queries) - kde.score_samples(queries))


BLACK, GREY = "black", "0.45"
figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
print("features  rule        bandwidth   KL, nats  KL / feature")
for axes, d in zip(panels, (10, 100), strict=True):
    X, queries = rng.normal(size=(n, d)), rng.normal(size=(n_queries, d))
    losses = {}
    for rule in ("kl", "silverman", "scott"):
        kde = HighDimKernelDensity(bandwidth=rule, random_state=0).fit(X)
        losses[rule] = kde.bandwidth_, divergence(kde, queries)
        bandwidth, loss = losses[rule]
        print(f"{d:8d}  {rule:10s} {bandwidth:10.3f} {loss:10.2f} {loss / d:13.3f}")
    kde = HighDimKernelDensity(bandwidth="kl", random_state=0).fit(X)
    display = BandwidthDisplay.from_estimator(
        kde, queries, true_log_density=true_log_density, ax=axes
    )
    limit = gaussian_thresholds(n, np.ones(d))
    axes.plot(
        display.bandwidths,
        limit.kl(display.bandwidths),
        color=GREY,
        linestyle=(0, (6, 2)),
        label="limit for many features",
    )
    axes.plot(
        *losses["silverman"], "X", color=BLACK, markersize=9, label="Silverman's rule"
    )
    best = losses["kl"][1]
    axes.set_title(f"{d} features, {n} points")
    # Room for the legend, below the names of the regimes.
    place = ("upper right", (1.0, 0.94)) if d == 10 else ("lower right", (1.0, 0.0))
    axes.set_ylim(0.0, (7.0 if d == 10 else 5.0) * best)
    axes.legend(fontsize="small", loc=place[0], bbox_to_anchor=place[1])
    excess = losses["silverman"][1] - best
    print(
        f"          Silverman's rule loses {excess:.2f} nats, "
        f"{excess / best:.0%} of the divergence"
    )

# %%
# With 10 features the minimum lies among the stable bandwidths: many points share in
# each estimate. With 100 features it lies in the extreme regime, and the curve is
# lopsided: too small a bandwidth costs much, too large a one little at first.
#
# The loss to a rule of thumb adds up over the features. In log density, where odd
# points are told from common ones, it is nats for each query. The limit is exact for
# the right branch. Left of the minimum, and with few features, it is too optimistic.

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_kl_bandwidth.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
