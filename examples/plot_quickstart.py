"""
Density of handwritten digits
=============================

An image of 8 x 8 pixels is a point in 64 dimensions. This example estimates the density
of such images, checks the chosen bandwidth by cross-validation, and lists the images
that the density finds most and least likely.
"""

# %%
# One fit
# -------
#
# ``bandwidth="kl"`` is the default. It maximises the mean log density of each image
# given all others. A grid of bandwidths shares one pass over the pairs of images.

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, KFold

from skhdkde import HighDimKernelDensity, kl_scorer

digits = load_digits()
X = digits.data
X = X[:, (X > 0).sum(axis=0) > 10]  # 10 pixels at the rim are nearly always empty
print(f"{X.shape[0]} images with {X.shape[1]} pixels, values 0 to {X.max():.0f}")

start = perf_counter()
kde = HighDimKernelDensity(bandwidth="kl").fit(X)
kl_seconds = perf_counter() - start
print(f'bandwidth="kl":  {kde.bandwidth_:.3f}  ({kl_seconds:.2f} s, one fit)')

# %%
# The same by cross-validation
# ----------------------------
#
# ``kl_scorer`` is the mean log density of held-out images. It equals minus the
# Kullback-Leibler divergence from the true density, up to a constant, so the best
# score marks the best bandwidth.
#
# The two answers need not agree to all digits. The folds train on nine tenths of the
# images, and fewer points call for a larger bandwidth. The split into folds adds noise,
# and the grid has finite steps. To compare like with like, "kl" also enters the grid
# as a candidate: it then chooses its bandwidth from each fold's training images alone.

grid = np.geomspace(1.5, 3.2, 39)
search = GridSearchCV(
    HighDimKernelDensity(),
    {"bandwidth": [*grid, "kl"]},
    scoring=kl_scorer,
    cv=KFold(n_splits=10, shuffle=True, random_state=0),
)
start = perf_counter()
search.fit(X)
cv_seconds = perf_counter() - start

results = search.cv_results_
splits = range(search.n_splits_)
fold_scores = np.array([results[f"split{i}_test_score"] for i in splits])
cv_mean = fold_scores.mean(axis=0)
cv_error = fold_scores.std(axis=0, ddof=1) / np.sqrt(search.n_splits_)
best = cv_mean[:-1].argmax()
n_fits = fold_scores.size + 1

print(f"GridSearchCV:    {grid[best]:.3f}  ({cv_seconds:.2f} s, {n_fits} fits)")
print(
    f"they differ by {abs(np.log(kde.bandwidth_ / grid[best])):.1%}; "
    f"the grid has steps of {grid[1] / grid[0] - 1:.1%}"
)
print(
    "mean held-out log density, nats per image:\n"
    f"  best fixed bandwidth      {cv_mean[best]:.2f} +- {cv_error[best]:.2f}\n"
    f'  "kl" from training folds  {cv_mean[-1]:.2f} +- {cv_error[-1]:.2f}'
)

# %%
# Odd digits
# ----------
#
# ``score_samples(None)`` is the log density of each training image given all others.
# Its lowest values belong to images unlike any other. As a check that uses the labels,
# which the density has not seen: how often has the nearest other image another label?

log_density = kde.score_samples(None)
order = np.argsort(log_density)
least, most = order[:10], order[::-1][:10]

sq_norms = np.sum(X**2, axis=1)
sq_distances = sq_norms[:, None] + sq_norms - 2 * X @ X.T
np.fill_diagonal(sq_distances, np.inf)
confused = digits.target[sq_distances.argmin(axis=1)] != digits.target
n_odd = len(X) // 20

print(f"leave-one-out log density: {log_density.mean():.1f} nats on average")
for name, rows in [("least", least), ("most", most)]:
    labels = " ".join(str(label) for label in digits.target[rows])
    low, high = log_density[rows].min(), log_density[rows].max()
    print(f"  ten {name} likely: labels {labels}, {low:.1f} to {high:.1f} nats")
odd_share = confused[order[:n_odd]].mean()
other_share = confused[order[n_odd:]].mean()
print(
    f"nearest image has another label: {odd_share:.1%} of the {n_odd} least likely, "
    f"{other_share:.1%} of the rest"
)

# %%
# What it looks like
# ------------------
#
# Both curves peak at nearly the same bandwidth. The leave-one-out points lie a little
# above the line: they train on all images but one, the folds on nine tenths. The band
# and the bars are one standard error. The ten most likely images are all ones.

VERMILION, BLUE = "#D55E00", "#0072B2"  # safe for the colour-blind

figure = plt.figure(figsize=(7.5, 6.6), layout="constrained")
curves, pictures = figure.subfigures(2, 1, height_ratios=[2.0, 1.0])

axes = curves.subplots()
axes.plot(grid, cv_mean[:-1], color=BLUE, label="10-fold cross-validation")
axes.fill_between(
    grid,
    cv_mean[:-1] - cv_error[:-1],
    cv_mean[:-1] + cv_error[:-1],
    color=BLUE,
    alpha=0.2,
    linewidth=0,
)
loo = kde.bandwidth_search_
shown = (loo.bandwidths > grid[0]) & (loo.bandwidths < grid[-1])
axes.errorbar(
    loo.bandwidths[shown],
    loo.mean_log_density[shown],
    loo.standard_error[shown],
    fmt="o",
    color=VERMILION,
    capsize=3,
    label="leave-one-out, from the one fit",
)
best_label = f"best of the grid: {grid[best]:.3f}"
kl_label = f'"kl": {kde.bandwidth_:.3f}'
axes.axvline(grid[best], color=BLUE, linestyle="--", label=best_label)
axes.axvline(kde.bandwidth_, color=VERMILION, linestyle=":", label=kl_label)
axes.set(
    xscale="log",
    xlabel="bandwidth (pixel values)",
    ylabel="mean held-out log density (nats)",
)
ticks = [1.5, 2.0, 2.5, 3.0]
axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
axes.set_xticks([], minor=True)
axes.legend(loc="lower right", frameon=False)

grid_of_images = pictures.subplots(2, 10)
for row, (name, rows) in zip(
    grid_of_images, [("most likely", most), ("least likely", least)], strict=True
):
    for panel, i in zip(row, rows, strict=True):
        panel.imshow(digits.images[i], cmap="gray_r", vmin=0, vmax=16)
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"{log_density[i]:.0f}", fontsize=9)
    row[0].set_ylabel(name)
caption = "above each image: its leave-one-out log density (nats)"
pictures.supxlabel(caption, fontsize=9)

# sphinx_gallery_start_ignore
# Run as a script, the example also saves its figure; it needs no display.
import sys
from pathlib import Path

if "sphinx_gallery" not in sys.modules:
    path = Path("plot_quickstart.png").resolve()
    figure.savefig(path, dpi=150)
    print(f"figure saved to {path}")
# sphinx_gallery_end_ignore
plt.show()
