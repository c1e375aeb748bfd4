r"""
Does correlation change the best bandwidth?
===========================================

Yes. Real data vary much in a few directions and little in most. The kernel has to resolve
the thin directions, so the best bandwidth is far below that of independent features with
the same total variance.
"""

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

# %%
# 3000 normal rows of 100 features. The variances along the principal axes are
# :math:`k^{-\gamma}`: all equal for :math:`\gamma = 0`, and very different for 2. Their
# mean is always one. Lines are the theory for many features, marks are what the estimator
# finds in data.

n, k = 3000, np.arange(1, 101)
rng = np.random.default_rng(0)
exponents = np.linspace(0.0, 2.0, 21)
theory = [gaussian_thresholds(n, k**-g / np.mean(k**-g)) for g in exponents]

measured = []
print("exponent   best bandwidth    h_G")
for g in (0.0, 0.5, 1.0, 1.5, 2.0):
    scales = np.sqrt(k**-g / np.mean(k**-g))
    X, queries = scales * rng.normal(size=(n, 100)), scales * rng.normal(size=(300, 100))
    kde = HighDimKernelDensity().fit(X)
    measured.append([g, kde.bandwidth_, np.median(kde.diagnose(queries).h_g)])
    print("{:8} {:16.2f} {:6.2f}".format(*measured[-1]))
g, h_kl, h_g = np.transpose(measured)

# %%
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.plot(exponents, [t.h_kl for t in theory], color="#0072B2", linewidth=2)
ax.plot(g, h_kl, "o", color="#0072B2", markersize=10, label="best bandwidth")
ax.plot(exponents, [t.h_g for t in theory], "--", color="black", linewidth=2)
ax.plot(g, h_g, "s", color="black", markersize=8, label="$h_G$")
ax.set(xlabel=r"exponent $\gamma$ of the variances", ylim=(0, 2.2))
ax.set(ylabel="bandwidth")
ax.legend(frameon=False)

plt.show()
