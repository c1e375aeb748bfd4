r"""
Which regime am I in?
=====================

The bandwidth decides how many rows count. In the *extreme* regime it is the nearest few,
in the *CLT* regime so many that the central limit theorem holds, and between the two is
the *stable* regime. This map shows where they meet for normal data.
"""

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

# %%
# Theory
# ------
#
# With many features the limits depend on :math:`\alpha = \log(n) / d` alone, for
# :math:`n` rows and :math:`d` features.

alphas = np.geomspace(0.02, 1.0, 60)
theory = [gaussian_thresholds(np.exp(100 * alpha), np.ones(100)) for alpha in alphas]
h_g = [each.h_g for each in theory]
h_clt = [each.h_clt for each in theory]
h_kl = [each.h_kl for each in theory]

# %%
# Simulation
# ----------
#
# ``diagnose`` measures ``h_g`` at each query; it does not know that the data are normal.
# ``bandwidth="kl"`` finds the best bandwidth.

rng = np.random.default_rng(0)
rows = []
print("   d     n  alpha   h_g  theory   h_kl  theory")
for d in (20, 50, 100, 200):
    for n in (500, 4000):
        X, queries = rng.normal(size=(n, d)), rng.normal(size=(300, d))
        kde = HighDimKernelDensity().fit(X)
        measured = np.median(kde.diagnose(queries).h_g)
        limit = gaussian_thresholds(n, np.ones(d))
        rows.append([limit.alpha, measured, kde.bandwidth_])
        found = limit.alpha, measured, limit.h_g, kde.bandwidth_, limit.h_kl
        print(f"{d:4d} {n:5d}" + "{:7.3f}{:6.2f}{:8.2f}{:7.2f}{:8.2f}".format(*found))

# %%
# The best bandwidth is in the extreme regime. Marks are measured. They lie above the
# lines by 5 to 15 %, as the lines are limits for many features.

alpha_seen, h_g_seen, h_kl_seen = np.transpose(rows)
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.fill_between(alphas, 0.3, h_g, color="0.8", linewidth=0)
ax.fill_between(alphas, h_g, h_clt, color="0.9", linewidth=0)
ax.loglog(alphas, h_g, "--", color="black", linewidth=2)
ax.loglog(alphas, h_clt, "--", color="black", linewidth=2)
ax.loglog(alphas, h_kl, color="#0072B2", linewidth=3, label="best bandwidth")
ax.plot(alpha_seen, h_kl_seen, "o", color="#0072B2", markersize=8)
ax.plot(alpha_seen, h_g_seen, "s", color="black", label="$h_G$, measured")
for name, y, turn in [("CLT", 4.0, 0), ("stable", 2.1, -24), ("extreme", 0.6, 0)]:
    ax.text(0.022, y, name, rotation=turn, style="italic", fontsize=20)
ax.set(xlim=(0.02, 1), ylim=(0.4, 6), xlabel=r"$\alpha$ = log(rows) / features")
ax.set_ylabel("bandwidth (standard deviations)", fontsize=14)
ax.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
ax.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
ax.tick_params(which="minor", labelbottom=False, labelleft=False)
ax.legend(frameon=False, loc="upper right")

plt.show()
