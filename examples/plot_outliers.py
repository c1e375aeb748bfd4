"""
Outliers, with p-values and a rate of false discoveries
=======================================================

How unlikely is too unlikely? A detector that knows how log densities of usual rows are
spread answers with a p-value: how often a usual row is as unlikely as this one. Of many
small p-values some are false alarms; how many is up to you. This example looks for
turned and mirrored images among images of digits.
"""

# %%
# Learn from digits
# -----------------
#
# The training rows are digits only, which ``trim=0`` tells the detector: by default it
# mistrusts the twentieth of them that is farthest out. New images are other digits, and
# strange ones: turned by a right angle, or mirrored from left to right.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import DensityOutlierDetector

images = load_digits().images
inked = (images > 0).mean(axis=0) > 0.05  # the others are nearly always empty
rng = np.random.default_rng(0)


def split(n_strange=60):
    """Training images, new ones, and which of these are strange."""
    order = rng.permutation(len(images))
    train, usual, strange = np.split(images[order], [1200, 1797 - n_strange])
    half = n_strange // 2
    turned = np.rot90(strange[:half], axes=(1, 2))
    mirrored = strange[half:, :, ::-1]
    new = np.concatenate([usual, turned, mirrored])
    return train[:, inked], new[:, inked], np.arange(len(new)) >= len(usual)


train, new, is_strange = split()
detector = DensityOutlierDetector(trim=0).fit(train)
print(f"{len(train)} images with {train.shape[1]} pixels")

# %%
# P-values
# --------
#
# Those of usual images are spread evenly between 0 and 1, whatever the density. Those of
# strange images are near 0 as far as the density is a good one.

p_values = detector.p_values(new)
for level in (0.01, 0.05, 0.1):
    false, found = (np.mean(p_values[k] <= level) for k in (~is_strange, is_strange))
    print(f"p <= {level:4}: {false:5.1%} of usual images, {found:5.1%} of strange ones")

# %%
# False discoveries
# -----------------
#
# Nine times as many images are usual as are strange, so that of those with ``p <= 0.05``
# a third is usual. With ``fdr`` it is the share among those flagged that is held,
# in the mean over repetitions: here 12 splits.

rates = np.array([0.02, 0.05, 0.1, 0.2, 0.3])
false_share, found_share = np.zeros((2, 12, len(rates)))
for k in range(12):
    train, fresh, strange = split()
    again = DensityOutlierDetector(trim=0).fit(train)
    for j, rate in enumerate(rates):
        flagged = again.predict(fresh, fdr=rate) == -1
        false_share[k, j] = np.sum(flagged & ~strange) / max(1, flagged.sum())
        found_share[k, j] = flagged[strange].mean()
for rate, false, found in zip(rates, false_share.T, found_share.T, strict=True):
    print(f"fdr={rate}: {false.mean():.3f} of those flagged are usual, ", end="")
    print(f"{found.mean():.0%} of strange images are found")

# %%
# Figure
# ------

figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
bins = np.linspace(0.0, 1.0, 21)
kinds = {
    "usual": (p_values[~is_strange], "#0072B2"),
    "strange": (p_values[is_strange], "#D55E00"),
}
for kind, (values, color) in kinds.items():
    share = np.full(len(values), 1.0 / len(values))
    left.hist(values, bins, weights=share, label=kind, color=color, alpha=0.6)
left.axhline(0.05, color="black", linestyle=":", label="uniform")
left.set(
    xlabel="p-value",
    ylabel="share of images",
    title="P-values of usual images are uniform",
)
left.legend(frameon=False)
right.plot(rates, rates, color="black", linestyle=":", label="rate asked for")
right.plot(
    rates, false_share.mean(axis=0), "v-", color="#0072B2", label="false discoveries"
)
right.plot(rates, found_share.mean(axis=0), "^-", color="#D55E00", label="strange, found")
right.set(xlabel="fdr", ylabel="share, mean of 12 splits", ylim=(0.0, 1.0))
right.set_title("No more false ones than asked for")
right.legend(frameon=False)

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_outliers.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
