"""
How good a density do you need?
===============================

Each step of this ladder is a better density and takes longer: the default; kernels that
take their shape from the data, ``covariance_type="auto"``; and a mixture of the best
shapes and maps of features, ``"stack"`` with ``feature_maps="auto"``. In two dimensions
one sees what each of them makes of the same points.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from skhdkde import HighDimKernelDensity, kl_scorer

# %%
# Points along two arcs, of which the horizontal coordinate is stretched to a long tail,
# as that of incomes, sizes or waiting times often is: 400 to fit, and 2000 to judge.

points, _ = make_moons(2400, noise=0.1, random_state=0)
points[:, 0] = np.exp(1.2 * points[:, 0])
train, test = points[:400], points[400:]

# %%
# One kernel for all is too wide on the left, where points are dense, and so narrow on the
# right that each point stands alone. "auto" has components of different shapes, but
# these are ellipses. In the stack some densities are of the logarithm, nearly, of the
# skewed feature, and some have kernels that lie along the arcs.

ladder = {
    "the default": {},
    '"auto"': {"covariance_type": "auto"},
    '"stack", with maps': {"covariance_type": "stack", "feature_maps": "auto"},
}
fitted, titles = [], []
for name, parameters in ladder.items():
    start = time.perf_counter()
    kde = HighDimKernelDensity(**parameters, random_state=0).fit(train)
    seconds = time.perf_counter() - start
    fitted.append(kde)
    titles.append(f"{name}: {kl_scorer(kde, test):.2f} nats")
    print(f"{titles[-1]} per test point, fitted in {seconds:.1f} s")

# %%
# Colours are log densities, down to 8 nats below the highest; dots are training points.

x, y = np.linspace(-0.5, 13.0, 200), np.linspace(-1.0, 1.6, 160)
grid = np.stack(np.meshgrid(x, y), axis=-1)
figure, axes = plt.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
levels = np.linspace(-8.0, 0.0, 9)
for ax, kde, title in zip(axes, fitted, titles, strict=True):
    log_density = kde.score_samples(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    filled = ax.contourf(
        x, y, log_density - log_density.max(), levels, cmap="Blues", extend="min"
    )
    ax.plot(*train.T, ".", color="tab:red", markersize=2)
    ax.set(title=title, ylabel="second feature")
axes[-1].set_xlabel("first feature")
figure.colorbar(filled, ax=axes, label="log density below the highest (nats)", shrink=0.5)

# %%
# The densities of the stack, with their weights:

table = fitted[-1].bandwidth_search_.to_frame()
table = table[table.weight > 0].sort_values("weight", ascending=False)
columns = ["weight", "feature_maps", "covariance_type", "mixture", "neighborhood"]
print(table[columns].to_string(index=False, float_format="{:.2f}".format))

# %%
# More nats are more of the same kind of points in samples, too: left, training points;
# right, as many new ones.

figure, axes = plt.subplots(2, 2, figsize=(8, 5), sharex=True, sharey=True)
new = [kde.sample(len(train), random_state=0) for kde in fitted]
for ax, shown, title in zip(axes.flat, [train, *new], ["training", *ladder], strict=True):
    ax.plot(*shown.T, ".", markersize=2)
    ax.set_title(title)
figure.tight_layout()

plt.show()
