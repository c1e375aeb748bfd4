"""
What this package is for
========================

Which bandwidth is best, in which regime it lies, and how far a log density can be trusted
there. Normal data of 50 features have known answers to all three, so that one figure can
hold estimates against them.
"""

# %%
# The best bandwidth
# ------------------
#
# 5000 training points, 500 fresh ones. For these the true log density is known, and with
# it the Kullback-Leibler divergence of an estimate from the truth: the mean of the
# difference. One fit with the default ``bandwidth="kl"`` finds the bandwidth at which it
# is smallest, without knowing the truth. Rules of thumb do not, and scikit-learn's
# ``KernelDensity`` reports densities that are wrong.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import ncx2, norm
from sklearn.neighbors import KernelDensity

from skhdkde import HighDimKernelDensity

n, d = 5000, 50
rng = np.random.default_rng(0)
X, fresh = rng.normal(size=(n, d)), rng.normal(size=(500, d))
truth = norm.logpdf(fresh).sum(axis=1)

best = HighDimKernelDensity().fit(X)
silverman = HighDimKernelDensity(bandwidth="silverman").fit(X)
diagnosis = best.diagnose(fresh)
h_g, h_clt = np.median(diagnosis.h_g), np.median(diagnosis.h_clt)


def divergence(estimate):
    return np.mean(truth - estimate.score_samples(fresh))


bandwidths = np.geomspace(0.55, 2.6, 40)
kl = [divergence(HighDimKernelDensity(bandwidth=h).fit(X)) for h in bandwidths]
their_bandwidths = np.geomspace(0.55, 2.6, 12)
their_kl = [divergence(KernelDensity(bandwidth=h).fit(X)) for h in their_bandwidths]

print(f'"kl":        bandwidth {best.bandwidth_:.3f}, divergence {divergence(best):.2f}')
print(
    f'"silverman": bandwidth {silverman.bandwidth_:.3f}, '
    f"divergence {divergence(silverman):.2f}"
)
print(f"best of {len(bandwidths)}: {bandwidths[np.argmin(kl)]:.3f}, {min(kl):.2f} nats")
print(f"regimes meet at h_G = {h_g:.2f} and h_CLT = {h_clt:.2f}")

# %%
# The error bar
# -------------
#
# Would another data set give another log density? For one query, 2000 fresh data sets
# tell: only their distances to the query matter, and these follow a noncentral chi-square
# law. ``diagnose`` knows a single data set. Here are the medians of what it says on 20.

query = rng.normal(size=d)
query *= np.sqrt(d) / np.linalg.norm(query)  # at a typical distance from the mean
sq_distances = ncx2(df=d, nc=d).rvs(size=(2000, n), random_state=rng)
data_sets = [rng.normal(size=(n, d)) for _ in range(20)]

spread, error_bar, textbook = [], [], []
shown = bandwidths[::3]
for h in shown:
    spread.append(logsumexp(-0.5 * sq_distances / h**2, axis=1).std())
    fits = [HighDimKernelDensity(bandwidth=h).fit(data) for data in data_sets]
    of_each = [fit.diagnose(query[None]) for fit in fits]
    error_bar.append(np.median([one.standard_error for one in of_each]))
    shares = np.array([1.0 / one.effective_sample_size for one in of_each])
    textbook.append(np.median(np.sqrt(np.maximum(shares - 1.0 / n, 0.0))))

print(" h / h_G   true spread   error bar   textbook  (nats)")
for row in zip(shown / h_g, spread, error_bar, textbook, strict=True):
    print("{:8.2f} {:13.3f} {:11.3f} {:10.3f}".format(*row))

# %%
# One figure
# ----------
#
# The best bandwidth lies in the extreme regime, where a few nearest points decide. There
# the textbook's error bar is two to six times too small, and ours is right to a tenth.

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # safe for the colour-blind

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for axes in (left, right):
    edges = [bandwidths[0], h_g, h_clt, bandwidths[-1]]
    for i, (name, shade) in enumerate([("extreme", 0.86), ("stable", 0.93), ("CLT", 1)]):
        axes.axvspan(edges[i], edges[i + 1], color=str(shade), linewidth=0)
        middle = np.sqrt(edges[i] * edges[i + 1])
        axes.text(
            middle,
            1.02,
            name,
            ha="center",
            style="italic",
            transform=axes.get_xaxis_transform(),
        )
    axes.set(
        xscale="log",
        xlabel="bandwidth (standard deviations of the data)",
        xlim=(edges[0], edges[-1]),
    )
    axes.set_xticks([0.6, 0.8, 1, 1.5, 2, 2.5], ["0.6", "0.8", "1", "1.5", "2", "2.5"])
    axes.set_xticks([], minor=True)
    axes.axvline(best.bandwidth_, ymax=0.68, color=BLUE, linestyle=":")

left.plot(bandwidths, kl, color=BLUE, label="skhdkde")
left.plot(
    their_bandwidths,
    their_kl,
    "x",
    color=VERMILION,
    label="KernelDensity of scikit-learn, as it reports",
    clip_on=False,
)
left.plot(
    best.bandwidth_,
    divergence(best),
    "o",
    color=BLUE,
    label='bandwidth="kl", the default',
)
left.plot(
    silverman.bandwidth_,
    divergence(silverman),
    "s",
    color=GREEN,
    label="Silverman's rule",
)
left.axhline(0.0, color="0.4", linewidth=0.8)
left.set(ylabel="divergence from the true density (nats)")
left.set_title("Which bandwidth is best?", pad=24)
left.legend(frameon=False, fontsize=9)

right.plot(
    shown,
    spread,
    "o",
    color="black",
    label="true spread over fresh data sets",
    clip_on=False,
)
right.plot(shown, error_bar, color=BLUE, label="standard_error of skhdkde")
right.plot(shown, textbook, "--", color=VERMILION, label="textbook error bar")
right.set(yscale="log", ylabel="error of a log density (nats)")
right.set_title("How far can a log density be trusted?", pad=24)
right.legend(frameon=False, fontsize=9)

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_overview.png", dpi=150)
# sphinx_gallery_end_ignore
plt.show()
