"""The search for the KL-optimal bandwidth: its cost and what it finds.

``python benchmarks/search.py`` prints three GitHub-markdown tables from one run: the
search against one exact pass over the same pairs, the search against GridSearchCV
over scikit-learn's estimator, and the held-out divergence of what it finds. See
README.md beside this file.
"""

import argparse
import time

import numpy as np
from reporting import announce, describe_run, time_in_turn, write_table
from scipy.stats import multivariate_normal
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from skhdkde import HighDimKernelDensity, kl_scorer, select_bandwidth


def cost_row(d, dtype, options):
    """Seconds of a search and of an exact pass over as many pairs, in turn.

    The pass is over fresh queries, which is the fastest.
    """
    rng = np.random.default_rng(d)
    points = rng.normal(size=(options.points, d)).astype(dtype)
    queries = rng.normal(size=(options.queries, d)).astype(dtype)

    def search():
        return select_bandwidth(
            points,
            rule="kl",
            n_queries=options.queries,
            random_state=0,
            return_search=True,
        )

    bandwidth, curve = search()
    kde = HighDimKernelDensity(bandwidth=bandwidth).fit(points)
    calls = {"pass": lambda: kde.score_samples(queries), "search": search}
    calls["pass"]()
    seconds = time_in_turn(calls, options.repeats)
    ratio = np.median(seconds["search"] / seconds["pass"])
    best = seconds["search"].min() / seconds["pass"].min()
    times = (f"{np.median(seconds[name]):.3f}" for name in ("pass", "search"))
    return [
        *(d, dtype, *times, f"{ratio:.2f}", f"{best:.2f}"),
        *(len(curve.bandwidths), f"{bandwidth:.4f}"),
    ]


def divergence(log_density, fresh, truth):
    """Held-out KL of an estimate, in nats."""
    return float(np.mean(truth - np.maximum(log_density, -1e9)))


def grid_search_rows(n_points, d, options):
    """scikit-learn's way and ours, on the same points, judged on fresh ones."""
    rng = np.random.default_rng(d)
    points = rng.normal(size=(n_points, d))
    fresh = rng.normal(size=(options.fresh, d))
    truth = multivariate_normal(np.zeros(d)).logpdf(fresh)
    grid = {"bandwidth": np.geomspace(0.2, 5.0, 32)}
    one_leaf = KernelDensity(leaf_size=n_points)
    searches = {
        "GridSearchCV, scikit-learn": GridSearchCV(KernelDensity(), grid),
        "GridSearchCV, scikit-learn, leaf_size=n": GridSearchCV(one_leaf, grid),
        "GridSearchCV, skhdkde, kl_scorer": GridSearchCV(
            HighDimKernelDensity(), grid, scoring=kl_scorer
        ),
        'skhdkde, `bandwidth="kl"`': HighDimKernelDensity(random_state=0),
    }
    rows = []
    for name, search in searches.items():
        announce(f"n = {n_points}, d = {d}: {name}")
        start = time.perf_counter()
        search.fit(points)
        seconds = time.perf_counter() - start
        if isinstance(search, GridSearchCV):
            bandwidth, found = search.best_params_["bandwidth"], search.best_estimator_
        else:
            bandwidth, found = search.bandwidth_, search
        exact = HighDimKernelDensity(bandwidth=bandwidth).fit(points)
        quality = divergence(exact.score_samples(fresh), fresh, truth)
        reported = divergence(found.score_samples(fresh), fresh, truth)
        results = f"{bandwidth:.4f}", f"{quality:.3f}", f"{reported:.3f}"
        rows.append([name, n_points, d, f"{seconds:.2f}", *results])
    return rows


def quality_row(d, seed, options):
    """Held-out KL at ``bandwidth="kl"`` and at the best of a fine grid around it."""
    rng = np.random.default_rng([d, seed])
    points = rng.normal(size=(2000, d))
    fresh = rng.normal(size=(options.fresh, d))
    truth = multivariate_normal(np.zeros(d)).logpdf(fresh)

    def held_out(bandwidth):
        kde = HighDimKernelDensity(bandwidth=bandwidth).fit(points)
        return divergence(kde.score_samples(fresh), fresh, truth)

    bandwidth = select_bandwidth(points)
    grid = bandwidth * np.geomspace(0.75, 1.0 / 0.75, options.grid)
    curve = [held_out(h) for h in grid]
    reached, best = held_out(bandwidth), min(curve)
    excess = 100.0 * (reached / best - 1.0)
    h_best = grid[int(np.argmin(curve))]
    bandwidths = f"{bandwidth:.4f}", f"{h_best:.4f}"
    return [d, seed, *bandwidths, f"{reached:.4f}", f"{best:.4f}", f"{excess:.3f} %"]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dims", type=int, nargs="*", default=[32, 768])
    add("--dtypes", nargs="+", default=["float32", "float64"])
    add("--points", type=int, default=20_000)
    add("--queries", type=int, default=2_000)
    add("--repeats", type=int, default=5)
    add("--cv-points", type=int, default=2_000, help="points for GridSearchCV")
    add("--cv-dims", type=int, nargs="*", default=[8, 32])
    add("--quality-dims", type=int, nargs="*", default=[10, 50, 200])
    add("--seeds", type=int, default=3)
    add("--fresh", type=int, default=4_000, help="points for the held-out KL")
    add("--grid", type=int, default=81, help="bandwidths of the fine grid")
    return parser.parse_args()


def main():
    options = read_options()
    print(describe_run("scipy", "scikit-learn"))
    rows = []
    for d in options.dims:
        for dtype in options.dtypes:
            announce(f"cost, d = {d}, {dtype}")
            rows.append(cost_row(d, dtype, options))
    write_table(
        f"The search, all included, against one exact pass: N(0, I), {options.points:,} "
        f"points, {options.queries:,} queries, {options.repeats} repeats.",
        "d|dtype|pass, s|search, s|ratio, median|ratio, best of each|bandwidths|found",
        rows,
    )
    rows = []
    for d in options.cv_dims:
        rows += grid_search_rows(options.cv_points, d, options)
    write_table(
        "Against GridSearchCV: N(0, I), float64, 32 bandwidths from 0.2 to 5, 5 folds. "
        f"KL to the true density in nats, on {options.fresh:,} fresh points: of the exact"
        " sum at the bandwidth found, and by the estimator's own log densities.",
        "search|n|d|seconds|bandwidth|KL, exact sum|KL, as reported",
        rows,
    )
    rows = []
    for d in options.quality_dims:
        announce(f"quality, d = {d}")
        rows += [quality_row(d, seed, options) for seed in range(options.seeds)]
    write_table(
        'Held-out KL at `bandwidth="kl"`: N(0, I), n = 2000, float64, '
        f"{options.fresh:,} fresh points, the best of {options.grid} bandwidths.",
        "d|seed|found|best|KL found, nats|KL best, nats|excess",
        rows,
    )


if __name__ == "__main__":
    main()
