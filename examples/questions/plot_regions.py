"""
Where do nine in ten of the rows lie?
=====================================

The smallest region that holds 90 % of the rows is where the density is above some level.
:meth:`~skhdkde.HighDimKernelDensity.density_level` finds it from log densities of rows
that the fit has not seen, so that it holds 90 % of *fresh* rows, too.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from skhdkde import HighDimKernelDensity

# %%
# Benign tumours
# --------------
#
# Two features, so that the regions can be drawn. The level works with any number.

data = load_breast_cancer(as_frame=True)
table = data.data[["mean radius", "mean texture"]].to_numpy()
benign, malignant = table[data.target == 1], table[data.target == 0]
train, fresh = benign[::2], benign[1::2]
kde = HighDimKernelDensity(covariance_type="full", random_state=0).fit(train)
levels = kde.density_level([0.99, 0.9, 0.5])

inside = [np.mean(kde.score_samples(rows) >= levels[1]) for rows in (fresh, malignant)]
print("inside the region of 90 %:")
print(f"{inside[0]:.0%} of fresh benign tumours, {inside[1]:.0%} of malignant ones")

# %%
x, y = np.linspace(5, 29, 120), np.linspace(7, 40, 120)
grid = np.column_stack([g.ravel() for g in np.meshgrid(x, y)])
heights = kde.score_samples(grid).reshape(120, 120)

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(*malignant.T, "x", color="#D55E00", alpha=0.7, label="malignant")
ax.plot(*fresh.T, ".", color="#0072B2", label="benign")
lines = ax.contour(x, y, heights, levels, colors="black", linestyles="solid")
shares = dict(zip(lines.levels, ("99 %", "90 %", "50 %"), strict=True))
for label in ax.clabel(lines, fmt=shares):
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
ax.set(xlabel="mean radius (unit of the data)", ylabel="mean texture (grey levels)")
ax.legend(frameon=False)

plt.show()
