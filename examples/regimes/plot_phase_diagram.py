"""
The phase diagram
=================

With :math:`n` points in :math:`d` dimensions, a kernel density estimate is in one of
three regimes. For normal data the bandwidths that part them depend on :math:`\\alpha =
\\log(n) / d` alone when :math:`d` is large. This example draws them, and marks what the
estimator finds in simulated data of 10 to 200 features.
"""

# %%
# Theory
# ------
#
# :func:`~skhdkde.regimes.gaussian_thresholds` takes the number of points and the
# eigenvalues of the covariance, here all one. Lines are limits for large ``d``.

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

alphas = np.geomspace(0.02, 1.0, 60)
theory = [gaussian_thresholds(np.exp(100 * alpha), np.ones(100)) for alpha in alphas]
h_g = np.array([t.h_g for t in theory])
h_clt = np.array([t.h_clt for t in theory])
h_kl = np.array([t.h_kl for t in theory])

# %%
# Simulation
# ----------
#
# The estimator is not told that the data are normal. ``diagnose`` measures ``h_g`` at
# each query from the distances of its nearest points, and ``bandwidth="kl"`` finds the
# best bandwidth by leaving each point out.

n_queries = 300
rng = np.random.default_rng(0)
rows = []
print("   d      n  alpha    h_g  theory    h_kl  theory")
for d in (10, 20, 50, 100, 200):
    for n in (500, 2000, 8000):
        X, queries = rng.normal(size=(n, d)), rng.normal(size=(n_queries, d))
        kde = HighDimKernelDensity(random_state=0).fit(X)
        diagnosis = kde.diagnose(queries)
        measured_h_g = np.median(diagnosis.h_g)
        limit = gaussian_thresholds(n, np.ones(d))
        rows.append((limit.alpha, d, measured_h_g, kde.bandwidth_))
        print(
            f"{d:4d} {n:6d}  {limit.alpha:.3f}  {measured_h_g:.3f}   {limit.h_g:.3f}"
            f"   {kde.bandwidth_:.3f}   {limit.h_kl:.3f}"
        )
alpha_seen, d_seen, h_g_seen, h_kl_seen = np.array(rows).T

# %%
# Figure
# ------
#
# Blue marks are measured :math:`h_G`, orange ones the bandwidth that "kl" chose. In the
# limit the best bandwidth lies below ``h_g`` at every ``alpha``: in the extreme
# regime, where a few nearest points decide. So it does in the data from 50 features on.
#
# Measured thresholds lie above their limit, by 5 to 15 percent where there are 20
# features or more. This is not an error of measurement. The limit counts points to
# leading order in ``d``, and the next order shifts the threshold by about as much. With
# 10 features the limit no longer helps: the best bandwidth is above ``h_g``, in the
# stable regime.

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # safe for the colour-blind
MARKERS = {10: "v", 20: "s", 50: "o", 100: "D", 200: "^"}

figure, axes = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
low, high = 0.34, 5.0
for bottom, top, shade in [(low, h_g, "0.85"), (h_g, h_clt, "0.92"), (h_clt, high, "1")]:
    axes.fill_between(alphas, bottom, top, color=shade, linewidth=0)
axes.plot(alphas, h_clt, ":", color=GREEN, linewidth=2, label="$h_{CLT}$, limit")
axes.plot(alphas, h_g, "--", color=BLUE, linewidth=2, label="$h_G$, limit")
axes.plot(alphas, h_kl, color=VERMILION, linewidth=2, label="$h_{KL}$, limit")
for d, marker in MARKERS.items():
    at = d_seen == d
    style = {"linestyle": "none", "marker": marker, "markersize": 6}
    axes.plot(alpha_seen[at], h_g_seen[at], color=BLUE, **style)
    axes.plot(alpha_seen[at], h_kl_seen[at], color=VERMILION, **style)
    axes.plot([], [], color="0.4", label=f"measured, {d} features", **style)
axes.set(
    xscale="log",
    yscale="log",
    xlim=(alphas[0], alphas[-1]),
    ylim=(low, high),
    xlabel=r"$\alpha = \log(n) / d$",
    ylabel="bandwidth, in standard deviations of the data",
)
for text, x, y in [("extreme", 0.025, 0.55), ("stable", 0.055, 1.93), ("CLT", 0.15, 2.5)]:
    axes.text(x, y, text, fontsize=13, style="italic", color="0.35")
for axis, ticks in [
    (axes.xaxis, [0.02, 0.05, 0.1, 0.2, 0.5, 1]),
    (axes.yaxis, [0.5, 1, 2, 4]),
]:
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_phase_diagram.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
