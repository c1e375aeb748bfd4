"""
How many rows stand behind a density?
=====================================

A kernel density estimate sums over all rows. With many features only one or two of them
count. This example asks how many, for each handwritten digit.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity, RegimeDisplay

# %%
# ``diagnose()`` without queries is about the training rows, each without itself.

digits = load_digits()
X = digits.data[:, (digits.data > 0).sum(axis=0) > 10]  # the others are empty
kde = HighDimKernelDensity().fit(X)
diagnosis = kde.diagnose()
print(diagnosis)
n_behind = diagnosis.effective_sample_size
for limit in (1.1, 2.0, 3.0):
    share = np.mean(n_behind < limit)
    print(f"{share:4.0%} of the images rest on fewer than {limit:g} others")

# %%
# Zeros are alike, and rest on the most images. So they have the smallest error bars.

for digit in (0, 3, 8):
    of_digit = digits.target == digit
    count = np.median(n_behind[of_digit])
    error = np.median(diagnosis.standard_error[of_digit])
    print(f"digit {digit}: {count:.2f} images, standard error {error:.1f} nats")

# %%
# Three images, from well supported to hardly, and the four images that contribute most to
# the density of each, with their shares.

plt.rc("font", size=14)
figure, axes = plt.subplots(3, 5, figsize=(6, 4.3), layout="constrained")
order = np.argsort(-n_behind)
for line, i in zip(axes, order[[3, 250, 1600]], strict=True):
    exponents = -0.5 * np.sum((X - X[i]) ** 2, axis=1) / kde.bandwidth_**2
    exponents[i] = -np.inf
    shares = softmax(exponents)
    for ax, j in zip(line, [i, *np.argsort(-shares)[:4]], strict=True):
        ax.imshow(digits.images[j], cmap="gray_r")
        ax.set(xticks=[], yticks=[], title="" if j == i else f"{shares[j]:.0%}")
    line[0].spines[:].set(color="#D55E00", linewidth=5)

# %%
# ``RegimeDisplay`` draws all images: how many count, against the log density.

figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
RegimeDisplay.from_diagnosis(diagnosis, y="effective_sample_size", ax=ax)

# %%
# With a larger bandwidth more images count. The price is many nats for each image.

for factor in (1, 2, 4):
    wide = HighDimKernelDensity(bandwidth=factor * kde.bandwidth_).fit(X).diagnose()
    print(
        f"bandwidth {factor * kde.bandwidth_:4.1f}: "
        f"{np.median(wide.effective_sample_size):5.1f} images, "
        f"mean log density {wide.log_density.mean():.0f} nats"
    )

plt.show()
