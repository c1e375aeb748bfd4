"""
How does an estimate scatter?
=============================

Estimate the density at one point from many data sets. The bandwidth decides how the
answers scatter: like a normal variable, like a stable one with a heavy tail, or over
orders of magnitude.
"""

# %%
# Many data sets
# --------------
#
# Normal data, 50 features, 5000 rows, one query. Only squared distances to the query
# matter, and these follow a noncentral chi-square law. So 3000 data sets are quick.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import gamma, logsumexp
from scipy.stats import levy_stable, ncx2, norm

n, d = 5000, 50
law = ncx2(df=d, nc=d)  # of squared distances to a typical query
sq_distances = law.rvs(size=(3000, n), random_state=0)

# %%
# The laws
# --------
#
# Few terms of the sum are large: the number above :math:`v` falls as :math:`v^{-\mu}`,
# with :math:`\mu = (h / h_G)^2`. Up to :math:`\mu = 2` the sum tends to a stable law of
# index :math:`\mu`, beyond to a normal one :cite:p:`biroli2024`. Nothing is fitted below.

nearest = law.ppf(1 / n)  # within this squared distance one row is expected
slope = np.diff(law.logcdf(nearest * np.array([0.9999, 1.0001])))[0] / (2e-4 * nearest)
h_g = 1 / np.sqrt(2 * slope)


def log_moment(h, order):
    """Log of the mean of ``K ** order`` for the kernel ``exp(-E / 2h^2)``."""
    variance = h**2 / order
    return -0.5 * d * np.log1p(1 / variance) - 0.5 * d / (1 + variance)


def stable_law(h):
    """The law of the sum over its mean, in the extreme and the stable regime."""
    mu = (h / h_g) ** 2
    width = (gamma(1 - mu) * np.cos(np.pi * mu / 2)) ** (1 / mu)
    log_scale = -nearest / (2 * h**2) - log_moment(h, 1) - np.log(n)
    center = 0.0 if mu < 1 else np.exp(-log_scale)
    return levy_stable(mu, 1, loc=center, scale=width), log_scale


def normal_law(h):
    """The law of the sum over its mean, in the CLT regime."""
    variance = np.exp(log_moment(h, 2) - 2 * log_moment(h, 1)) - 1
    return norm(1, np.sqrt(variance / n)), 0.0


# %%
# In the extreme regime the mean (zero) is hardly ever seen. It belongs to rare data sets
# with a row very close. In the stable regime the law is somewhat too wide at 50 features.

plt.rc("font", size=16)
figure, axes = plt.subplots(1, 3, figsize=(6, 4), layout="constrained")
cases = {  # h / h_G, the law, ticks
    "extreme": (0.5, stable_law, [-30, -10]),
    "stable": (1.25, stable_law, [0, 1]),
    "CLT": (2.5, normal_law, [-0.03, 0.03]),
}
for ax, (name, (ratio, limit, ticks)) in zip(axes, cases.items(), strict=True):
    h = ratio * h_g
    log_sum = logsumexp(-0.5 * sq_distances / h**2, axis=1) - np.log(n) - log_moment(h, 1)
    edges = np.linspace(*np.quantile(log_sum, [0.001, 0.999]), 40)
    ax.hist(log_sum, edges, density=True, color="0.75")
    of_sum, log_scale = limit(h)
    share = np.diff(of_sum.cdf(np.exp(edges - log_scale))) / np.diff(edges)
    ax.stairs(share, edges, color="#0072B2", linewidth=2)
    ax.set(title=name, xticks=ticks, yticks=[])
    print(f"{name:7}: h = {ratio} h_G, standard deviation {log_sum.std():.2f} nats")
figure.supxlabel("log of the estimate over its mean (nats)", fontsize=16)

plt.show()
