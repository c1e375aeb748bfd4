"""What structures cost, and what they gain on normal data.

    python benchmarks/structures.py

Passes are timed in turn with the spherical Gaussian's on the same points and queries.
"""

import argparse
import functools

import numpy as np
from reporting import announce, describe_run, time_in_turn, write_table

from skhdkde import HighDimKernelDensity

FULL = {"covariance_type": "full", "preserve_variance": True}
STUDENT = {**FULL, "kernel": "student"}


def passes(n, m, d, dtype, repeats, n_jobs):
    """Rows of the ratio of each structure's pass to the spherical Gaussian's."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(dtype)
    queries = rng.standard_normal((m, d)).astype(dtype)
    h = 0.8
    settings = {
        "spherical": {},
        "full": {"covariance_type": "full"},
        "full, preserved": FULL,
        "full, preserved, student": {**STUDENT, "degrees_of_freedom": 5.0},
        "spherical, adaptive": {"adaptive": True},
    }
    calls = {}
    for name, parameters in settings.items():
        announce(f"{name}, d = {d}, {np.dtype(dtype)}")
        bandwidth = 0.6 if "student" in name else h
        kde = HighDimKernelDensity(bandwidth=bandwidth, n_jobs=n_jobs, **parameters)
        call = functools.partial(kde.fit(X).score_samples, queries)
        call()
        calls[name] = call
    seconds = time_in_turn(calls, repeats)
    base = seconds["spherical"]
    return [
        [d, np.dtype(dtype), name, f"{np.median(s):.3f}", f"{np.median(s / base):.2f}"]
        for name, s in seconds.items()
    ]


def searches(n, d, dtype, repeats, n_jobs):
    """Rows of the ratio of a fit to a spherical pass over the training points."""
    X = np.random.default_rng(0).standard_normal((n, d)).astype(dtype)
    plain = HighDimKernelDensity(bandwidth=1.0, n_jobs=n_jobs).fit(X)

    def fit(**parameters):
        return HighDimKernelDensity(n_jobs=n_jobs, random_state=0, **parameters).fit(X)

    calls = {
        "spherical pass, all points": lambda: plain.score_samples(X),
        "spherical search over h": fit,
        "full, preserved: search over h": functools.partial(fit, **FULL),
        "full, preserved, student: search over h and 5 degrees of freedom": (
            functools.partial(fit, **STUDENT)
        ),
    }
    for name, call in calls.items():
        announce(f"{name}, d = {d}")
        call()
    seconds = time_in_turn(calls, repeats)
    first, second = list(seconds)[:2]
    rows = []
    for name, s in seconds.items():
        ratios = (f"{np.median(s / seconds[base]):.2f}" for base in (first, second))
        rows.append([d, np.dtype(dtype), name, f"{np.median(s):.2f}", *ratios])
    return rows


def normal_data(n, d, n_fresh):
    """Rows of the divergence from the true density, N(0, I) and a 1/k spectrum."""
    rows = []
    for name, variances in {
        "N(0, I)": np.ones(d),
        "variances 1/k": 1.0 / np.arange(1, d + 1),
    }.items():
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d)) * np.sqrt(variances)
        fresh = rng.standard_normal((n_fresh, d)) * np.sqrt(variances)
        truth = -0.5 * np.sum(
            fresh**2 / variances + np.log(2 * np.pi * variances), axis=1
        )
        for label, parameters in {
            "spherical": {},
            "auto": {"covariance_type": "auto"},
        }.items():
            announce(f"{name}, {label}")
            kde = HighDimKernelDensity(random_state=0, **parameters).fit(X)
            kl = np.mean(truth - kde.score_samples(fresh))
            chosen = f"{kde.covariance_type_}, {kde.kernel_}, h = {kde.bandwidth_:.4g}"
            rows.append([name, label, f"{kl:.3f}", chosen])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--only", choices=["passes", "searches", "normal"])
    args = parser.parse_args()
    print(describe_run("scikit-learn"))
    n, m = args.points, args.points // 2
    if args.only in (None, "passes"):
        rows = []
        for d, dtype in ((768, np.float32), (768, np.float64), (64, np.float32)):
            rows += passes(n, m, d, dtype, args.repeats, args.n_jobs)
        title = f"`score_samples` of {m} queries against {n} points, median of "
        title += f"{args.repeats}"
        write_table(title, "d|dtype|structure|seconds|ratio to spherical", rows)
    if args.only in (None, "searches"):
        rows = searches(n, 768, np.float32, args.repeats, args.n_jobs)
        columns = "d|dtype|what|seconds|ratio to the pass|to the spherical search"
        write_table(f"Fit to {n} points, median of {args.repeats}", columns, rows)
    if args.only in (None, "normal"):
        columns = "data|structure|KL in all dimensions, nats|chosen"
        title = f"Divergence from the truth, n = {n}, d = 100, 2000 fresh points"
        write_table(title, columns, normal_data(n, 100, 2000))


if __name__ == "__main__":
    main()
