"""
How likely is a row of whole numbers?
=====================================

Counts have no density: the more rows there are, the narrower the kernels around the same
few values become, and log densities say how narrow they are. With
``discrete_features="auto"`` a value stands for all within half a step of it, and log
densities are log probabilities.
"""

# %%
# Counts of a known law
# ---------------------
#
# Five counts in each of 3000 rows, from Poisson laws, so that the probability of every
# row is known. ``covariance_type="auto"`` gives kernels the shape of the data, once with
# values as they are and once as what they are.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import poisson

from skhdkde import HighDimKernelDensity

rate = np.array([0.7, 1.5, 3.0, 5.0, 8.0])
rng = np.random.default_rng(0)
train, fresh = rng.poisson(rate, size=(2, 3000, 5)).astype(float)
log_probability = poisson(rate).logpmf(fresh).sum(axis=1)

found = {}
for name, discrete_features in [("as they are", None), ("as counts", "auto")]:
    kde = HighDimKernelDensity(
        covariance_type="auto", discrete_features=discrete_features, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that features are discrete, and rows duplicates
        kde.fit(train)
    found[name] = kde.score_samples(fresh)
    excess = np.mean(found[name] - log_probability)
    drawn = kde.sample(1000, random_state=0)
    whole = np.mean(drawn == np.rint(drawn))
    print(f"{name:10} log density - log probability: {excess:5.2f} nats in the mean")
    print(f"{'':10} whole numbers among samples: {whole:.0%}")

# %%
# What is in the table
# --------------------
#
# ``data_report_`` has the steps of the lattices that were found.

print(kde.data_report_)

# %%
# Where values are taken as they are, the log density depends on how many rows are the
# same and on the width of kernels. As counts, it follows the log probability, as far as
# 3000 rows tell it.

figure, panels = plt.subplots(1, 2, figsize=(8, 4), sharex=True, layout="constrained")
for axes, (name, log_density) in zip(panels, found.items(), strict=True):
    axes.scatter(log_probability, log_density, s=4, alpha=0.3, color="#0072B2")
    low, high = log_probability.min(), log_probability.max()
    axes.plot([low, high], [low, high], color="#D55E00", label="equal")
    axes.set(title=f"values {name}", xlabel="log probability (nats)")
panels[0].set_ylabel("log density (nats)")
panels[1].legend(frameon=False)

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_table.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
