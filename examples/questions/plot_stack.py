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

from skhdkde import HighDimKernelDensity, kl_scorer

# %%
# Points about a ring, both features of which have then gone through an exponential: they
# are positive, with a long tail, as incomes, sizes and waiting times often are. 400 are
# to fit, 2000 to judge.

rng = np.random.default_rng(0)
angle = rng.uniform(0.0, 2.0 * np.pi, 2400)
ring = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.06 * rng.normal(size=(2400, 2))
points = np.exp(1.3 * ring)
train, test = points[:400], points[400:]

# %%
# One kernel for all is too wide where points are dense, near the corner, and so narrow
# far out that each point stands alone. "auto" has components of different shapes, which
# are ellipses. In the stack features first go through maps that take their tails away,
# and then kernels lie along the ring.

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

x = np.linspace(-0.3, 5.0, 200)
grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(
    1, 3, figsize=(11, 4.2), sharex=True, sharey=True, layout="constrained"
)
levels = np.linspace(-8.0, 0.0, 9)
for ax, kde, title in zip(axes, fitted, titles, strict=True):
    log_density = kde.score_samples(grid).reshape(len(x), len(x))
    below = log_density - log_density.max()
    filled = ax.contourf(x, x, below, levels, cmap="Blues", extend="min")
    ax.plot(*train.T, ".", color="tab:red", markersize=2)
    ax.set(title=title, xlabel="first feature", aspect="equal")
    ax.set(xlim=x[[0, -1]], ylim=x[[0, -1]])
axes[0].set_ylabel("second feature")
label = "log density below the highest (nats)"
bar = figure.colorbar(filled, ax=axes, label=label, shrink=0.8)

# %%
# The densities of the stack, with their weights:

table = fitted[-1].bandwidth_search_.to_frame()
table = table[table.weight > 0].sort_values("weight", ascending=False)
columns = ["weight", "feature_maps", "covariance_type", "mixture", "kernel", "bandwidth"]
print(table[columns].to_string(index=False, float_format="{:.2f}".format))

# %%
# A density can also be seen by what it draws: training points, and as many new ones.

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), sharex=True, sharey=True)
new = [kde.sample(len(train), random_state=0) for kde in fitted]
for ax, shown, title in zip(axes, [train, *new], ["training", *ladder], strict=True):
    ax.plot(*shown.T, ".", markersize=2)
    ax.set(title=title, aspect="equal")
figure.tight_layout()

plt.show()
