"""
How likely is a row of counts?
==============================

Counts have no density: kernels around whole numbers become ever narrower, and log
densities say how narrow. With ``discrete_features="auto"`` a whole number stands for all
values that round to it, and log densities are log probabilities.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import poisson

from skhdkde import HighDimKernelDensity

# %%
# Three counts in each of 2000 rows, from Poisson laws. So the true probability of each
# row is known.

rate = np.array([0.7, 2.0, 5.0])
rng = np.random.default_rng(0)
train, fresh = rng.poisson(rate, size=(2, 2000, 3)).astype(float)
truth = poisson(rate).logpmf(fresh).sum(axis=1)

as_counts = HighDimKernelDensity(
    covariance_type="auto", discrete_features="auto", random_state=0
).fit(train)
as_numbers = HighDimKernelDensity(covariance_type="auto", random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # one that says: features are discrete
    as_numbers.fit(train)
for name, kde in {"as counts": as_counts, "as numbers": as_numbers}.items():
    error = np.mean(kde.score_samples(fresh) - truth)
    whole = np.mean(kde.sample(1000, random_state=0) % 1 == 0)
    print(f"{name:10} log density - log probability: {error:5.2f} nats", end=", ")
    print(f"{whole:.0%} of the samples are whole numbers")

# %%
# ``data_report_`` says what was found in the table.

print(as_counts.data_report_)

# %%
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(truth, as_numbers.score_samples(fresh), "x", color="#D55E00", label="as numbers")
ax.plot(truth, as_counts.score_samples(fresh), ".", color="#0072B2", label="as counts")
ax.axline((-8, -8), slope=1, color="black", linestyle="--")
ax.set(xlabel="true log probability (nats)", ylabel="log density (nats)")
ax.legend(frameon=False)

plt.show()
