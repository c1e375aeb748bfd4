"""
Digits completed from half an image
===================================

Given some features, what are the others? A fitted density answers with another density:
that of the lower half of an image, given its upper half.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity

# %%
# Pixels of 8 x 8 images, of which 1000 are to fit. Kernels with the covariance of the
# pixels are correlated, so that each moves along with the pixels that are given. Those
# that are nearly always empty are left out.

images = load_digits().data
order = np.random.default_rng(1).permutation(len(images))
train, test = images[order[:1000]], images[order[1000:]]
varies = train.std(axis=0) > 0.5
kde = HighDimKernelDensity(
    covariance_type="full", kernel="student", preserve_variance=True, random_state=0
).fit(train[:, varies])

# %%
# What is missing is NaN. Means are blurred where several digits are possible; each draw
# is one of these.

shown = test[:8]
lower = np.arange(64) >= 32
half = np.where(lower, np.nan, shown)
mean, draws = shown.copy(), np.repeat(shown[None], 3, axis=0)
mean[:, varies] = kde.impute(half[:, varies])
draws[:, :, varies] = kde.impute(half[:, varies], n_samples=3, random_state=0)

rows = {"image": shown, "given": half, "mean": mean}
rows.update({f"draw {k + 1}": draw for k, draw in enumerate(draws)})
figure, axes = plt.subplots(len(rows), len(shown), figsize=(8, 6.4), layout="constrained")
for (name, pictures), line in zip(rows.items(), axes, strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for picture, ax in zip(pictures, line, strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])

# %%
# The conditional density itself is an estimator of the pixels that are left, with all
# methods. Here are two of them, given all others: how bright the pixel is and how bright
# its neighbour, for two of the images. The cross is the truth, the dashed line holds
# all possible values: kernels know no limits unless ``feature_maps`` gives them.

names = np.flatnonzero(varies)
pair = [int(np.flatnonzero(names == k)[0]) for k in (42, 43)]
others = np.delete(np.arange(len(names)), pair)
x = np.linspace(-6.0, 26.0, 120)
grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
for k, ax in zip((0, 3), axes, strict=True):
    image = shown[k, varies]
    two = kde.conditional(others, image[others])
    log_density = two.score_samples(grid).reshape(len(x), len(x))
    height = log_density - log_density.max()
    areas = ax.contourf(x, x, height, levels=np.linspace(-8, 0, 9), cmap="Blues")
    ax.plot([0, 16, 16, 0, 0], [0, 0, 16, 16, 0], "--", color="0.4", lw=1)
    ax.plot(*image[pair], "+", color="#D55E00", ms=12, mew=3)
    ax.set(title=f"image {k + 1} of the eight", xlabel="pixel in row 6, column 3")
    ax.set(aspect="equal")
axes[0].set_ylabel("pixel in row 6, column 4")
figure.colorbar(areas, ax=axes, label="log density below the highest (nats)")
plt.show()

# %%
# How much better is it than guessing? Root mean squared error of the lower half, in
# units of a pixel from 0 to 16, beside the mean image of the training points.

half = np.where(lower, np.nan, test)[:, varies]
missing = np.isnan(half)
for name, filled in {
    "conditional mean": kde.impute(half),
    "mean image": np.broadcast_to(train[:, varies].mean(axis=0), half.shape),
}.items():
    error = np.sqrt(np.mean((filled - test[:, varies])[missing] ** 2))
    print(f"{name}: {error:.2f}")
