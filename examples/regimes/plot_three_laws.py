"""
Three laws of one estimate
==========================

Estimate the density at one and the same point from many fresh data sets. How do the
answers scatter? The bandwidth decides: like a normal variable, like a stable one with a
heavy tail, or over orders of magnitude. Textbook error bars know the first case only.
"""

# %%
# Fresh data sets
# ---------------
#
# Normal data, 50 features, 5000 points, one query. Only squared distances to the query
# matter, and for normal data they follow a noncentral chi-square law. So a fresh data set
# is 5000 draws from it, and 3000 data sets are quick.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import gamma, logsumexp
from scipy.stats import levy_stable, ncx2, norm

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

n, d, n_sets = 5000, 50, 3000
rng = np.random.default_rng(0)
x = rng.normal(size=d)
x *= np.sqrt(d) / np.linalg.norm(x)  # a typical query
law = ncx2(df=d, nc=x @ x)

h_g_limit = gaussian_thresholds(n, np.ones(d)).h_g
nearest = law.ppf(1.0 / n)  # squared distance within which one point is expected
step = 1e-4 * nearest
slope = (law.logcdf(nearest + step) - law.logcdf(nearest - step)) / (2 * step)
h_g = 1.0 / np.sqrt(2.0 * slope)  # the terms exp(-E / 2h^2) have tail index one
print(f"h_G: {h_g:.3f} at {d} features, {h_g_limit:.3f} in the limit")

# %%
# Predicted laws
# --------------
#
# The sum of :math:`n` terms, of which :math:`(v / v_1)^{-\mu}` are expected above
# :math:`v`, tends to a totally skewed :math:`\mu`-stable variable of scale :math:`v_1
# (\Gamma(1 - \mu) \cos(\pi\mu/2))^{1/\mu}`, around its mean where :math:`\mu > 1`. For
# :math:`\mu > 2` it tends to a normal one. Nothing is fitted below: :math:`\mu`,
# :math:`v_1` and the moments follow from the law of the distances.


def log_moment(h, order):
    """Log of the mean of K ** order for the kernel exp(-E / 2h^2)."""
    variance = h**2 / order
    return -0.5 * d * np.log1p(1 / variance) - 0.5 * x @ x / (1 + variance)


def stable_law(h, log_ratio):
    """Density of log(estimate / its mean)."""
    mu = (h / h_g) ** 2
    log_v1 = -0.5 * nearest / h**2 - np.log(n) - log_moment(h, 1)
    scale = np.exp(log_v1) * (gamma(1 - mu) * np.cos(0.5 * np.pi * mu)) ** (1 / mu)
    mean = 0.0 if mu < 1 else 1.0
    # by frequencies of many draws: far faster than the density at each point
    draws = levy_stable(mu, 1.0, loc=mean, scale=scale).rvs(10**6, random_state=1)
    edges = np.linspace(log_ratio[0], log_ratio[-1], 100)
    share = np.histogram(np.log(draws[draws > 0.0]), edges)[0] / len(draws)
    return np.interp(log_ratio, 0.5 * (edges[1:] + edges[:-1]), share / np.diff(edges))


def normal_law(h, log_ratio):
    variance = (np.exp(log_moment(h, 2) - 2 * log_moment(h, 1)) - 1.0) / n
    return norm(0.0, np.sqrt(variance)).pdf(log_ratio)


# %%
# Simulation
# ----------
#
# Beside the histograms: what the estimator says of its own uncertainty when it has seen a
# single data set, here as medians over 20 of them, and what the textbook formula says,
# ``sqrt(1 / effective_sample_size - 1 / n)``.

sq_distances = law.rvs(size=(n_sets, n), random_state=rng)
cases = {"extreme": 0.5, "stable": 1.25, "clt": 2.5}
laws = {"extreme": stable_law, "stable": stable_law, "clt": normal_law}
single_sets = [rng.normal(size=(n, d)) for _ in range(20)]

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # safe for the colour-blind
figure, panels = plt.subplots(1, 3, figsize=(10, 4.2), layout="constrained")
print("                 measured   error bar   textbook")
for axes, (regime, ratio) in zip(panels, cases.items(), strict=True):
    h = ratio * h_g
    log_ratio = logsumexp(-0.5 * sq_distances / h**2, axis=1) - np.log(n)
    log_ratio -= log_moment(h, 1)
    fits = [HighDimKernelDensity(bandwidth=h).fit(X) for X in single_sets]
    diagnoses = [kde.diagnose(x[None]) for kde in fits]
    error_bar = np.median([each.standard_error for each in diagnoses])
    n_effective = np.array([each.effective_sample_size for each in diagnoses])
    textbook = np.median(np.sqrt(np.maximum(1 / n_effective - 1 / n, 0.0)))
    spread = log_ratio.std()
    print(
        f"{ratio:4} h_G ({regime:7})"
        f" {spread:6.3f}      {error_bar:6.3f}     {textbook:6.3f}"
    )

    low, high = np.quantile(log_ratio, [0.0005, 0.9995])
    grid = np.linspace(low, high, 300)
    axes.hist(log_ratio, np.linspace(low, high, 50), density=True, color="0.8")
    name = "normal law" if regime == "clt" else f"stable law, index {ratio**2:.2f}"
    axes.plot(grid, laws[regime](h, grid), color=BLUE, label=name)
    top = axes.get_ylim()[1]
    middle = np.median(log_ratio)
    for name, height, error, color in [
        ("spread, measured", 1.16, spread, "black"),
        ("diagnose", 1.10, error_bar, GREEN),
        ("textbook", 1.04, textbook, VERMILION),
    ]:
        axes.errorbar(
            middle,
            height * top,
            xerr=error,
            color=color,
            capsize=4,
            linewidth=2,
            label=name,
        )
    axes.axvline(0.0, ymax=0.6, color="black", linestyle=":", linewidth=1)
    axes.set_ylim(0.0, 1.65 * top)
    axes.set(title=f"{regime}: h = {ratio:g} $h_G$", yticks=[])
    axes.legend(frameon=False, loc="upper left", fontsize=9)
figure.supxlabel(
    "log of the estimate over its mean (nats); dotted: the mean", fontsize=10
)

# %%
# In the extreme regime the mean is hardly ever seen: half of the data sets give less
# than it by nine orders of magnitude or more. The mean belongs to rare data sets with a
# point very close. The textbook error bar is several times too short there.
#
# The limit laws are near, but too wide, most so in the stable regime: at 50 features the
# number of points falls off faster towards the query than a power law says. The error
# bars of ``diagnose`` take this into account (see the guide to regimes).

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_three_laws.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
