"""
Publish a density of private rows: how much must it blur?
=========================================================

A density of medical records says something of each of them. With noise it may be
published: *differentially private*, it hardly depends on any single row. The noise must
be small beside what a query sees of the rows, and what rests on few rows cannot be
both private and accurate. The regimes of :doc:`/regimes` say where that is.
"""

# %%
# Two features
# ------------
#
# 5,000 rows on a ring and a spot. Bounds of the features are known beforehand, and the
# bandwidth is chosen without a look at the rows; a rule would tell what it saw. The noise
# is a smooth random field, as wide as the kernel, of the same size everywhere. Where it
# leaves nothing, white, the sum is below zero.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity
from skhdkde.private import PrivateKernelDensity
from skhdkde.regimes import (
    gaussian_thresholds,
    private_bandwidth,
    private_relative_error,
)

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 4000)
ring = 2.0 * np.column_stack([np.cos(angle), np.sin(angle)])
spot = np.array([[0.4, 0.0]])
X = np.vstack([ring, np.repeat(spot, 1000, axis=0)]) + 0.25 * rng.normal(size=(5000, 2))

h, bounds = 0.3, (-4.0, 4.0)
grid = np.linspace(-3.2, 3.2, 90)
Q = np.column_stack([g.ravel() for g in np.meshgrid(grid, grid)])
maps = {"not private": HighDimKernelDensity(bandwidth=h).fit(X).score_samples(Q)}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of noise, which is what is shown
    for epsilon in (10.0, 1.0, 0.2):
        private = PrivateKernelDensity(epsilon, bandwidth=h, bounds=bounds).fit(X)
        maps[f"epsilon = {epsilon:g}"] = private.score_samples(Q)
        print(f"epsilon {epsilon:4g}: standard error of a sum over the rows "
              f"{private.standard_error(Q[:1])[0]:6.1f}, relative error at a typical "
              f"row {private.relative_error_:.2f}")  # fmt: skip

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for ax, (name, log_density) in zip(axes, maps.items(), strict=True):
    picture = np.exp(log_density).reshape(len(grid), -1)
    shown = np.where(picture > 0, picture, np.nan)
    image = ax.imshow(shown, extent=(-3.2, 3.2) * 2, origin="lower", vmin=0, vmax=0.3)
    ax.set(title=name, xticks=[], yticks=[])
figure.colorbar(image, ax=axes, label="density")

# %%
# Twenty features
# ---------------
#
# With 20,000 rows of 20 features, bandwidths below ``h_G`` have sums that rest on the
# nearest row: all of it is noise. From ``h_CLT`` on the central limit theorem holds, and
# error bars of textbooks do, but a sum is still far below the noise of any sensible
# epsilon. The private limit, where the relative error of a sum is 10 %, lies above;
# :func:`~skhdkde.regimes.private_bandwidth` has it from the numbers of rows and features,
# a covariance that is expected, and epsilon.

n, d = 20_000, 20
X, Q = rng.normal(size=(n, d)), rng.normal(size=(1000, d))
sq = (Q**2).sum(axis=1)
Q = Q[np.argsort(np.abs(sq - np.median(sq)))[:40]]  # of median density
distances_sq = (Q**2).sum(axis=1)[:, None] + (X**2).sum(axis=1) - 2.0 * Q @ X.T

spectrum = np.ones(d)
theory = gaussian_thresholds(n, spectrum)
bandwidths = np.geomspace(0.5 * theory.h_g, 6.0, 40)
figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
for epsilon, color in ((0.3, "#CC79A7"), (1.0, "#D55E00"), (3.0, "#0072B2")):
    errors = [private_relative_error(h, n, spectrum, epsilon) for h in bandwidths]
    ax.loglog(bandwidths, errors, color=color, label=f"epsilon = {epsilon:g}")
    limit = private_bandwidth(n, spectrum, epsilon)
    ax.plot(limit, 0.1, "D", color=color, markersize=8)
    print(
        f"epsilon {epsilon}: private limit {limit:.2f}, {limit / theory.h_clt:.1f} h_CLT"
    )

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of bandwidths that are too small
    for h in np.geomspace(1.1 * theory.h_clt, 5.0, 6):
        kde = PrivateKernelDensity(1.0, bandwidth=h, random_state=0).fit(X)
        truth = np.exp(-0.5 * distances_sq / h**2).sum(axis=1)
        found = np.sqrt(np.mean((kde.kernel_sum(Q) / truth - 1.0) ** 2))
        ax.plot(h, found, "o", color="#D55E00", markerfacecolor="white")

for name, value in (("$h_G$", theory.h_g), ("$h_{CLT}$", theory.h_clt)):
    ax.axvline(value, color="0.4", linestyle=":")
    ax.text(1.02 * value, 1.5e-2, name)
ax.axhline(0.1, color="0.4", linewidth=0.8)
ax.text(0.34, 0.12, "10 %")
ax.set(ylim=(8e-3, 2e6), xlim=(0.32, 6.2), xlabel="bandwidth")
ax.set(ylabel="relative error of a kernel sum")
ax.set_xticks([0.5, 1, 2, 4], labels=["0.5", "1", "2", "4"])
ax.tick_params(axis="x", which="minor", labelbottom=False)
ax.legend(frameon=False, title="diamonds: private limit; circles: measured")

# %%
# What a private density of so many features has is its coarse shape: which region is
# denser than another, and which of two sets of rows a query is more like. Doubling the
# rows helps as much as doubling epsilon; with ``delta > 0`` noise is smaller
# (:doc:`/private`).
plt.show()
