"""Log densities by neighbours and samples beside those over all points.

``python benchmarks/neighbors.py`` prints GitHub-markdown tables. See README.md beside
this file. Needs faiss.
"""

import argparse
import pickle
import time
import warnings

import numpy as np
from reporting import announce, describe_run, time_in_turn, write_table

from skhdkde import HighDimKernelDensity
from skhdkde.regimes import gaussian_thresholds

MIB = 2.0**20
RATIOS = (0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)


def mixture(n_samples, separation, rng, n_components=20, n_features=128, inner=20):
    """Gaussians in 20 dimensions, in 128 with noise of 0.1 in all."""
    fixed = np.random.default_rng(1)
    means = separation * fixed.standard_normal((n_components, inner))
    axes = np.linalg.qr(fixed.standard_normal((n_features, inner)))[0].T
    X = np.empty((n_samples, n_features), dtype=np.float32)
    for start in range(0, n_samples, 50_000):
        rows = slice(start, min(start + 50_000, n_samples))
        label = rng.integers(n_components, size=rows.stop - rows.start)
        Z = means[label] + rng.standard_normal((len(label), inner))
        X[rows] = Z @ axes + 0.1 * rng.standard_normal((len(label), n_features))
    return X


def resident_peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if "VmHWM" in line)


def quantiles(values, *levels):
    return [f"{value:.1e}" for value in np.quantile(values, levels)]


def large(options):
    """Fit and scores with structure, at the bandwidth that fit finds."""
    rows, detail = [], []
    for separation, components in ((1.0, 20), (3.0, 100)):
        rng = np.random.default_rng(0)
        X = mixture(options.points, separation, rng, components)
        Q = mixture(options.queries, separation, rng, components)
        announce(f"n = {len(X)}, separation {separation}")
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # VmHWM starts again from here
        start = time.perf_counter()
        kde = HighDimKernelDensity(algorithm="neighbors", random_state=0).fit(X)
        seconds = time.perf_counter() - start
        kde.score_samples(Q)
        peak = resident_peak()
        exact = HighDimKernelDensity(bandwidth=kde.bandwidth_).fit(X)
        calls = {
            "exact": lambda kde=exact, Q=Q: kde.score_samples(Q),
            "neighbors": lambda kde=kde, Q=Q: kde.score_samples(Q),
        }
        taken = time_in_turn(calls, options.repeats)
        micro = {name: 1e6 * np.median(t) / len(Q) for name, t in taken.items()}
        ratio = np.median(taken["exact"] / taken["neighbors"])
        error = np.abs(kde.score_samples(Q) - exact.score_samples(Q))
        prepared = kde._approximation.prepared[0]
        rows.append(
            [
                f"{components} at {separation:g}",
                prepared.search.kind,
                f"{seconds:.0f}",
                f"{kde.bandwidth_:.4f}",
                kde.n_neighbors_,
                f"{micro['exact']:.0f}",
                f"{micro['neighbors']:.0f}",
                f"{ratio:.1f}",
                *quantiles(error, 0.5, 0.99, 1.0),
                f"{np.mean(error <= 2.0 * kde.approximation_.error):.3f}",
                f"{peak:.0f}",
                f"{len(pickle.dumps(prepared.search.index)) / MIB:.0f}",
            ]
        )
        start = time.perf_counter()
        by_all = HighDimKernelDensity(random_state=0).fit(X).bandwidth_
        detail.append(
            [
                f"{components} at {separation:g}",
                f"{by_all:.4f}",
                f"{time.perf_counter() - start:.0f}",
                f"{kde.bandwidth_ / by_all - 1.0:+.1e}",
            ]
        )
        del X, Q, kde, exact, calls, prepared
    write_table(
        f"{options.points:,} points, 128 features, float32, {options.queries:,} queries: "
        '`algorithm="neighbors"` at `bandwidth="kl"`. Errors in nats against all points '
        "(float32). Peak: resident memory of the process, data included.",
        "components|index|fit, s|h|neighbours|exact, us/query|neighbors, us/query|ratio|"
        "median error|99 %|largest|within 2 x stated|peak, MiB|index, MiB",
        rows,
    )
    write_table(
        "The bandwidth over all points.",
        "components|h|fit, s|shift by neighbours",
        detail,
    )


def stated(options):
    """Stated against true errors in every regime."""
    rows = []
    for d in (20, 100):
        rng = np.random.default_rng(d)
        X, Q = rng.standard_normal((20_000, d)), rng.standard_normal((1000, d))
        h_g = gaussian_thresholds(len(X), np.ones(d)).h_g
        for ratio in RATIOS:
            announce(f"stated errors, d = {d}, h = {ratio} h_G")
            h = ratio * h_g
            exact = HighDimKernelDensity(bandwidth=h).fit(X).score_samples(Q)
            for algorithm, index in (
                ("neighbors", None),
                ("neighbors", "hnsw"),
                ("sampling", None),
                ("auto", None),
            ):
                kde = HighDimKernelDensity(
                    bandwidth=h,
                    algorithm=algorithm,
                    neighbors_index=index,
                    random_state=0,
                ).fit(X)
                error = np.abs(kde.score_samples(Q) - exact)
                report = kde.approximation_
                rows.append(
                    [
                        d,
                        ratio,
                        algorithm + (f", {index}" if index else ""),
                        kde.n_neighbors_ or "",
                        *quantiles(error, 0.5, 0.95),
                        f"{np.median(report.error):.1e}",
                        f"{np.mean(error <= report.error):.3f}",
                        f"{np.mean(error <= 2.0 * report.error):.3f}",
                        f"{np.mean(error <= kde.tol):.3f}",
                    ]
                )
    write_table(
        "Errors in nats, N(0, I), 20,000 points, 1000 queries, float64, tol = 0.01.",
        "d|h / h_G|algorithm|neighbours|median error|95 %|median stated|"
        "within stated|within 2 x stated|within tol",
        rows,
    )


def sampling(options):
    """Kernel evaluations above the CLT threshold."""
    rows, d = [], 20
    rng = np.random.default_rng(0)
    X, Q = rng.standard_normal((options.points, d)), rng.standard_normal((2000, d))
    h_g = gaussian_thresholds(len(X), np.ones(d)).h_g
    for ratio in (3.0, 4.0, 6.0):
        exact = HighDimKernelDensity(bandwidth=ratio * h_g).fit(X)
        expected = exact.score_samples(Q)
        for tol in (0.05, 0.01):
            announce(f"sampling at {ratio} h_G, tol = {tol}")
            kde = HighDimKernelDensity(
                bandwidth=ratio * h_g, algorithm="sampling", tol=tol, random_state=0
            ).fit(X)
            error = np.abs(kde.score_samples(Q) - expected)
            calls = {"exact": exact, "sampling": kde}
            calls = {n: lambda kde=k: kde.score_samples(Q) for n, k in calls.items()}
            taken = time_in_turn(calls, options.repeats)
            report = kde.approximation_
            rows.append(
                [
                    ratio,
                    tol,
                    f"{report.n_evaluations.mean() / len(X):.2%}",
                    *quantiles(error, 0.5, 0.95),
                    f"{np.mean(error <= tol):.3f}",
                    f"{report.over:.3f}",
                    f"{np.median(taken['exact'] / taken['sampling']):.1f}",
                ]
            )
    write_table(
        f'`algorithm="sampling"`, N(0, I), {options.points:,} points, 20 features, '
        "float64, 2000 queries.",
        "h / h_G|tol|kernel evaluations|median error|95 %|within tol|stated over tol|"
        "time of exact / sampling",
        rows,
    )


def images(options):
    """Real images: 9000 training points, 1000 queries."""
    if options.images is None:
        return
    with np.load(options.images) as data:
        X = data[data.files[0]].astype(np.float64).reshape(-1, 784) / 255.0
    train, test = X[:9000], X[9000:10000]
    exact = HighDimKernelDensity(random_state=0).fit(train)
    expected, rows = exact.score_samples(test), []
    for k in (5, 10, 20):
        kde = HighDimKernelDensity(
            bandwidth=exact.bandwidth_,
            algorithm="neighbors",
            n_neighbors=k,
            random_state=0,
        ).fit(train)
        error = np.abs(kde.score_samples(test) - expected)
        rows.append(
            [
                k,
                *quantiles(error, 0.5, 0.99, 0.999, 1.0),
                f"{np.mean(error <= 1e-3):.4f}",
                f"{np.mean(error <= 2.0 * kde.approximation_.error):.3f}",
            ]
        )
    write_table(
        f"Images of 784 pixels, 9000 / 1000, h = {exact.bandwidth_:.4f}, exact search.",
        "neighbours|median error|99 %|99.9 %|largest|within 1e-3|within 2 x stated",
        rows,
    )


TABLES = {"large": large, "stated": stated, "sampling": sampling, "images": images}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("tables", nargs="*", metavar="|".join(TABLES), help="all by default")
    add("--points", type=int, default=1_000_000)
    add("--queries", type=int, default=2000)
    add("--repeats", type=int, default=5)
    add("--images", help="an .npz file of images of 28 x 28 pixels, 0 to 255")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*stated error.*")
    print(describe_run("scikit-learn", "faiss-cpu"))
    for name in options.tables or TABLES:
        TABLES[name](options)


if __name__ == "__main__":
    main()
