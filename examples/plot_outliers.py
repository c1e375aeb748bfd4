"""
Which rows are anomalies, and how sure can I be?
================================================

A detector gives each new row a p-value. You choose how many false alarms you can bear,
and it keeps to that. This example looks for turned and mirrored images among digits.
"""

# %%
# Learn what is usual
# -------------------
#
# The training rows are clean, which ``trim=0`` tells the detector. The new rows are 537
# other digits and 60 strange images.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import DensityOutlierDetector

images = load_digits().images
inked = (images > 0).mean(axis=0) > 0.05  # the others are nearly always empty
rng = np.random.default_rng(0)


def split():
    """Training rows, new rows, and which of the new ones are strange."""
    train, usual, odd = np.split(rng.permutation(images), [1200, 1737])
    turned, mirrored = np.rot90(odd[:30], axes=(1, 2)), odd[30:, :, ::-1]
    new = np.concatenate([usual, turned, mirrored])
    return train[:, inked], new[:, inked], np.arange(597) >= 537


train, new, is_strange = split()
detector = DensityOutlierDetector(trim=0).fit(train)

# %%
# P-values
# --------
#
# A usual row has a p-value below 0.05 in one case of 20.

p_values = detector.p_values(new)
for level in (0.01, 0.05):
    false, found = (np.mean(p_values[k] <= level) for k in (~is_strange, is_strange))
    print(f"p <= {level:4}: {false:5.1%} of usual images, {found:5.1%} of strange ones")

# %%
# False alarms
# ------------
#
# Usual rows are many, so one in 20 of them may be as many as the anomalies. ``fdr=0.1``
# asks for something else: of the rows that are flagged, a tenth may be false alarms. That
# holds in the mean over repetitions, here eight.

rates = [0.05, 0.1, 0.2, 0.3]
false_share, found_share = np.zeros((2, 8, len(rates)))
for k in range(8):
    train, new, is_strange = split()
    detector.fit(train)
    for j, rate in enumerate(rates):
        flagged = detector.predict(new, fdr=rate) == -1
        false_share[k, j] = np.sum(flagged & ~is_strange) / max(1, flagged.sum())
        found_share[k, j] = flagged[is_strange].mean()
false, found = 100 * false_share.mean(axis=0), 100 * found_share.mean(axis=0)
for row in zip(rates, false, found, strict=True):
    print("fdr={}: {:.0f} % of those flagged are usual, {:.0f} % are found".format(*row))

# %%
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
percent = 100 * np.array(rates)
ax.plot(percent, found, "^-", color="#0072B2", label="anomalies found")
ax.plot(percent, percent, ":", color="black", label="false alarms, asked for")
ax.plot(percent, false, "o-", color="#D55E00", label="false alarms")
ax.set(xlabel="false alarms asked for (%)", ylabel="percent", ylim=(0, 100))
ax.set_title("Fewer false alarms than asked for")
ax.legend(frameon=False)

plt.show()
