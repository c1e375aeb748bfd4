"""
Have my data changed? A test, what differs, and regions of high density
=======================================================================

A model was made for the data of last month. Do those of this month differ? With
many features no single histogram says so. :func:`~skhdkde.information.two_sample_test`
compares two kernel densities, gives a p-value that is valid for any number of
features, and names the points that differ. What is *typical* is a region that holds
most of the mass: :meth:`~skhdkde.HighDimKernelDensity.density_level` is its edge.
"""

# %%
# Images that moved by one pixel
# ------------------------------
#
# Two batches of 600 images of digits, as 30 principal components. In the second, 90
# images, 15 %, come from a scanner that is off by one pixel.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA

from skhdkde import HighDimKernelDensity
from skhdkde.information import entropy, kl_divergence, two_sample_test

rng = np.random.default_rng(0)
images = rng.permutation(load_digits().images)
first, second = images[:600], images[600:1200].copy()
moved = np.zeros(600, dtype=bool)
moved[rng.choice(600, 90, replace=False)] = True
second[moved] = np.roll(second[moved], 1, axis=1)

pca = PCA(30, random_state=0).fit(images[1200:].reshape(-1, 64))
X, Y = (pca.transform(batch.reshape(-1, 64)) for batch in (first, second))
found = two_sample_test(X, Y, random_state=0)
unchanged = two_sample_test(
    X, pca.transform(images[600:1200].reshape(-1, 64)), random_state=0
)
print("as it came:     ", found)
print("nothing changed:", unchanged)

# %%
# The statistic is the mean log density ratio of the two batches, each image without
# itself, against the same with batches exchanged at random. The images of the second
# batch that are the least like the first are mostly those that moved.

_, rows = found.most_different(12)
print(f"of the 12 most different {moved[rows].sum()} have moved")

figure = plt.figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.3, 1])
axes = left.subplots()
axes.hist(found.null_statistics, bins=25, color="#b0b0b0", label="batches exchanged")
axes.axvline(unchanged.statistic, color="#0072B2", label="nothing changed")
axes.axvline(found.statistic, color="#D55E00", label="15 % moved")
axes.set(xlabel="mean log density ratio (nats)", ylabel="permutations")
axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
right.suptitle("least like the first batch: moved ones in orange", fontsize=10)
for row, ax in zip(rows, right.subplots(3, 4).ravel(), strict=True):
    ax.imshow(second[row], cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color="#D55E00" if moved[row] else "#b0b0b0", linewidth=2.5)

# %%
# How far apart, in nats
# ----------------------
#
# A test says that there is a difference; a divergence says how large it is. Here of
# tumours, in four features: benign ones from malignant ones, and the other way round.
# Each point is scored by densities that have not seen it.

data = load_breast_cancer(as_frame=True)
names = ["mean radius", "mean texture", "mean concavity", "mean symmetry"]
table, benign = data.data[names], data.target == 1
kde = HighDimKernelDensity(
    covariance_type="full", preserve_variance=True, kernel="student", random_state=0
)
groups = {"benign": table[benign], "malignant": table[~benign]}
for name, rest in (("benign", "malignant"), ("malignant", "benign")):
    divergence = kl_divergence(groups[name], groups[rest], estimator=kde)
    print(f"{name} from {rest}: {divergence}")
    print(f"  entropy of {name}: {entropy(groups[name], estimator=kde)}")

# %%
# Regions of high density
# -----------------------
#
# The region that holds 90 % of the benign tumours is where their density is above a
# level. The level comes from held-out log densities, so that nine in ten fresh benign
# ones are inside, up to the error of a quantile.

pair = ["mean radius", "mean texture"]
points, others = (groups[name][pair].to_numpy() for name in groups)
density = HighDimKernelDensity(covariance_type="full", random_state=0).fit(points)
masses = [0.99, 0.9, 0.5]
levels = density.density_level(masses)

x, y = (
    np.linspace(low - 4.0, high + 4.0, 120)
    for low, high in zip(
        points.min(axis=0), np.max([*points, *others], axis=0), strict=True
    )
)
grid = np.column_stack([g.ravel() for g in np.meshgrid(x, y)])
heights = density.score_samples(grid).reshape(len(y), len(x))
figure, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
lines = ax.contour(x, y, heights, levels=levels, colors=["#9ecae1", "#4292c6", "#08519c"])
ax.plot(*points.T, ".", color="0.6", markersize=3, label="benign")
ax.plot(*others.T, "x", color="#D55E00", markersize=3, alpha=0.6, label="malignant")
shares = dict(zip(lines.levels, ("99 %", "90 %", "50 %"), strict=True))
labels = ax.clabel(lines, fmt=shares)
for label in labels:
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8})
ax.set(xlabel=pair[0], ylabel=pair[1])
ax.legend(frameon=False)
inside = np.mean(density.score_samples(others) >= levels[1])
print(f"malignant tumours inside the region of 90 %: {inside:.0%}")
plt.show()
