"""
What the covariance spectrum does
=================================

Real data vary much in some directions and little in most. The thresholds of a kernel
density estimate depend on the whole spectrum of the covariance, not on the number of
features alone. This example takes normal data of 100 features whose variances fall off
as a power.
"""

# %%
# A spectrum 1/k
# --------------
#
# Three rules for the bandwidth see the data only: ``"kl"`` maximises the leave-one-out
# log density, ``"nearest"`` looks at the nearest neighbours, ``"gaussian"`` puts the
# eigenvalues of the (shrunk) covariance of the data into the theory for normal data. That
# is a limit for many features: it comes out a little small here, and costs 0.2 nats.

import matplotlib.pyplot as plt
import numpy as np

from skhdkde import BandwidthDisplay, HighDimKernelDensity, select_bandwidth
from skhdkde.regimes import gaussian_thresholds

n, d = 20_000, 100
k = np.arange(1, d + 1)
variances = 1.0 / k
rng = np.random.default_rng(0)
X = np.sqrt(variances) * rng.normal(size=(n, d))
queries = np.sqrt(variances) * rng.normal(size=(1000, d))


def true_log_density(Z):
    return -0.5 * np.sum(Z**2 / variances + np.log(2 * np.pi * variances), axis=1)


limit = gaussian_thresholds(n, variances)
print(f"theory:       h_G = {limit.h_g:.4f}, h_KL = {limit.h_kl:.4f}")
found = {}
for rule in ("kl", "nearest", "gaussian", "silverman"):
    kde = HighDimKernelDensity(bandwidth=rule, random_state=0).fit(X)
    loss = np.mean(true_log_density(queries) - kde.score_samples(queries))
    found[rule] = kde.bandwidth_, loss
    print(f"{rule:10s}    h = {kde.bandwidth_:.4f}, KL = {loss:.2f} nats")
kde = HighDimKernelDensity(bandwidth=found["kl"][0]).fit(X)
print(f"measured h_G at the queries, median: {np.median(kde.diagnose(queries).h_g):.4f}")

# %%
# From round to thin
# ------------------
#
# The same for 5000 points and variances :math:`k^{-\gamma}`, scaled to a mean of one.
# The best
# bandwidth falls from the start: it has to resolve the thin directions. ``h_g`` falls
# only where the spectrum is steep, so ever fewer points are behind each estimate.

n = 5000
exponents = np.linspace(0.0, 2.0, 21)
spectra = [k**-g / np.mean(k**-g) for g in exponents]
theory = [gaussian_thresholds(n, c) for c in spectra]
measured = []
for g in (0.0, 0.5, 1.0, 1.5, 2.0):
    c = k**-g / np.mean(k**-g)
    data = np.sqrt(c) * rng.normal(size=(n, d))
    fresh = np.sqrt(c) * rng.normal(size=(300, d))
    h = select_bandwidth(data, random_state=0)
    kde = HighDimKernelDensity(bandwidth=h).fit(data)
    measured.append((g, h, np.median(kde.diagnose(fresh).h_g)))
measured = np.array(measured)

# %%
# Figure
# ------

BLUE, VERMILION = "#0072B2", "#D55E00"  # safe for the colour-blind
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
display = BandwidthDisplay.from_estimator(
    kde.set_params(bandwidth=found["kl"][0]).fit(X),
    queries,
    true_log_density=true_log_density,
    ax=left,
)
left.plot(
    display.bandwidths,
    limit.kl(display.bandwidths),
    color="0.45",
    linestyle=(0, (6, 2)),
    label="limit for many features",
)
marks = {"nearest": "o", "gaussian": "D", "silverman": "X"}
for rule, marker in marks.items():
    left.plot(
        *found[rule],
        marker,
        color="black",
        markersize=7,
        fillstyle="none",
        label=f'"{rule}"',
    )
best = found["kl"][1]
left.set_ylim(0.6 * best, 2.2 * best)
left.set_title("variances 1/k")
left.legend(fontsize="small", loc="lower right")

right.plot(exponents, [t.h_g for t in theory], "--", color=BLUE, label="$h_G$, limit")
right.plot(exponents, [t.h_kl for t in theory], color=VERMILION, label="$h_{KL}$, limit")
right.plot(measured[:, 0], measured[:, 2], "o", color=BLUE, label="$h_G$, measured")
right.plot(measured[:, 0], measured[:, 1], "s", color=VERMILION, label='$h_{KL}$, "kl"')
right.set(
    xlabel=r"exponent $\gamma$ of the variances $k^{-\gamma}$",
    ylabel="bandwidth, in units of the mean scale of the data",
    ylim=(0.0, None),
    title="from round to thin",
)
right.legend(frameon=False)

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_covariance_spectrum.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
