"""
How much must a density of private rows blur?
=============================================

A density of medical records tells something of each of them. With noise it may be
published: it is *differentially private*, and hardly depends on any single row. The
price is a larger bandwidth. This example shows how large.
"""

# %%
# What noise does
# ---------------
#
# 5000 rows on a ring and a spot. A small ``epsilon`` is strong privacy and much noise.
# The bounds and the bandwidth must be chosen without a look at the rows.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity
from skhdkde.private import PrivateKernelDensity
from skhdkde.regimes import gaussian_thresholds, private_bandwidth, private_relative_error

warnings.filterwarnings("ignore", category=UserWarning)  # of noise, which is shown here
rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 4000)
centers = np.zeros((5000, 2))
centers[:4000] = 2.0 * np.column_stack([np.cos(angle), np.sin(angle)])
X = centers + 0.25 * rng.normal(size=(5000, 2))

places = np.linspace(-3, 3, 90)
grid = np.column_stack([g.ravel() for g in np.meshgrid(places, places)])
open_kde = HighDimKernelDensity(bandwidth=0.3).fit(X)
private = PrivateKernelDensity(
    epsilon=1.0, bandwidth=0.3, bounds=(-4.0, 4.0), random_state=0
).fit(X)

plt.rc("font", size=16)
figure, axes = plt.subplots(1, 2, figsize=(6, 3.4), layout="constrained")
densities = {"not private": open_kde, "epsilon = 1": private}
for ax, (name, kde) in zip(axes, densities.items(), strict=True):
    density = np.exp(kde.score_samples(grid)).reshape(90, 90)
    ax.imshow(density, origin="lower", vmin=0, vmax=0.3)
    ax.set(title=name, xticks=[], yticks=[])

# %%
# The bandwidth that it takes
# ---------------------------
#
# Now 20,000 rows of 20 features. Below :math:`h_{CLT}` a kernel sum rests on few rows,
# and these are what noise must hide. :func:`~skhdkde.regimes.private_bandwidth` is the
# bandwidth from which on the noise is 10 % of the sum (diamonds). It needs no look at the
# rows. Circles are measured errors.

n, d = 20_000, 20
X, queries = rng.normal(size=(n, d)), rng.normal(size=(1000, d))
sq_norms = (queries**2).sum(axis=1)
queries = queries[np.argsort(np.abs(sq_norms - np.median(sq_norms)))[:40]]

h_clt = gaussian_thresholds(n, np.ones(d)).h_clt
bandwidths = np.geomspace(0.8, 6.0, 40)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
for epsilon, color in ((0.3, "#CC79A7"), (1.0, "#D55E00"), (3.0, "#0072B2")):
    errors = [private_relative_error(h, n, np.ones(d), epsilon) for h in bandwidths]
    ax.loglog(bandwidths, errors, color=color, label=f"epsilon = {epsilon:g}")
    limit = private_bandwidth(n, np.ones(d), epsilon)
    ax.plot(limit, 0.1, "D", color=color, markersize=9)
    print(f"epsilon {epsilon}: bandwidth {limit:.2f}, {limit / h_clt:.1f} h_CLT")
for h in (1.5, 2.2, 3.2, 4.7):
    kde = PrivateKernelDensity(1.0, bandwidth=h, random_state=0).fit(X)
    truth = n * np.exp(HighDimKernelDensity(bandwidth=h).fit(X).score_samples(queries))
    truth *= (2 * np.pi) ** (d / 2) * h**d
    error = np.sqrt(np.mean((kde.kernel_sum(queries) / truth - 1.0) ** 2))
    ax.plot(h, error, "o", color="#D55E00", markerfacecolor="white", markersize=8)
ax.axvline(h_clt, color="0.4", linestyle=":")
ax.text(1.03 * h_clt, 2e-2, "$h_{CLT}$")
ax.set(ylim=(1e-2, 1e3), xlim=(0.8, 6), ylabel="relative error of a sum")
ax.set_xlabel("bandwidth (standard deviations)")
ax.set_xticks([1, 2, 4], ["1", "2", "4"])
ax.tick_params(axis="x", which="minor", labelbottom=False)
ax.legend(frameon=False)

plt.show()
