"""
Which bandwidth is best?
========================

The one that makes fresh rows most likely. One fit finds it (``bandwidth="kl"``, the
default). A rule of thumb does not. Here the true density is known, so that the loss can
be measured.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from skhdkde import BandwidthDisplay, HighDimKernelDensity

# %%
# 5000 normal rows of 100 features, and 1000 fresh ones. The divergence from the truth is
# the mean difference of true and estimated log densities.

rng = np.random.default_rng(0)
X, fresh = rng.normal(size=(5000, 100)), rng.normal(size=(1000, 100))
truth = norm.logpdf(fresh).sum(axis=1)


def divergence(kde):
    """Kullback-Leibler divergence from the truth, in nats."""
    return np.mean(truth - kde.score_samples(fresh))


names = "kl", "silverman"
rules = {name: HighDimKernelDensity(bandwidth=name).fit(X) for name in names}
for rule, kde in rules.items():
    print(f"{rule:9} bandwidth {kde.bandwidth_:.2f}, loss {divergence(kde):.1f} nats")

# %%
# ``BandwidthDisplay`` draws the divergence at all bandwidths, and where the regimes meet.
# The best bandwidth is in the extreme regime, where only a few rows count. The loss of
# Silverman's rule grows with the number of features.

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
BandwidthDisplay.from_estimator(
    rules["kl"], fresh, true_log_density=lambda Z: norm.logpdf(Z).sum(axis=1), ax=ax
)
h, loss = rules["silverman"].bandwidth_, divergence(rules["silverman"])
ax.plot(h, loss, "s", color="black", markersize=12)
ax.text(h, loss - 7, "Silverman", ha="center")
ax.set_ylim(0, 60)

plt.show()
