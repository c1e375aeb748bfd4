"""
Which training images does a generator copy?
============================================

A generative model should make new images, not repeat its training images. A noisy copy
may be as far from its source as any two images are, so that distances do not give it
away. What does is the share of a single training image in the density at the sample.
"""

# %%
# Three generators
# ----------------
#
# All learn from the same 1000 digits. The first adds noise to training images, so it
# copies. So does a mixture with far too many components. A mixture of 40 should not.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from skhdkde import HighDimKernelDensity

images = np.random.default_rng(0).permutation(load_digits().data)
inked = (images > 0).sum(axis=0) > 10  # the other pixels are empty
train, held_out = images[:1000, inked], images[1000:, inked]


def mixture(n_components):
    """Samples of a Gaussian mixture."""
    model = GaussianMixture(
        n_components, covariance_type="diag", reg_covar=0.1, random_state=0
    )
    return model.fit(train).sample(300)[0]


kde = HighDimKernelDensity().fit(train)
generators = {
    "noisy copies": kde.sample(300, random_state=0),
    "mixture of 400": mixture(400),
    "mixture of 40": mixture(40),
}

# %%
# The audit
# ---------
#
# ``max_weight`` is the largest share of one training image. At the bandwidth ``h_g``
# fresh images rest on several training images. A sample is suspect if its share is larger
# than that of 99 % of the fresh images. Beside it is the usual test: a distance to the
# nearest training image that is below that of 99 % of the fresh images.

auditor = HighDimKernelDensity(bandwidth=np.median(kde.diagnose(held_out).h_g))
auditor.fit(train)
neighbors = NearestNeighbors(n_neighbors=1).fit(train)
share_limit = np.quantile(auditor.diagnose(held_out).max_weight, 0.99)
distance_limit = np.quantile(neighbors.kneighbors(held_out)[0], 0.01)

print("suspects             by share   by distance")
for name, samples in {"fresh images": held_out, **generators}.items():
    by_share = np.mean(auditor.diagnose(samples).max_weight > share_limit)
    by_distance = np.mean(neighbors.kneighbors(samples)[0] < distance_limit)
    print(f"{name:20} {by_share:8.0%} {by_distance:13.0%}")

# %%
# Distance passes nearly all noisy copies; the share finds a third of them. Exact copies
# are easier to find by distance, so do both tests. The share also names the source: here
# are the five worst samples, above the training images behind them.

samples = generators["noisy copies"]
worst = np.argsort(-auditor.diagnose(samples).max_weight)[:5]
sources = neighbors.kneighbors(samples[worst], return_distance=False)[:, 0]

plt.rc("font", size=17)
figure, axes = plt.subplots(2, 5, figsize=(6, 2.9), layout="constrained")
rows = {"sample": samples[worst], "source": train[sources]}
for line, (name, images) in zip(axes, rows.items(), strict=True):
    line[0].set_ylabel(name)
    for ax, image in zip(line, images, strict=True):
        pixels = np.zeros(64)
        pixels[inked] = image
        ax.imshow(pixels.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])

plt.show()
