"""
Which of my data do not belong?
===============================

A data set may contain what should not be in it: broken files, wrong units, another
population. Points of low density are suspects. But a point is always likely to a density
that has seen it, the more so the more features there are. Leave-one-out log densities
ask the others instead. This example hides images that are no digits among handwritten
digits, and looks for them.
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
from sklearn.neighbors import LocalOutlierFactor

from skhdkde import HighDimKernelDensity

images = load_digits().images
n_intruders = 50
rng = np.random.default_rng(0)


def some():
    return images[rng.integers(len(images), size=n_intruders)]


turns = rng.integers(1, 4, size=n_intruders)
turned = np.array([np.rot90(image, k) for image, k in zip(some(), turns, strict=True)])
intruders = {
    "turned": turned,
    "shifted": np.roll(some(), 2, axis=2),
    "chimeras": np.concatenate([some()[:, :4], some()[:, 4:]], axis=1),
}
is_intruder = np.arange(len(images) + n_intruders) >= len(images)

# %%
# Five scores
# -----------
#
# ``score_samples(X)`` of the training points themselves is a mistake that is easily made.
# ``score_samples(None)`` leaves each point out of the sum. With kernels of the shape of
# the covariance and heavy tails, two parameters more, it knows which pixels go together.
# Isolation forest and local outlier factor are scikit-learn's, with their defaults.


def odd_scores(X):
    spherical = HighDimKernelDensity().fit(X)
    noisy = X + np.random.default_rng(1).uniform(size=X.shape)  # no pixel is constant
    shaped = HighDimKernelDensity(covariance_type="full", kernel="student").fit(noisy)
    return {
        "each point itself included": -spherical.score_samples(X),
        "leave-one-out": -spherical.score_samples(None),
        "leave-one-out, full, Student": -shaped.score_samples(None),
        "isolation forest": -IsolationForest(random_state=0).fit(X).score_samples(X),
        "local outlier factor": -LocalOutlierFactor().fit(X).negative_outlier_factor_,
    }


data = {
    kind: np.concatenate([images, odd]).reshape(-1, 64) for kind, odd in intruders.items()
}
scores = {kind: odd_scores(X) for kind, X in data.items()}
print("average precision (random order: 0.03)")
print(f"{'':30}" + "".join(f"{kind:>10}" for kind in scores))
for name in scores["turned"]:
    found = [average_precision_score(is_intruder, of[name]) for of in scores.values()]
    print(f"{name:30}" + "".join(f"{each:10.2f}" for each in found))

# %%
# With the point itself in the sum hardly anything is found: its own kernel outweighs all
# others. Left out, the default density is the best at chimeras, which are odd
# though each pixel is usual. Shifted images are odd in single pixels, at the rim; there a
# forest, which splits by single features, has the right view, and so have kernels that
# know each pixel's variance. No score is best for all that can go wrong.
#
# A copy of an intruder would vouch for it: drop duplicates first. And a structure that
# adapts to groups of points, such as ``covariance_type="local"``, may give intruders
# a group of their own; for data that may be dirty take one that cannot.
#
# How many to look at?
# --------------------
#
# A density does not say what is wrong, it gives an order in which to look.

kind = "chimeras"
odd = scores[kind]["leave-one-out"]
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
# rest are digits that nobody else writes that way.

BLUE, VERMILION = "#0072B2", "#D55E00"  # safe for the colour-blind

figure = plt.figure(figsize=(9, 5.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1.6, 1.0])
titles = ["each image itself included", "leave-one-out"]
for axes, title in zip(above.subplots(1, 2), titles, strict=True):
    log_density = -scores[kind][title.replace("image", "point")]
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
    panel.imshow(data[kind][i].reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
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
