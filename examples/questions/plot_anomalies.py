"""
Which of my own rows do not belong?
===================================

A data set may contain broken files, wrong units, or rows of another population. This
example hides 50 chimeras among 1797 handwritten digits, and looks for them. A chimera is
the upper half of one digit on the lower half of another.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import LocalOutlierFactor

from skhdkde import HighDimKernelDensity

images = load_digits().images
rng = np.random.default_rng(0)
upper, lower = images[rng.choice(len(images), (2, 50), replace=False)]
chimeras = np.concatenate([upper[:, :4], lower[:, 4:]], axis=1)
images = np.concatenate([images, chimeras])
is_chimera = np.arange(len(images)) >= len(images) - 50
X = images.reshape(len(images), 64)
X = X[:, X.any(axis=0)]

# %%
# Ask the other rows
# ------------------
#
# A row is always likely to a density that has seen it. ``score_samples(None)`` leaves
# each row out of its own sum. The lowest log densities come first. (Drop exact duplicates
# before: a copy of a chimera would vouch for it. ``kde.data_report_`` counts them.)

kde = HighDimKernelDensity().fit(X)
log_density = kde.score_samples(None)
order = np.argsort(log_density)
for n_looked in (10, 25, 50, 100):
    n_found = np.count_nonzero(is_chimera[order[:n_looked]])
    print(f"of the {n_looked:3d} least likely images {n_found:2d} are chimeras")

# %%
# The 15 least likely images. Chimeras have an orange frame. The others are digits that
# nobody else writes that way.

figure, axes = plt.subplots(3, 5, figsize=(6, 4), layout="constrained")
for ax, i in zip(axes.flat, order, strict=False):
    ax.imshow(images[i], cmap="gray_r")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color="#D55E00" if is_chimera[i] else "0.8", linewidth=6)

# %%
# Beside other scores
# -------------------
#
# Average precision is 1 if all chimeras come first, and 0.03 in random order. With each
# row in its own sum little is found. Anomalies of another kind may favour another score.

forest = IsolationForest(random_state=0).fit(X)
scores = {
    "skhdkde, each row left out": log_density,
    "skhdkde, each row in its own sum": kde.score_samples(X),
    "local outlier factor": LocalOutlierFactor().fit(X).negative_outlier_factor_,
    "isolation forest": forest.score_samples(X),
}
for name, score in scores.items():
    print(f"{name:33} {average_precision_score(is_chimera, -score):.2f}")

plt.show()
