"""
How many points stand behind a density?
=======================================

A kernel density estimate averages over thousands of images, or so it seems. This
example asks, for every handwritten digit, how many of the others really contribute, and
by how much the log density would differ with other data.
"""

# %%
# Diagnosis of real data
# ----------------------
#
# ``diagnose()`` without queries is about the training images, each without itself. At the
# best bandwidth all estimates are in the extreme regime.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity, RegimeDisplay

digits = load_digits()
X, y = digits.data, digits.target
X = X[:, (X > 0).sum(axis=0) > 10]  # the others, at the rim, are nearly always empty
kde = HighDimKernelDensity().fit(X)
diagnosis = kde.diagnose()
print(diagnosis)

n_effective = diagnosis.effective_sample_size
print(f"\nof {len(X)} images,")
for limit in (1.1, 2.0, 3.0):
    print(f"  {np.mean(n_effective < limit):4.0%} rest on fewer than {limit:g} others")
print(f"  the largest number is {n_effective.max():.1f}")

# %%
# Which digits are well supported?
# --------------------------------
#
# Zeros are round and alike: their log densities rest on the most images and are known
# best. Most others are estimates from a single other image.

print("digit  effective number  standard error (nats)")
for digit in range(10):
    of_digit = y == digit
    count = np.median(n_effective[of_digit])
    error = np.median(diagnosis.standard_error[of_digit])
    print(f"{digit:5d} {count:17.2f} {error:22.1f}")

# %%
# At what bandwidth would many images contribute?
# -----------------------------------------------
#
# Far above the best one, where the estimate has forgotten what digits look like. The
# price is many nats for each image.

print("\nbandwidth  effective number  extreme  log density")
for factor in (1.0, 1.5, 2.0, 3.0, 5.0):
    wide = HighDimKernelDensity(bandwidth=factor * kde.bandwidth_).fit(X).diagnose()
    print(
        f"{factor * kde.bandwidth_:9.2f} {np.median(wide.effective_sample_size):17.1f}"
        f" {wide.shares['extreme']:8.0%} {wide.log_density.mean():12.1f}"
    )

# %%
# Figure
# ------
#
# Left, all images in the plane of log density and effective number. Right, four of them,
# from well supported to hardly, with the four images that contribute most and their
# shares of the sum.

figure = plt.figure(figsize=(10, 5), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1.0])
axes = left.subplots()
RegimeDisplay.from_diagnosis(diagnosis, y="effective_sample_size", ax=axes)

order = np.argsort(-n_effective)
chosen = order[(np.array([0.002, 0.1, 0.3, 0.9]) * len(X)).astype(int)]
axes.plot(
    diagnosis.log_density[chosen],
    n_effective[chosen],
    "o",
    color="black",
    fillstyle="none",
    markersize=11,
)
for name, i in zip("ABCD", chosen, strict=True):
    place = diagnosis.log_density[i], n_effective[i]
    axes.annotate(name, place, xytext=(9, 5), textcoords="offset points", weight="bold")

panels = right.subplots(4, 5)
for row, name, i in zip(panels, "ABCD", chosen, strict=True):
    exponents = -0.5 * np.sum((X - X[i]) ** 2, axis=1) / kde.bandwidth_**2
    exponents[i] = -np.inf
    shares = softmax(exponents)
    images = [i, *np.argsort(-shares)[:4]]
    for panel, j in zip(row, images, strict=True):
        panel.imshow(digits.images[j], cmap="gray_r", vmin=0, vmax=16)
        panel.set(xticks=[], yticks=[])
        panel.set_title("" if j == i else f"{shares[j]:.1%}", fontsize=9)
    row[0].set_ylabel(name, rotation=0, labelpad=12, weight="bold", va="center")
    row[0].set_title(f"{n_effective[i]:.1f} points", fontsize=9, weight="bold")
    for spine in row[0].spines.values():
        spine.set_linewidth(2.0)
right.supxlabel("an image, and those behind its density", fontsize=10)

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_digits_regimes.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
