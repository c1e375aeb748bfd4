"""Seconds of ``fit`` against the number of points and of features.

``python benchmarks/fit.py`` prints two GitHub-markdown tables: the default, and
structures and data that were slow once. See README.md beside this file.
"""

import argparse
import time
import warnings

import numpy as np
from reporting import announce, describe_run, write_table

from skhdkde import HighDimKernelDensity


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--points", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--features", type=int, nargs="*", default=[2, 16, 128, 768])
    parser.add_argument("--largest", type=float, default=2e7, help="points x features")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def seconds(X, repeats, **parameters):
    """Return the median time of fits, of which one was made before; one if it is long."""
    taken = []
    while len(taken) < repeats + 1 and (not taken or taken[0] < 20.0):
        start = time.perf_counter()
        HighDimKernelDensity(random_state=0, **parameters).fit(X)
        taken.append(time.perf_counter() - start)
    return f"{np.median(taken[1:] or taken):.3g}"


def default_rows(arguments):
    """Yield a row for each number of points."""
    for n_points in arguments.points:
        row = [f"{n_points:,}"]
        for n_features in arguments.features:
            if n_points * n_features > arguments.largest:
                row.append("")
                continue
            announce(f"{n_points:,} points, {n_features} features")
            rng = np.random.default_rng(0)
            X = rng.standard_normal((n_points, n_features), dtype=np.float32)
            row.append(seconds(X, arguments.repeats))
        yield row


def other_rows(arguments):
    """Yield a row for each of some structures and data."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((50, 50))
    grid = rng.integers(0, 9, (50_000, 2)).astype(float)
    tables = {
        "20,000 x 50, N(0, C)": rng.standard_normal((20_000, 50)) @ mixed,
        "2,000 x 20, N(0, I)": rng.standard_normal((2000, 20)),
        "50,000 x 2, 81 distinct rows": grid,
        "50,000 x 5, 2,187 distinct rows": np.hstack(
            [grid, rng.integers(0, 3, (50_000, 3))]
        ),
    }
    cases = [
        ("20,000 x 50, N(0, C)", {"covariance_type": "full"}),
        ("20,000 x 50, N(0, C)", {"covariance_type": "auto"}),
        ("2,000 x 20, N(0, I)", {"covariance_type": "auto"}),
        ("2,000 x 20, N(0, I)", {"adaptive": True}),
        ("50,000 x 2, 81 distinct rows", {"adaptive": True}),
        ("50,000 x 5, 2,187 distinct rows", {"covariance_type": "auto"}),
    ]
    for data, parameters in cases:
        announce(f"{data}, {parameters}")
        words = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        yield data, f"`{words}`", seconds(tables[data], arguments.repeats, **parameters)


def main():
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    print(describe_run())
    columns = "points|" + "|".join(f"{d} features" for d in arguments.features)
    title = 'Seconds of `fit` with `bandwidth="kl"`, N(0, I), float32'
    write_table(title, columns, list(default_rows(arguments)))
    title = "Seconds of `fit`, float64"
    write_table(title, "data|parameters|seconds", list(other_rows(arguments)))


if __name__ == "__main__":
    main()
