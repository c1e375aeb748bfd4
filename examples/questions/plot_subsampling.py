"""
A small subset that covers the data
===================================

A data set often has many near-repeats of common things and few of rare ones. A random
subset repeats what is common. This example prefers points of low density instead, and
says what that gains and what it costs.
"""

# %%
# The data
# --------
#
# A photograph, cut into patches of 8 x 8 pixels and three colours: points in 192
# dimensions. Most are of the blurred background and nearly alike. Thirty are spoiled by
# noise, as some of any data are. A quarter of the patches is kept apart: a good subset is
# near to these too. Noise of one grey level undoes the rounding of pixels, without which
# exact repeats would have an infinite density.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import train_test_split

from skhdkde import HighDimKernelDensity, kl_scorer

rng = np.random.default_rng(0)
photo = load_sample_image("flower.jpg")[:424] + rng.uniform(size=(424, 640, 3))
patches = photo.reshape(53, 8, 80, 8, 3).swapaxes(1, 2).reshape(53 * 80, 192)
pool, fresh = train_test_split(np.arange(len(patches)), random_state=0)
spoiled = rng.choice(pool, 30, replace=False)
patches[spoiled] = rng.uniform(0, 256, size=(30, 192))
X, X_fresh = patches[pool], patches[fresh]
red, _, blue = X_fresh.reshape(-1, 64, 3).mean(axis=1).T
flower = red > blue  # flowers are orange, the background is blue and green
print(f"{len(X)} patches to choose from; {flower.mean():.0%} of the others show flowers")

# %%
# Why not one over the density?
# -----------------------------
#
# ``score_samples(None)`` is the log density of each patch given all others. The heavy
# tails of ``kernel="student"`` keep strange patches from widening the bandwidth for all.
#
# Log densities differ by hundreds of nats, so one over the density differs by hundreds of
# powers of ten, and one or two patches have all the weight. What helps is a power of it.
# In ``d`` dimensions the distance to neighbours goes as ``density ** (-1 / d)``: with
# these weights a patch counts by the room around it in length, not in volume.
#
# Errors are rare as well, and so get chosen. A guard drops the two percent of the patches
# that are least likely.

kde = HighDimKernelDensity(kernel="student", random_state=0).fit(X)
log_density = kde.score_samples(None)
low, middle, high = np.quantile(log_density, [0.05, 0.5, 0.95])
print(f"log density: median {middle:.0f}, 90 % from {low:.0f} to {high:.0f} nats")
likely = log_density > np.quantile(log_density, 0.02)
dropped = np.isin(pool[~likely], spoiled)
print(f"the guard drops {dropped.sum()} spoiled patches and {np.sum(~dropped)} good ones")

powers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]  # times d
log_weights = {power: -power / X.shape[1] * log_density for power in powers}
guarded = {power: np.where(likely, log_weights[power], -np.inf) for power in powers}


def draw(log_weight, size, seed):
    """Draw without replacement, in logs: the largest of log weight + Gumbel noise."""
    noise = np.random.default_rng(seed).gumbel(size=len(log_weight))
    return np.argsort(-(log_weight + noise))[:size]


# %%
# What is gained, and what is lost
# --------------------------------
#
# For each fresh patch, how far is the nearest of the chosen ones, in grey levels per
# value? All are means over ten draws. "effective" is the number of patches that share
# the weight, ``sum(w) ** 2 / sum(w ** 2)``.

distances = pairwise_distances(X_fresh, X) / np.sqrt(X.shape[1])
columns = ["mean", "background", "flowers", "95 %", "largest", "spoiled"]


def coverage(log_weight, size=200):
    draws = [draw(log_weight, size, seed) for seed in range(10)]
    nearest = np.array([distances[:, chosen].min(axis=1) for chosen in draws])
    groups = nearest, nearest[:, ~flower], nearest[:, flower]
    means = [group.mean() for group in groups]
    tail = np.quantile(nearest, 0.95, axis=1).mean(), nearest.max(axis=1).mean()
    return [*means, *tail, np.isin(pool[draws], spoiled).sum(axis=1).mean()]


ranks = 1 + np.argsort(np.argsort(-log_density))  # the densest has the weight 1
ways = {
    "200, uniform": (log_weights[0.0], 200),
    "400, uniform": (log_weights[0.0], 400),
    "200, 1 / density": (-log_density, 200),
    "200, rank": (np.log(ranks), 200),
    "200, power 1 / d": (log_weights[1.0], 200),
    "200, 1 / d, guarded": (guarded[1.0], 200),
}
print(f"{'':20}{'effective':>11}" + "".join(f"{column:>11}" for column in columns))
for name, (log_weight, size) in ways.items():
    weight = np.exp(log_weight - log_weight.max())
    effective = weight.sum() ** 2 / np.sum(weight**2)
    values = "".join(f"{value:11.1f}" for value in coverage(log_weight, size))
    print(f"{name:20}{effective:11.0f}{values}")

# %%
# With the power ``1 / d`` and the guard, flowers and the worst-covered patches have a
# nearer neighbour than from *twice* as many uniform draws. The background pays for it,
# and the mean over all is as before. Without the guard more than half of the spoiled
# patches are chosen, and one over the density chooses all of them. The guard costs some
# good patches, and helps only against errors that are rarer than what one wants. Ranks
# need no power, and are milder.
#
# The small set as a density
# --------------------------
#
# Does it still tell the density of all? Weights of one over those of the draw should
# correct for the choice. They hardly do: in many dimensions a log density rests on the
# nearest point, and a weight moves it by a few nats where a missing neighbour costs
# tens. For flowers the subset is the better density; over all a uniform one is.

small = HighDimKernelDensity(kernel="student", random_state=0)
print(f"{'mean log density of fresh patches (nats)':45}all background  flowers")
for name, log_weight, exponent in [
    ("from 200, uniform", log_weights[0.0], 0.0),
    ("from 200, 1 / d, guarded", guarded[1.0], 0.0),
    ("from 200, 1 / d, guarded, with weights", guarded[1.0], -1.0),
]:
    scores = []
    for chosen in (draw(log_weight, 200, seed) for seed in range(5)):
        weight = np.exp(exponent * (log_weight[chosen] - log_weight.max()))
        small.fit(X[chosen], sample_weight=weight)
        groups = X_fresh, X_fresh[~flower], X_fresh[flower]
        scores.append([kl_scorer(small, group) for group in groups])
    print(f"{name:38}" + "".join(f"{score:10.1f}" for score in np.mean(scores, axis=0)))

# %%
# What it looks like
# ------------------
#
# Above, the chosen patches in full colour: uniformly, and with the power ``1 / d`` and
# the guard. Below, how the power matters. Beyond ``1 / d`` little is gained, and the
# background is forgotten.

# safe for the colour-blind
colors = ["black", "#0072B2", "#D55E00", "#009E73", "#CC79A7"]
figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
shown_above = {
    "200 patches, uniform": log_weights[0.0],
    "200 patches, power 1 / d, guarded": guarded[1.0],
}
for ax, (title, log_weight) in zip(axes[0], shown_above.items(), strict=True):
    shown = 0.2 * patches + 0.8 * 256
    chosen = pool[draw(log_weight, 200, seed=0)]
    shown[chosen] = patches[chosen]
    image = shown.reshape(53, 80, 8, 8, 3).swapaxes(1, 2).reshape(424, 640, 3)
    ax.imshow(image / 256)
    ax.set(xticks=[], yticks=[], title=title)

without_guard = np.array([coverage(log_weights[power]) for power in powers])
with_guard = np.array([coverage(guarded[power]) for power in powers])
relative = with_guard[:, :5] / with_guard[0, :5]
left, right = axes[1]
for color, label, curve in zip(colors, columns, relative.T, strict=False):
    left.plot(powers, curve, "o-", color=color, label=label)
left.set(ylim=(0.7, 2.0), xlabel="power times d", ylabel="distance, uniform = 1")
left.legend(frameon=False, loc="upper left")
right.plot(powers, without_guard[:, 5], "o-", color=colors[2], label="without guard")
right.plot(powers, with_guard[:, 5], "o-", color=colors[1], label="with guard")
right.set(xlabel="power times d", ylabel="spoiled patches chosen, of 30")
right.legend(frameon=False, loc="center right")

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_subsampling.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
