"""Imputation on a folder of tables, beside scikit-learn's imputers.

    python benchmarks/missing.py FOLDER --tables cover magic

Tables, splits and standardisation are those of tables.py. In the test rows 20 percent of
the values, drawn at random, are taken out; with ``--gaps`` in the training rows too.
Figures are of these values in the test rows: the root mean squared error of what each
method fills in, in standard deviations, and the share of true values between the 5 and
95 percent quantiles of 200 draws. KNNImputer has the best of 3, 5, 10 and 20 neighbours
by a fifth of the training rows, with as many values taken out; IterativeImputer is
fitted to training and test rows together.
"""

import argparse
import pathlib
import time
import warnings

import numpy as np
from reporting import announce, describe_run, write_table
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from tables import find_tables, load, split
from threadpoolctl import threadpool_limits

from skhdkde import DensityImputer, HighDimKernelDensity

TABLES = (
    "annthyroid",
    "cover",
    "magic",
    "pendigits",
    "stamps",
    "vertebral",
    "waveform",
    "wdbc",
)
NEIGHBORS = 3, 5, 10, 20
N_DRAWS, INTERVAL = 200, (0.05, 0.95)
# Relative error, over the best of the others, up to which ours counts as level.
LEVEL = 0.02


class Iterative:
    """IterativeImputer on training and test rows together.

    Fitted to complete rows alone it would stop after one round, and go through the test
    rows once.
    """

    def __init__(self, seed):
        self.imputer = IterativeImputer(max_iter=30, random_state=seed)

    def fit(self, train):
        self.train = train
        return self

    def transform(self, gaps):
        both = np.vstack([self.train, gaps])
        return self.imputer.fit_transform(both)[len(self.train) :]


def best_neighbors(train, rng):
    """Number of neighbours that fills in a fifth of the training rows best."""
    rows = rng.permutation(len(train)) < len(train) // 5
    taken = rng.uniform(size=train[rows].shape) < 0.2
    taken &= ~np.isnan(train[rows])
    gaps = np.where(taken, np.nan, train[rows])

    def error(k):
        found = KNNImputer(n_neighbors=k).fit(train[~rows]).transform(gaps)
        return np.mean((found - train[rows])[taken] ** 2)

    return min(NEIGHBORS, key=error)


def methods(train, seed, rng):
    """Imputers by name."""
    auto = HighDimKernelDensity(covariance_type="auto", random_state=seed)
    return {
        "mean": SimpleImputer(),
        "KNNImputer": KNNImputer(n_neighbors=best_neighbors(train, rng)),
        "IterativeImputer": Iterative(seed),
        "DensityImputer": DensityImputer(random_state=seed),
        "with auto": DensityImputer(auto),
    }


def coverage(imputer, gaps, truth, taken):
    """Share of true values in the 90 percent intervals of draws."""
    draws = imputer.estimator_.impute(gaps, N_DRAWS, random_state=0)
    low, high = np.quantile(draws, INTERVAL, axis=0)
    return float(np.mean(((truth >= low) & (truth <= high))[taken]))


def measure(X, seed, in_training):
    """Errors, coverage and seconds by method; what could not be fitted is left out."""
    rng = np.random.default_rng(seed)
    train, test = split(X, seed)
    taken = rng.uniform(size=test.shape) < 0.2
    gaps = np.where(taken, np.nan, test)
    if in_training:
        train = np.where(rng.uniform(size=train.shape) < 0.2, np.nan, train)
    found = {}
    for name, imputer in methods(train, seed, rng).items():
        start = time.process_time()
        try:
            filled = imputer.fit(train).transform(gaps)
        except ValueError as error:
            announce(f"    {name}: {error}")
            continue
        seconds = time.process_time() - start
        result = {"error": float(np.sqrt(np.mean((filled - test)[taken] ** 2)))}
        if hasattr(imputer, "estimator_") and hasattr(imputer.estimator_, "impute"):
            result["coverage"] = coverage(imputer, gaps, test, taken)
        found[name] = {**result, "seconds": seconds}
    return found, train.shape


def cell(runs, what, decimals=3):
    """Mean over seeds, or a dash."""
    values = [run[what] for run in runs if what in run]
    return f"{np.mean(values):.{decimals}f}" if values else "-"


def verdict(runs, name, n_seeds):
    """Error of one of ours relative to the best of the others, in percent."""
    if len(runs[name]) < n_seeds:
        return "-"
    means = {k: np.mean([run["error"] for run in own]) for k, own in runs.items() if own}
    best = min(means[k] for k in ("mean", "KNNImputer", "IterativeImputer"))
    return f"{100.0 * (means[name] / best - 1.0):+.1f}"


def report(results, names, n_seeds):
    """Write errors, coverage and seconds."""
    ours = [name for name in names if name in ("DensityImputer", "with auto")]
    rows = [
        [label, *(cell(runs[n], "error") for n in names)]
        + [verdict(runs, n, n_seeds) for n in ours]
        for label, runs in results.items()
    ]
    counts = []
    for k in range(len(ours)):
        relative = [row[len(names) + 1 + k] for row in rows]
        level = sum(r != "-" and float(r) <= 100.0 * LEVEL for r in relative)
        counts.append(f"{level} of {len(rows)}")
    rows.append([f"first or within {LEVEL:.0%}", *[""] * len(names), *counts])
    columns = ["table (rows x features)", *names, *(f"{n}, % over best" for n in ours)]
    title = "Root mean squared error of missing values, standard deviations"
    write_table(title, "|".join(columns), rows)
    rows = [
        [label, *(cell(runs[n], "coverage") for n in ours)]
        + [cell(runs[n], "seconds", 1) for n in names]
        for label, runs in results.items()
    ]
    columns = [*(f"coverage, {n}" for n in ours), *(f"seconds, {n}" for n in names)]
    title = "Share of true values in 90 % intervals of draws; processor time"
    write_table(title, "|".join(["table (rows x features)", *columns]), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="of files .npz or .npy")
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    parser.add_argument(
        "--gaps", action="store_true", help="take values out of training rows too"
    )
    args = parser.parse_args()
    tables = find_tables(args.folder, args.tables)
    print(describe_run("scikit-learn"))
    print(
        f"- seeds: {args.seeds}; one thread; values are missing in the test rows", end=""
    )
    print(" and in the training rows" if args.gaps else "")
    results, names = {}, []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table, path in tables.items():
            X, runs = load(path), []
            for seed in range(args.seeds):
                announce(f"{table}, seed {seed}")
                found, shape = measure(X, seed, args.gaps)
                announce(f"    {found}")
                runs.append(found)
            names = list(dict.fromkeys([*names, *(n for run in runs for n in run)]))
            label = f"{table} ({shape[0]} x {shape[1]})"
            results[label] = {n: [run[n] for run in runs if n in run] for n in names}
    for runs in results.values():
        runs.update({n: runs.get(n, []) for n in names})
    report(results, names, args.seeds)


if __name__ == "__main__":
    main()
