"""
Can the missing half be filled in?
==================================

Given some features, what are the others? A fitted density answers with another density.
Here it completes digits of which only the upper half is known.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity

# %%
# ``covariance_type="full"`` gives kernels the covariance of the pixels, so that each
# pixel moves along with the others. Pixels that are nearly always empty are left out.

images = np.random.default_rng(1).permutation(load_digits().data)
train, test = images[:1000], images[1000:]
varies = train.std(axis=0) > 0.5
kde = HighDimKernelDensity(
    covariance_type="full", kernel="student", preserve_variance=True, random_state=0
).fit(train[:, varies])

# %%
# What is missing is NaN. ``impute`` fills in the mean of all that fits, or draws: each
# draw is one digit that may be there.

lower = np.arange(64) >= 32
half = np.where(lower, np.nan, test[:5])
mean, draw = test[:5].copy(), test[:5].copy()
mean[:, varies] = kde.impute(half[:, varies])
draw[:, varies] = kde.impute(half[:, varies], n_samples=1, random_state=0)[0]

plt.rc("font", size=17)
figure, axes = plt.subplots(4, 5, figsize=(6, 4.4), layout="constrained")
rows = {"given": half, "mean": mean, "draw": draw, "truth": test[:5]}
for (name, pictures), line in zip(rows.items(), axes, strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for picture, ax in zip(pictures, line, strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])

# %%
# How large is the error? Root mean square over the missing pixels, which have values from
# 0 to 16.

half = np.where(lower, np.nan, test)[:, varies]
missing = np.isnan(half)
guesses = {"mean image": train.mean(axis=0)[varies], "impute": kde.impute(half)}
for name, filled in guesses.items():
    error = np.sqrt(np.mean((filled - test[:, varies])[missing] ** 2))
    print(f"{name:10} is off by {error:.2f}")

plt.show()
