"""Regimes and error bars against simulation.

``python benchmarks/regimes.py`` prints GitHub-markdown tables; ``--quick`` takes
smaller samples. See README.md beside this file.
"""

import argparse
import pathlib
import sys

import numpy as np
from reporting import announce, describe_run, write_table
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skhdkde import HighDimKernelDensity, select_bandwidth
from skhdkde.regimes import expected_participation, gaussian_thresholds

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
import simulations as sim

N_ESTIMATES = 8  # data sets from which error bars are computed


def error_bars(draw, d, n, bandwidths, options, kernel="gaussian"):
    """Ratio of error bar to measured spread: median and 68 % range over queries."""
    rng = np.random.default_rng(0)
    queries = draw(options.queries, d, rng)
    truth = sim.spread(
        sim.fresh_log_densities(draw, queries, n, bandwidths, options.sets, rng, kernel)
    )
    ratios = np.empty((N_ESTIMATES, *truth.shape))
    for i in range(N_ESTIMATES):
        points = draw(n, d, rng)
        for j, h in enumerate(bandwidths):
            kde = HighDimKernelDensity(bandwidth=h, kernel=kernel).fit(points)
            ratios[i, j] = kde.diagnose(queries).standard_error / truth[j]
    ratios = np.moveaxis(ratios, 1, 0).reshape(len(bandwidths), -1)
    ratios = np.where(np.isfinite(ratios), ratios, np.nan)
    return np.nanmedian(truth, axis=1), np.nanquantile(ratios, [0.5, 0.16, 0.84], axis=1)


def measured_h_g(draw, d, n):
    rng = np.random.default_rng(1)
    kde = HighDimKernelDensity(bandwidth=1.0).fit(draw(n, d, rng))
    return float(np.median(kde.diagnose(draw(300, d, rng)).h_g))


def error_bar_rows(options):
    cases = [(sim.white, d, n) for d, n in [(20, 5000), (50, 5000), (100, 2000)]]
    cases += [(sim.mixture, 30, 5000), (sim.sheet, 50, 5000)]
    for draw, d, n in cases:
        announce(f"error bars: {draw.__name__}, d = {d}, n = {n}")
        if draw is sim.white:
            h_g = gaussian_thresholds(n, np.ones(d)).h_g
        else:
            h_g = measured_h_g(draw, d, n)
        truth, ratios = error_bars(draw, d, n, sim.RATIOS * h_g, options)
        for ratio, spread, (median, low, high) in zip(
            sim.RATIOS, truth, ratios.T, strict=True
        ):
            yield (
                draw.__name__, d, n, ratio, f"{spread:.3g}", f"{median:.2f}",
                f"{low:.2f} to {high:.2f}",
            )  # fmt: skip


def kernel_rows(options):
    """Other kernels: bandwidths by how many points are in reach, or by tail index."""
    d, n = 20, 5000
    rng = np.random.default_rng(2)
    sq = np.sort(sim.squared_distances(sim.white(100, d, rng), sim.white(n, d, rng)))
    for kernel in ("exponential", "tophat", "epanechnikov"):
        announce(f"error bars: {kernel}")
        if kernel == "exponential":
            kde = HighDimKernelDensity(bandwidth=1.0, kernel=kernel)
            h_g = np.median(kde.fit(sim.white(n, d, rng)).diagnose(None).h_g)
            at = [(f"{r:g} h_g", r * h_g) for r in (0.4, 0.8, 1.2, 2.0, 3.0)]
        else:
            counts = 2, 5, 10, 30, 300
            at = [(f"{k} in reach", np.median(np.sqrt(sq[:, k - 1]))) for k in counts]
        bandwidths = [h for _, h in at]
        truth, ratios = error_bars(sim.white, d, n, bandwidths, options, kernel)
        for (name, _), spread, (median, low, high) in zip(
            at, truth, ratios.T, strict=True
        ):
            yield (
                kernel,
                name,
                f"{spread:.3g}",
                f"{median:.2f}",
                f"{low:.2f} to {high:.2f}",
            )


def structure_rows(options):
    """Fixed structures: mixtures fitted to many more points than an estimate has."""
    d, n = 20, 3000
    many = sim.elongated(60_000, d, np.random.default_rng(9))
    mixtures = {
        k: FrozenEstimator(GaussianMixture(k, random_state=0).fit(many)) for k in (1, 3)
    }
    student = {"kernel": "student", "degrees_of_freedom": 5.0}
    preserved, adaptive = {"preserve_variance": True}, {"adaptive": True}
    for k, name, parameters in [
        (1, "full", {}),
        (1, "full, preserved", preserved),
        (3, "local", {}),
        (3, "local, preserved", preserved),
        (3, "local, preserved, student 5", preserved | student),
        (1, "full, adaptive", adaptive),
        (3, "local, adaptive, student 5", adaptive | student),
    ]:
        announce(f"error bars: {name}")
        kde = HighDimKernelDensity(
            covariance_type="local", mixture=mixtures[k], **parameters
        )
        bandwidths, sizes = (0.35, 0.5, 0.7), (40, 60, 4)
        found = sim.structure_ratios(sim.elongated, d, n, kde, bandwidths, sizes)
        for h, ratios, spreads in zip(bandwidths, *found, strict=True):
            low, median, high = np.quantile(ratios, [0.16, 0.5, 0.84])
            yield (
                name, h, f"{np.median(spreads):.3g}", f"{median:.2f}",
                f"{low:.2f} to {high:.2f}",
            )  # fmt: skip


def regime_rows(options):
    for d, n in [(20, 5000), (50, 5000), (100, 2000), (50, 20000), (100, 20000)]:
        announce(f"regimes: d = {d}, n = {n}")
        rng = np.random.default_rng(3)
        theory = gaussian_thresholds(n, np.ones(d))
        points, queries = sim.white(n, d, rng), sim.white(5 * options.queries, d, rng)
        shares, participation = {}, {}
        for ratio in (0.4, 0.6, 1.0, 1.6, 2.0):
            kde = HighDimKernelDensity(bandwidth=ratio * theory.h_g).fit(points)
            found = kde.diagnose(queries)
            shares[ratio] = found.shares
            participation[ratio] = np.mean(1.0 / found.effective_sample_size)
        h_g = np.median(found.h_g) / theory.h_g
        extreme = (f"{shares[r]['extreme']:.3f}" for r in (0.6, 1.0, 1.6))
        in_theory = expected_participation(theory.tail_index(0.4 * theory.h_g))
        yield (
            d, n, f"{h_g:.3f}", *extreme, f"{shares[2.0]['clt']:.3f}",
            f"{participation[0.4]:.3f} / {in_theory:.3f}",
        )  # fmt: skip


def bandwidth_rows(options):
    """KL-optimal bandwidth and divergence: measured against theory."""
    n = 20_000
    spectra = [(f"1, d = {d}", np.ones(d)) for d in (10, 20, 40, 100)]
    spectra.append(("1/k, d = 100", 1.0 / np.arange(1, 101)))
    for name, spectrum in spectra:
        announce(f"bandwidth: {name}")
        rng = np.random.default_rng(4)
        d, scale = len(spectrum), np.sqrt(spectrum)
        points, queries = scale * sim.white(n, d, rng), scale * sim.white(300, d, rng)
        theory = gaussian_thresholds(n, spectrum)
        kde = HighDimKernelDensity(random_state=0).fit(points)
        truth = -0.5 * np.sum(
            queries**2 / spectrum + np.log(2.0 * np.pi * spectrum), axis=1
        )
        kl = np.mean(truth - kde.score_samples(queries))
        rules = (
            select_bandwidth(points, rule=r, random_state=0)
            for r in ("nearest", "gaussian")
        )
        yield (
            name, f"{kde.bandwidth_:.4f}", f"{theory.h_kl:.4f}",
            *(f"{h:.4f}" for h in rules), f"{kl / d:.4f}",
            f"{theory.kl_per_dimension(kde.bandwidth_):.4f}",
        )  # fmt: skip


def preserved_rows(options):
    """Variance preserved: divergence per dimension, measured against theory."""
    for name, d, n in [("1", 20, 20_000), ("1", 50, 20_000), ("1/k", 50, 20_000)]:
        announce(f"variance preserved: {name}, d = {d}")
        rng = np.random.default_rng(5)
        spectrum = np.ones(d) if name == "1" else 1.0 / np.arange(1, d + 1)
        theory = gaussian_thresholds(n, spectrum, preserve_variance=True)
        plain = gaussian_thresholds(n, spectrum)
        points = np.sqrt(spectrum) * sim.white(n, d, rng)
        queries = np.sqrt(spectrum) * sim.white(300, d, rng)
        truth = -0.5 * np.sum(
            queries**2 / spectrum + np.log(2.0 * np.pi * spectrum), axis=1
        )
        for at, h in [
            ("h_kl", theory.h_kl),
            ("h_g", theory.h_g),
            ("h_clt", theory.h_clt),
        ]:
            shrunk = sim.log_density_of_shrunken(queries, points, h, spectrum.mean())
            sq = sim.squared_distances(queries, points)
            in_place = sim.log_density(sq, d, h)
            yield (
                f"{name}, d = {d}", at, f"{h:.4f}",
                f"{np.mean(truth - shrunk) / d:.4f}", f"{theory.kl_per_dimension(h):.4f}",
                f"{np.mean(truth - in_place) / d:.4f}",
                f"{plain.kl_per_dimension(h):.4f}",
            )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=150, help="fresh data sets")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="40 sets, 30 queries")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.queries = 40, 30
    print(describe_run("scipy", "scikit-learn"))
    write_table(
        "Standard error against the spread of the log density over "
        f"{options.sets} fresh data sets, {options.queries} queries",
        "data|d|n|h / h_G|spread (nats)|standard error / spread, median|68 % of queries",
        list(error_bar_rows(options)),
    )
    write_table(
        "The same with other kernels, N(0, I), d = 20, n = 5000",
        "kernel|bandwidth|spread (nats)|standard error / spread, median|68 % of queries",
        list(kernel_rows(options)),
    )
    write_table(
        "The same with structures, held fixed: a mixture of three Gaussians, d = 20, "
        "n = 3000, 60 fresh data sets, 40 queries",
        "structure|h|spread (nats)|standard error / spread, median|68 % of queries",
        list(structure_rows(options)),
    )
    write_table(
        "Regimes from data, N(0, I); theory is the limit of large d",
        "d|n|median h_g / theory|extreme at 0.6 h_G|at h_G|at 1.6 h_G|clt at 2 h_G|"
        "mean sum of squared shares at 0.4 h_G / theory",
        list(regime_rows(options)),
    )
    write_table(
        "KL-optimal bandwidth and divergence, Gaussian data, n = 20,000",
        'covariance spectrum|`"kl"`|theory|`"nearest"`|`"gaussian"`|KL/d at `"kl"`|'
        "theory there",
        list(bandwidth_rows(options)),
    )
    write_table(
        "Variance preserved, Gaussian data, n = 20,000: KL/d",
        "covariance spectrum|at|h|measured|theory|not shrunk|theory",
        list(preserved_rows(options)),
    )


if __name__ == "__main__":
    main()
