"""
Have my data changed?
=====================

A model was made for the data of last month. Do those of this month differ? With many
features no histogram says so. A two-sample test does, and names the rows that differ.
"""

# %%
# Two batches of images
# ---------------------
#
# 600 images each, as 30 principal components. In the second batch 15 % come from a
# scanner that is off by one pixel.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skhdkde.information import two_sample_test

rng = np.random.default_rng(0)
images = rng.permutation(load_digits().images)
first, second = images[:600], images[600:1200].copy()
moved = np.arange(600) < 90
second[moved] = np.roll(second[moved], 1, axis=1)

pca = PCA(30, random_state=0).fit(images[1200:].reshape(-1, 64))
X, Y = (pca.transform(batch.reshape(-1, 64)) for batch in (first, second))
unchanged = pca.transform(images[600:1200].reshape(-1, 64))

# %%
# The test
# --------
#
# The statistic is the mean log density ratio of the batches. It is compared with that of
# batches whose images were exchanged at random, so the p-value is valid with any number
# of features.

found = two_sample_test(X, Y, random_state=0)
control = two_sample_test(X, unchanged, random_state=0)
print("15 % moved:     ", found)
print("nothing changed:", control)
_, rows = found.most_different(12)
print(f"of the 12 most different images {moved[rows].sum()} have moved")

# %%
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.hist(found.null_statistics, bins=25, color="0.7")
ax.axvline(control.statistic, color="#0072B2", linewidth=4, label="nothing changed")
ax.axvline(found.statistic, color="#D55E00", linewidth=4, label="15 % moved")
ax.set(xlabel="mean log density ratio (nats)", ylabel="random exchanges", ylim=(0, 34))
ax.legend(frameon=False, loc="upper center")

plt.show()
