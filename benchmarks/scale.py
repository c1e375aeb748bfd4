"""Ten million points on one machine, and from how many points on an index pays.

``python benchmarks/scale.py`` prints GitHub-markdown tables. See README.md beside this
file. Needs faiss, and for the first table some 12 GiB of memory.
"""

import argparse
import pickle
import time
import warnings

import numpy as np
from neighbors import mixture, quantiles, resident_peak
from reporting import announce, describe_run, write_table

import skhdkde._fit
from skhdkde import HighDimKernelDensity
from skhdkde._approximation.costs import index_pays

MIB = 2.0**20


class Stopwatch:
    """Seconds, by the clock and of the processor, of what runs inside."""

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        now = time.perf_counter(), time.process_time()
        self.wall, self.cpu = (b - a for a, b in zip(self.start, now, strict=True))


def large(options):
    """One fit and its scores, step by step."""
    X = mixture(options.points, 1.0, np.random.default_rng(0), 20, options.features)
    Q = mixture(options.queries, 1.0, np.random.default_rng(1), 20, options.features)
    announce(f"{len(X):,} points made")
    kde, steps = HighDimKernelDensity(algorithm="neighbors", random_state=0), []
    prepare = skhdkde._fit.prepare_index

    def timed(*args):
        with Stopwatch() as watch:
            prepared = prepare(*args)
        steps.append(["index", watch])
        return prepared

    skhdkde._fit.prepare_index = timed
    with Stopwatch() as watch:
        kde.fit(X)
    skhdkde._fit.prepare_index = prepare
    watch.wall -= steps[0][1].wall
    watch.cpu -= steps[0][1].cpu
    steps.append(["bandwidth and calibration", watch])
    announce("fitted")
    kde.score_samples(Q[:100])
    with Stopwatch() as watch:
        found = kde.score_samples(Q)
    steps.append([f"{len(Q):,} queries by the index", watch])
    report, peak = kde.approximation_, resident_peak()
    announce("scored")
    search = kde._approximation.prepared[0].search
    index_size = len(pickle.dumps(search.index)) / MIB
    with Stopwatch() as watch:
        exact = HighDimKernelDensity(bandwidth=kde.bandwidth_).fit(X).score_samples(Q)
    steps.append([f"{len(Q):,} queries by all points", watch])
    error = np.abs(found - exact)
    title = f"{len(X):,} points, {X.shape[1]} features, float32"
    write_table(
        f"{title}: seconds of each step.",
        "step|seconds|CPU seconds",
        [[name, f"{w.wall:.0f}", f"{w.cpu:.0f}"] for name, w in steps],
    )
    write_table(
        f"{title}: what is kept, and errors against all points, nats.",
        "points, MiB|index|index, MiB|peak, MiB|h|neighbours|median error|95 %|99 %|"
        "99.9 %|largest|within 2 x stated",
        [
            [
                f"{X.nbytes / MIB:.0f}",
                search.kind,
                f"{index_size:.0f}",
                f"{peak:.0f}",
                f"{kde.bandwidth_:.4f}",
                kde.n_neighbors_,
                *quantiles(error, 0.5, 0.95, 0.99, 0.999, 1.0),
                f"{np.mean(error <= 2.0 * report.error):.3f}",
            ]
        ],
    )


def directions(n_samples, n_features, rng):
    """Unit vectors in a hundred clusters."""
    centers = np.random.default_rng(0).standard_normal((100, n_features))
    X = centers[rng.integers(100, size=n_samples)]
    X = X + 0.7 * rng.standard_normal(X.shape)
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def pays(options):
    """CPU time with an index that is forced, and what the counted costs decide."""
    rows = []
    for d in (16, 64, 384):
        for n in (10_000, 20_000, 40_000, 80_000):
            announce(f"pays: n = {n:,}, d = {d}")
            X = directions(n, d, np.random.default_rng(1))
            Q = directions(2000, d, np.random.default_rng(2))
            times = []
            for algorithm, index in (("exact", None), ("auto", "ivf")):
                kde = HighDimKernelDensity(
                    algorithm=algorithm,
                    neighbors_index=index,
                    random_state=0,
                    n_jobs=1,
                )
                with Stopwatch() as fit:
                    kde.fit(X)
                kde.score_samples(Q)
                score = []
                for _ in range(3):
                    with Stopwatch() as watch:
                        kde.score_samples(Q)
                    score.append(watch.cpu / len(Q))
                times.append((fit.cpu, np.median(score)))
            (fit_all, all_points), (fit_index, by_index) = times
            saved = all_points - by_index
            repaid = (fit_index - fit_all) / saved / n if saved > 0 else np.inf
            rows.append(
                [
                    f"{n:,}",
                    d,
                    *(f"{seconds:.2f}" for seconds in (fit_all, fit_index)),
                    *(f"{1e6 * seconds:.0f}" for seconds in (all_points, by_index)),
                    f"{repaid:.1f}" if repaid < 100 else "never",
                    "yes" if index_pays(n, d) else "no",
                ]
            )
    write_table(
        'Unit vectors in 100 clusters, float32: fit and queries with `algorithm="auto"` '
        'and `neighbors_index="ivf"` beside "exact", CPU time of one thread. '
        "Repaid: after so many queries, relative to the number of points.",
        "points|d|fit, s|fit with index, s|us/query|us/query with index|repaid after|"
        "built by default",
        rows,
    )


TABLES = {"large": large, "pays": pays}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("tables", nargs="*", metavar="|".join(TABLES), help="all by default")
    add("--points", type=int, default=10_000_000)
    add("--features", type=int, default=96)
    add("--queries", type=int, default=10_000)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*stated error.*")
    print(describe_run("faiss-cpu"))
    for name in options.tables or TABLES:
        TABLES[name](options)


if __name__ == "__main__":
    main()
