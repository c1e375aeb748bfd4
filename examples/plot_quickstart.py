"""
How likely is each image?
=========================

A density gives each row of your data a number: its log density. High is usual, low is
odd. Here the rows are images of handwritten digits, with 8 x 8 pixels.
"""

# %%
# One fit
# -------
#
# ``fit`` chooses the bandwidth by itself (``bandwidth="kl"``, the default).

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, KFold

from skhdkde import HighDimKernelDensity, kl_scorer

digits = load_digits()
X = digits.data[:, (digits.data > 0).sum(axis=0) > 10]  # the others are empty
kde = HighDimKernelDensity().fit(X)
print(f"{len(X)} images, {X.shape[1]} pixels, bandwidth {kde.bandwidth_:.2f} grey levels")

# %%
# Log densities
# -------------
#
# ``score_samples(None)`` scores each training image by all *other* images. An image in
# its own sum would always look likely.

log_density = kde.score_samples(None)
order = np.argsort(log_density)
print(f"mean log density: {log_density.mean():.1f} nats per image")
print("labels of the 100 most likely: ", np.bincount(digits.target[order[-100:]]))
print("labels of the 100 least likely:", np.bincount(digits.target[order[:100]]))

# %%
# Many of the most likely images are ones, which look much the same. The least likely are
# digits that nobody else writes that way. Above, every tenth of the 50 most likely;
# below, the five least likely.

plt.rc("font", size=17)
figure, axes = plt.subplots(2, 5, figsize=(6.6, 4.0), layout="constrained")
for row, images in zip(axes, [order[::-1][:50:10], order[:5]], strict=True):
    for ax, i in zip(row, images, strict=True):
        ax.imshow(digits.images[i], cmap="gray_r")
        ax.set(title=f"{log_density[i]:.0f}", xticks=[], yticks=[])
axes[0, 0].set_ylabel("usual")
axes[1, 0].set_ylabel("odd")
figure.supxlabel("log density of each image (nats)")

# %%
# Is the bandwidth right?
# -----------------------
#
# Cross-validation tries 20 bandwidths with 10 folds, and takes 201 fits to reach nearly
# the same answer. (Its folds have fewer images, so its bandwidth is slightly larger.)

search = GridSearchCV(
    HighDimKernelDensity(),
    {"bandwidth": np.geomspace(1.5, 3.2, 20)},
    scoring=kl_scorer,
    cv=KFold(10, shuffle=True, random_state=0),
).fit(X)
print(f"by cross-validation: bandwidth {search.best_params_['bandwidth']:.2f}")

# sphinx_gallery_start_ignore
# As a script the example also saves its figure; it needs no display.
import sys
from pathlib import Path

if "sphinx_gallery" not in sys.modules:
    path = Path("plot_quickstart.png").resolve()
    figure.savefig(path, dpi=150)
    print(f"figure saved to {path}")
# sphinx_gallery_end_ignore
plt.show()
