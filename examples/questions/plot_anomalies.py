"""
Which of my data do not belong?
===============================

A data set may contain anomalies, which should not be in it: broken files, wrong units,
another population. Points of low density, outliers, are suspects. But a point is always
likely to a density that has seen it, the more so the more features there are.
Leave-one-out log densities ask the others instead. This example hides images that are no
digits among handwritten digits, and looks for them.
"""

# %%
# Three kinds of intruders
# ------------------------
#
# 50 images are added to the 1797 digits: turned by 90, 180 or 270 degrees, shifted by two
# of the eight columns, or chimeras, the upper half of one digit on the lower half of
# another. Pixels and strokes are real ones in all.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from skhdkde import HighDimKernelDensity

images = load_digits().images
n_intruders = 50
is_intruder = np.arange(len(images) + n_intruders) >= len(images)


def with_intruders(seed):
    """Data sets by kind of intruder; the last 50 rows are intruders."""
    rng = np.random.default_rng(seed)
    one, other = images[rng.choice(len(images), (2, n_intruders), replace=False)]
    turns = rng.integers(1, 4, size=n_intruders)
    odd = {
        "turned": [np.rot90(image, k) for image, k in zip(one, turns, strict=True)],
        "shifted": np.roll(one, 2, axis=2),
        "chimeras": np.concatenate([one[:, :4], other[:, 4:]], axis=1),
    }
    return {kind: np.vstack([images, rows]).reshape(-1, 64) for kind, rows in odd.items()}


# %%
# Many scores
# -----------
#
# ``score_samples(X)`` of the training points themselves is a mistake that is easily made.
# ``score_samples(None)`` leaves each point out of the sum. With
# ``covariance_type="full"`` the kernels know which pixels vary, and which vary together;
# as each point has a share in that, ``held_out_log_density_`` scores it by a covariance
# of other points. Beside these are the usual scores of scikit-learn, with several
# numbers of neighbours where there is a choice: with labels that one does not have, one
# would know which is best.


def odd_scores(X):
    inked = X[:, X.any(axis=0)]
    spherical = HighDimKernelDensity().fit(inked)
    noisy = X + np.random.default_rng(1).uniform(size=X.shape)  # no pixel is constant
    full = HighDimKernelDensity(covariance_type="full").fit(noisy)
    distances = NearestNeighbors(n_neighbors=5).fit(X).kneighbors()[0]
    scores = {
        "each point itself included": -spherical.score_samples(inked),
        "leave-one-out": -spherical.score_samples(None),
        "held out, full": -full.held_out_log_density_,
        "distance to the nearest": distances[:, 0],
        "mean distance to 5": distances.mean(axis=1),
        "isolation forest": -IsolationForest(random_state=0).fit(X).score_samples(X),
    }
    for k in (5, 20, 100):
        factor = LocalOutlierFactor(n_neighbors=k).fit(X)
        scores[f"local outlier factor, {k}"] = -factor.negative_outlier_factor_
    return scores


draws = [with_intruders(seed) for seed in range(3)]
scores = [{kind: odd_scores(X) for kind, X in draw.items()} for draw in draws]
print("average precision, mean of 3 draws (random order: 0.03)")
print(f"{'':30}" + "".join(f"{kind:>10}" for kind in scores[0]))
for name in scores[0]["turned"]:
    found = [
        np.mean([average_precision_score(is_intruder, one[kind][name]) for one in scores])
        for kind in scores[0]
    ]
    print(f"{name:30}" + "".join(f"{each:10.2f}" for each in found))

# %%
# With the point itself in the sum little is found: its own kernel outweighs all others.
# Left out, the default log density ranks as the distance to the nearest other image
# does, since at its bandwidth the nearest decides; it adds the scale, in nats, and an
# error bar. It is among the best at chimeras, which are odd though each pixel is usual.
# Shifted images are odd in single pixels, at the rim; there a forest, which splits by
# single features, has the right view, and so have kernels that know how each pixel
# varies. No score is best for all that can go wrong.
#
# A duplicate of an intruder would vouch for it: drop duplicates first. And a structure
# that adapts to groups of points, such as ``covariance_type="local"``, may give
# intruders a group of their own; for data that may be dirty take one that cannot.
#
# How many to look at?
# --------------------
#
# A density does not say what is wrong, it gives an order in which to look.

kind = "chimeras"
odd = scores[0][kind]["leave-one-out"]
order = np.argsort(-odd)
for n_looked in (10, 25, 50, 100):
    n_found = np.count_nonzero(is_intruder[order[:n_looked]])
    print(f"of the {n_looked:3d} least likely images {n_found:2d} are chimeras")

# %%
# Figure
# ------
#
# Above, log densities of digits and chimeras. To the left each image is in its own sum:
# nearly all have the same value, that of their own kernel. To the right it is left out.
# Below, the images that are least likely given all others; framed ones are chimeras. The
# others are digits that nobody else writes that way.

BLUE, VERMILION = "#0072B2", "#D55E00"  # safe for the colour-blind

figure = plt.figure(figsize=(9, 5.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1.6, 1.0])
titles = ["each image itself included", "leave-one-out"]
for axes, title in zip(above.subplots(1, 2), titles, strict=True):
    log_density = -scores[0][kind][title.replace("image", "point")]
    bins = np.linspace(-235, -110, 51)
    for name, rows, color in [
        ("digits", ~is_intruder, BLUE),
        ("chimeras", is_intruder, VERMILION),
    ]:
        axes.hist(
            np.maximum(log_density[rows], bins[0]),
            bins,
            density=True,
            color=color,
            alpha=0.6,
            label=name,
        )
    axes.set(title=title, xlabel="log density (nats)", ylabel="frequency", yticks=[])
    axes.legend(frameon=False, loc="upper center")

panels = below.subplots(2, 12)
for panel, i in zip(panels.flat, order, strict=False):
    panel.imshow(draws[0][kind][i].reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
    panel.set(xticks=[], yticks=[])
    panel.set_title(f"{-odd[i]:.0f}", fontsize=8)
    for spine in panel.spines.values():
        spine.set(
            color=VERMILION if is_intruder[i] else "0.7",
            linewidth=3.0 if is_intruder[i] else 0.8,
        )
below.supxlabel(
    "the 24 least likely, with their log densities; chimeras are framed", fontsize=9
)
# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_anomalies.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
