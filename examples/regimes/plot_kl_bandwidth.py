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

from skhdkde import HighDimKernelDensity

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
# The loss of Silverman's rule grows with the number of features. It counts for each row,
# so rows cannot be told apart whose log densities differ by less.

bandwidths = np.geomspace(0.8, 2.0, 30)
curve = [divergence(HighDimKernelDensity(bandwidth=h).fit(X)) for h in bandwidths]

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(bandwidths, curve, color="0.5", linewidth=3)
for (rule, kde), marker, color in zip(
    rules.items(), "os", ("#0072B2", "#D55E00"), strict=True
):
    h = kde.bandwidth_
    ax.plot(h, divergence(kde), marker, color=color, markersize=14, label=f'"{rule}"')
ax.set(xlabel="bandwidth (standard deviations)", ylabel="divergence (nats)")
ax.set_ylim(0, 60)
ax.legend(frameon=False)

plt.show()
