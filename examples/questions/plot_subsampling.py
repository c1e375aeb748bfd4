"""
Which few rows cover my data?
=============================

A random subset repeats what is common and misses what is rare. This example prefers rows
of low density. The rows are patches of a photograph; most show the blurred background.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.metrics import pairwise_distances

from skhdkde import HighDimKernelDensity

# %%
# 4240 patches of 8 x 8 pixels and three colours, so 192 features. Noise of one grey level
# undoes the rounding of pixels.

rng = np.random.default_rng(0)
photo = load_sample_image("flower.jpg")[:424] + rng.uniform(size=(424, 640, 3))
patches = photo.reshape(53, 8, 80, 8, 3).swapaxes(1, 2).reshape(4240, 192)
pool, fresh = np.split(rng.permutation(4240), [3200])
X, X_fresh = patches[pool], patches[fresh]

# %%
# Weights from a density
# ----------------------
#
# One over the density is no good as a weight: log densities differ by hundreds of nats,
# so a single patch would have all the weight. With ``d`` features use its power ``1 /
# d``, the typical distance to neighbours.
#
# Errors in the data are rare as well. To keep them out, drop the least likely 2 %.

kde = HighDimKernelDensity(kernel="student", random_state=0).fit(X)
log_density = kde.score_samples(None)
weight = np.exp(-(log_density - log_density.max()) / X.shape[1])
weight[log_density < np.quantile(log_density, 0.02)] = 0.0


def draw(weight, size):
    """Draw rows without replacement."""
    return rng.choice(len(X), size, replace=False, p=weight / weight.sum())


chosen = draw(weight, 200)

# %%
# The chosen patches in full colour.

red, _, blue = X.reshape(-1, 64, 3).mean(axis=1).T
share = np.mean(red > blue), np.mean((red > blue)[chosen])
print("flowers: {:.0%} of the patches, {:.0%} of the chosen ones".format(*share))

shown = 0.3 * patches + 0.7 * 256
shown[pool[chosen]] = patches[pool[chosen]]
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.imshow(shown.reshape(53, 80, 8, 8, 3).swapaxes(1, 2).reshape(424, 640, 3) / 256)
ax.set_axis_off()

# %%
# What is gained
# --------------
#
# The distance from each fresh patch to the nearest chosen one, in grey levels per pixel
# and colour, mean of ten draws. For flowers, 200 patches chosen by density are as good as
# 400 random ones. The background pays for it, so do not estimate a density of all patches
# from such a subset.

distances = pairwise_distances(X_fresh, X) / np.sqrt(X.shape[1])
red, _, blue = X_fresh.reshape(-1, 64, 3).mean(axis=1).T
flower = red > blue
print(f"{'':16}background   flowers   worst 5 %")
uniform = np.ones(len(X))
for name, w, size in [
    ("200, uniform", uniform, 200),
    ("400, uniform", uniform, 400),
    ("200, by density", weight, 200),
]:
    nearest = np.mean(
        [distances[:, draw(w, size)].min(axis=1) for _ in range(10)], axis=0
    )
    means = nearest[~flower].mean(), nearest[flower].mean(), np.quantile(nearest, 0.95)
    print("{:16}{:10.1f} {:9.1f} {:11.1f}".format(name, *means))

plt.show()
