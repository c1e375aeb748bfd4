"""
Which class is it, or none of these?
====================================

Most classifiers must choose a class, whatever they are shown. A classifier made of one
density per class may refuse. Here it has never seen a 9 or an image that is turned.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skhdkde import DensityClassifier, HighDimKernelDensity

X, y = load_digits(return_X_y=True)
X_train, X_fresh, y_train, y_fresh = train_test_split(
    X / 16, y, test_size=0.5, stratify=y, random_state=0
)
is_known = y_fresh != 9

# %%
# A density for each class
# ------------------------
#
# ``reject=0.05`` refuses an image if fewer than 5 % of the training images of each class
# are as unlikely.

density = HighDimKernelDensity(
    covariance_type="full", kernel="student", preserve_variance=True, random_state=0
)
classifier = make_pipeline(
    PCA(16, random_state=0), DensityClassifier(density, reject=0.05)
).fit(X_train[y_train != 9], y_train[y_train != 9])
logistic = LogisticRegression(max_iter=1000).fit(
    X_train[y_train != 9], y_train[y_train != 9]
)

# %%
# What is refused
# ---------------
#
# The share of images that the classifier refuses. Logistic regression may refuse, too:
# all that are below the probability that 95 % of the known digits exceed.

turned = np.rot90(X_fresh[is_known].reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
kinds = {"0 to 8": X_fresh[is_known], "9": X_fresh[~is_known], "turned": turned}
threshold = np.quantile(logistic.predict_proba(kinds["0 to 8"]).max(axis=1), 0.05)
refused = {"densities": [], "logistic regression": []}
for images in kinds.values():
    unsure = logistic.predict_proba(images).max(axis=1) < threshold
    refused["logistic regression"].append(100 * unsure.mean())
    refused["densities"].append(100 * np.mean(classifier.predict(images) == -1))
for name, shares in refused.items():
    listed = ", ".join(f"{k}: {s:.0f} %" for k, s in zip(kinds, shares, strict=True))
    print(f"{name} refuse {listed}")

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
places = np.arange(3)
for (name, shares), side, color in zip(
    refused.items(), (-0.2, 0.2), ("#0072B2", "#D55E00"), strict=True
):
    bars = ax.bar(places + side, shares, 0.4, label=name, color=color)
    ax.bar_label(bars, fmt="%.0f %%")
ax.set_xticks(places, ["known digit", "unknown digit", "turned"])
ax.set(ylabel="images refused (%)", ylim=(0, 119), yticks=[0, 50, 100])
ax.legend(frameon=False, loc="upper left")

# %%
# How often the answer is right
# -----------------------------
#
# Here are the known digits that are not refused. An image between two classes, such as
# the average of a 3 and a 5, has no low density. For these ask ``predict_proba``.

known, labels = kinds["0 to 8"], y_fresh[is_known]
answers = classifier.predict(known)
given = answers != -1
print(f"densities: {np.mean(answers[given] == labels[given]):.1%} right")
sure = logistic.predict_proba(known).max(axis=1) >= threshold
print(f"logistic regression: {logistic.score(known[sure], labels[sure]):.1%} right")

plt.show()
