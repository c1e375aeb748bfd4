"""
Densities that win
==================

A kernel that is the same in all directions loses to a single fitted Gaussian on most data
with correlated features. Four changes turn this around: kernels take the covariance of
the data, points are shrunk towards the mean so that the estimate keeps that covariance,
tails get heavy, and each point takes the covariance of its component of a Gaussian
mixture. Each contains the one before as a limit, and the search for the bandwidth says
how far to go. ``covariance_type="auto"`` compares them all. (Maps of features, and
mixtures of the best densities, go further:
:ref:`sphx_glr_auto_examples_questions_plot_stack.py`.)

Here this package and the density estimators of scikit-learn are fitted to the same
training points. What theirs leave open is chosen on validation points; ours choose on the
training points alone. The score is the mean log density of test points that nobody saw.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, kl_scorer

# %%
# Two data sets: images of digits, with noise of one grey level, without which empty
# pixels would have an infinite density; and measurements of tumours, standardised.


def split(X, standardize=False):
    order = np.random.default_rng(0).permutation(len(X))
    n_test = round(0.15 * len(X))
    test, validation, train = np.split(X[order], [n_test, 2 * n_test])
    if standardize:
        scaler = StandardScaler().fit(train)
        train, validation, test = map(scaler.transform, (train, validation, test))
    return train, validation, test


images = load_digits().data
images += np.random.default_rng(0).uniform(size=images.shape)
data = {
    "digits / 17 (64 features)": split(images / 17),
    "breast cancer (30 features)": split(load_breast_cancer().data, standardize=True),
}

# %%
# The estimators of scikit-learn. ``KernelDensity`` needs ``leaf_size=n_samples`` to be
# right with many features.


def theirs(train):
    n_samples, n_features = train.shape
    return {
        "KernelDensity": [
            KernelDensity(bandwidth=h, leaf_size=n_samples)
            for h in np.geomspace(0.05, 1.0, 20)
        ],
        "Gaussian (LedoitWolf)": [LedoitWolf()],
        "probabilistic PCA": [PCA(k) for k in (5, 10, 20, 30, 40, 50) if k < n_features],
        "GaussianMixture": [
            GaussianMixture(k, covariance_type=kind, reg_covar=r, random_state=0)
            for kind, counts in [("full", (1, 2, 4, 8)), ("diag", (10, 20, 40, 80))]
            for k in counts
            for r in (1e-6, 1e-4, 1e-3)
        ],
    }


def mean_log_density(fitted, X):
    if isinstance(fitted, LedoitWolf):  # its score is one
        return fitted.score(X)
    return np.mean(fitted.score_samples(X))


# %%
# And ours, each with one more change than the one before. "auto" takes local covariances,
# one for each component of a mixture, if held-out points are the likelier for them.

full = {"covariance_type": "full"}
ours = {
    "spherical": {},
    "full": full,
    "full, variance preserved": {**full, "preserve_variance": True},
    "  ... with Student's t": {**full, "preserve_variance": True, "kernel": "student"},
    "auto": {"covariance_type": "auto"},
}

scores, chosen = {}, {}
for name, (train, validation, test) in data.items():
    scores[name] = {}
    for label, candidates in theirs(train).items():
        fitted = [candidate.fit(train) for candidate in candidates]
        best = max(fitted, key=lambda f: mean_log_density(f, validation))
        scores[name][label] = mean_log_density(best, test)
    for label, parameters in ours.items():
        kde = HighDimKernelDensity(random_state=0, **parameters).fit(train)
        scores[name][label] = kl_scorer(kde, test)
    chosen[name] = kde  # the last: auto

print(f"{'nats per test point':30}" + "".join(f"{name:>30}" for name in data))
for label in next(iter(scores.values())):
    print(f"{label:30}" + "".join(f"{scores[name][label]:30.2f}" for name in data))

# %%
# In this figure a nat to the right makes every test point ``e`` times as likely.

figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for ax, (name, values) in zip(axes, scores.items(), strict=True):
    lengths = np.array(list(values.values()))
    colors = np.where(np.isin(list(values), list(ours)), "tab:blue", "tab:gray")
    left = lengths.min() - 0.08 * np.ptp(lengths)
    bars = ax.barh(list(values), lengths - left, left=left, color=colors)
    ax.bar_label(bars, [f"{length:.1f}" for length in lengths], padding=3)
    ax.set(title=name, xlabel="mean held-out log density (nats)")
    ax.set_xlim(left, lengths.max() + 0.15 * np.ptp(lengths))
    ax.spines[["top", "right"]].set_visible(False)
axes[0].invert_yaxis()

# %%
# What "auto" compared is in ``bandwidth_search_``, best first with ``to_frame()``.

for name, kde in chosen.items():
    search = kde.bandwidth_search_
    best = sorted(search.candidates, key=lambda c: -c.mean_log_density)
    print(f"{name}: {len(best)} candidates, the best of which are")
    for c in best[:4]:
        shape = c.mixture or c.covariance_type
        print(
            f"  {shape!s:30} {c.kernel}, {c.degrees_of_freedom:.0f} degrees of freedom, "
            f"h = {c.bandwidth:.2f}: {c.mean_log_density:.2f} nats"
        )

# %%
# A density can also be seen by what it draws. From the top: test images; samples of the
# best spherical estimate, which are training images with noise in every pixel; of the
# Gaussian; and of "auto", whose noise is where digits of the same kind differ.

train, _, test = data["digits / 17 (64 features)"]
spherical = HighDimKernelDensity().fit(train)
gaussian = LedoitWolf().fit(train)
draw = np.random.default_rng(0).multivariate_normal
rows = {
    "test": test[:10],
    "spherical": spherical.sample(10, random_state=0),
    "Gaussian": draw(gaussian.location_, gaussian.covariance_, size=10),
    "auto": chosen["digits / 17 (64 features)"].sample(10, random_state=0),
}
figure, axes = plt.subplots(4, 10, figsize=(8, 3.6), layout="constrained")
for row, (label, images) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0.0, vmax=1.0)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(label)

plt.show()
