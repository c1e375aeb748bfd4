"""
Can I trust this number?
========================

Would other data give another log density? ``diagnose`` says by how much. This example
compares its error bar with the truth, and with the formula of textbooks.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import ncx2

from skhdkde import HighDimKernelDensity

# %%
# One query among normal rows of 50 features. The true error is the spread of its log
# density over 1000 data sets of 5000 rows. Only distances to the query matter, and these
# follow a noncentral chi-square law.

n, d = 5000, 50
rng = np.random.default_rng(0)
query = rng.normal(size=(1, d))
query *= np.sqrt(d) / np.linalg.norm(query)  # at a typical distance from the mean
sq_distances = ncx2(df=d, nc=d).rvs(size=(1000, n), random_state=rng)

# %%
# ``standard_error`` comes from a single data set. Here is its median over 15. The
# textbook takes each row for one of many that count: ``sqrt(1 / effective_sample_size - 1
# / n)``.

data_sets = rng.normal(size=(15, n, d))
best = HighDimKernelDensity().fit(data_sets[0]).bandwidth_
rows = []
for h in best * np.array([0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0]):
    truth = logsumexp(-0.5 * sq_distances / h**2, axis=1).std()
    found = [HighDimKernelDensity(bandwidth=h).fit(X).diagnose(query) for X in data_sets]
    stated = np.median([one.standard_error for one in found])
    shares = np.array([1 / one.effective_sample_size for one in found])
    rows.append([h, truth, stated, np.median(np.sqrt(np.maximum(shares - 1 / n, 0)))])

print("bandwidth   true error   stated   textbook   (nats)")
for row in rows:
    print("{:9.2f} {:12.2f} {:8.2f} {:10.2f}".format(*row))

# %%
# At the best bandwidth (dotted) the textbook is several times too small: only a few rows
# count there. Far above it the textbook is right, too.

bandwidths, truth, stated, textbook = np.transpose(rows)
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(bandwidths, truth, "o", color="black", markersize=10, label="true error")
ax.plot(bandwidths, stated, color="#0072B2", linewidth=3, label="skhdkde")
ax.plot(bandwidths, textbook, "--", color="#D55E00", linewidth=3, label="textbook")
ax.axvline(best, color="0.5", linestyle=":")
ax.set(xlabel="bandwidth (standard deviations)", ylabel="error bar (nats)")
ax.legend(frameon=False)

plt.show()
