"""Held-out log density on a folder of tables, beside other density estimators.

    python benchmarks/tables.py FOLDER --tables cover magic --cache results.jsonl

A table is ``name.npy``, or ``name.npz`` with arrays X and, if some rows are anomalies,
y (1 for these, which are left out). For each seed the rows are permuted: 700 for
training, or 75 percent if there are fewer, then 25 percent or 400 as test rows. Features
are standardised on the training rows; those that are constant there are dropped. All
choices are made on the training rows; figures are on the test rows.

    pip install -e ".[benchmark]"

installs the packages to compare with. A method whose package is missing, or whose
parameters this version refuses, is left out, which the output says.
"""

import argparse
import functools
import importlib.util
import json
import pathlib
import time

import numpy as np
import peers
from reporting import announce, describe_run, write_table
from threadpoolctl import threadpool_limits

from skhdkde import HighDimKernelDensity

# Parameters of HighDimKernelDensity, by name of the method. The last that this version
# accepts is the one that is compared with the others.
OURS = {
    "spherical": {},
    "auto": {"covariance_type": "auto"},
    "stack": {"covariance_type": "stack", "feature_maps": "auto"},
}
PEERS = {
    "GaussianMixture": peers.Mixture,
    "KernelDensity": peers.Kernels,
    "vine": peers.Vine,
    "flow": peers.Flow,
}
N_TRAIN, N_TEST = 700, 400


class Ours:
    """HighDimKernelDensity with given parameters, as the peers are called."""

    def __init__(self, parameters, random_state):
        self.kde = HighDimKernelDensity(random_state=random_state, **parameters)

    def fit(self, X):
        self.kde.fit(X)
        self.setting = f"{self.kde.covariance_type_}, h = {self.kde.bandwidth_:.3g}"
        return self

    def score_samples(self, X):
        return self.kde.score_samples(X)


class Cache:
    """Results by what they are of, also in a file with a line of JSON for each.

    A result is found again if table, sizes, seed, method and options are the same,
    which a change of the estimator's code is not: methods in ``again`` are measured
    anew, and their new results are the ones that count.
    """

    def __init__(self, path, again=()):
        self.path, self.again = path, again
        self.results, self.n_reused = {}, 0
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.results[json.dumps(entry["of"])] = entry["result"]

    def find_or_measure(self, of, measure):
        key = json.dumps(of)
        if key in self.results and of["method"] not in self.again:
            self.n_reused += 1
            return self.results[key]
        result = self.results[key] = measure()
        if self.path is not None:
            with open(self.path, "a") as lines:
                lines.write(json.dumps({"of": of, "result": result}) + "\n")
        return result


def find_tables(folder, names):
    """Files in the order of ``names``, or all by name."""
    files = {path.stem: path for path in sorted(folder.glob("*.np[yz]"))}
    missing = set(names or ()) - set(files)
    if missing or not files:
        raise SystemExit(f"No such table in {folder}: {', '.join(sorted(missing))}")
    return {name: files[name] for name in names or files}


def load(path):
    """Rows of a table that are no anomalies."""
    found = np.load(path)
    if isinstance(found, np.ndarray):
        return found.reshape(len(found), -1).astype(np.float64)
    X = found["X"].reshape(len(found["X"]), -1).astype(np.float64)
    return X[found["y"] != 1] if "y" in found else X


def split(X, seed):
    """Training and test rows, standardised on the former."""
    X = X[np.random.default_rng(seed).permutation(len(X))]
    n_train = min(N_TRAIN, 3 * len(X) // 4)
    n_test = min(N_TEST, len(X) // 4)
    train, test = X[:n_train], X[n_train : n_train + n_test]
    varies = train.min(axis=0) < train.max(axis=0)
    train, test = train[:, varies], test[:, varies]
    mean, scale = train.mean(axis=0), train.std(axis=0)
    return (train - mean) / scale, (test - mean) / scale


def refusal(parameters):
    """Why this version does not accept the parameters; None if it does."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    try:
        Ours(parameters, 0).fit(X)
    except (TypeError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


def available(args):
    """Methods that can run: how to make one for a seed, and the options that count."""
    makers, options = {}, {}
    for name in args.methods:
        if name in OURS:
            parameters = dict(OURS[name])
            if args.discrete:
                parameters["discrete_features"] = "auto"
            reason = refusal(parameters)
            makers[name] = lambda seed, parameters=parameters: Ours(parameters, seed)
            options[name] = parameters
        else:
            peer = PEERS[name]
            absent = [p for p in peer.requires if importlib.util.find_spec(p) is None]
            reason = f"`pip install {' '.join(absent)}`" if absent else None
            makers[name] = lambda seed, peer=peer: peer(seed, args.seconds)
            options[name] = {"seconds": args.seconds} if name == "flow" else {}
        if reason:
            print(f"- left out: {name} ({reason})")
            del makers[name], options[name]
    return makers, options


def measure(maker, train, test, seed):
    """Mean log density of the test rows, seconds of the fit, and what was chosen."""
    start = time.process_time()
    fitted = maker(seed).fit(train)
    seconds = time.process_time() - start
    values = fitted.score_samples(test)
    return {
        "score": float(np.mean(values)),
        "n_zero": int(np.sum(np.isneginf(values))),
        "seconds": seconds,
        "setting": getattr(fitted, "setting", ""),
    }


def measure_tables(tables, makers, options, args, cache):
    """Results by table and method, a list over seeds; sizes by table."""
    results, sizes = {}, {}
    for table, path in tables.items():
        X = load(path)
        found = {name: [] for name in makers}
        for seed in range(args.seeds):
            train, test = split(X, seed)
            sizes.setdefault(table, (len(train), len(test), train.shape[1]))
            of = {"table": table, "train": train.shape, "test": len(test), "seed": seed}
            for name, maker in makers.items():
                announce(f"{table}, seed {seed}: {name}")
                result = cache.find_or_measure(
                    {**of, "method": name, "options": options[name]},
                    functools.partial(measure, maker, train, test, seed),
                )
                announce(f"    {result}")
                found[name].append(result)
        results[table] = found
    return results, sizes


def score_cell(runs):
    """Mean over seeds and its standard error."""
    scores = np.array([run["score"] for run in runs])
    if not np.isfinite(scores).all():
        return f"{scores.mean():.2f} ({sum(run['n_zero'] for run in runs)} rows)"
    error = f" ({scores.std(ddof=1) / len(scores) ** 0.5:.2f})" if len(runs) > 1 else ""
    return f"{scores.mean():.2f}{error}"


def row_of_wins(results, names):
    """On how many tables the last of ours is ahead of each; None without a peer."""
    champion = next((name for name in reversed(OURS) if name in names), None)
    if champion is None or len(names) == 1:
        return None
    n_ahead = dict.fromkeys(names, 0)
    for row in results.values():
        means = {name: np.mean([run["score"] for run in row[name]]) for name in names}
        for name in names:
            n_ahead[name] += means[champion] > means[name]
    cells = [f"{n_ahead[name]} of {len(results)}" for name in names]
    cells[names.index(champion)] = ""
    return [f"{champion} is ahead", *cells]


def report(results, sizes, names):
    """Write the tables of log densities and of seconds."""
    rows = [
        [f"{table} ({sizes[table][2]})", *(score_cell(row[name]) for name in names)]
        for table, row in results.items()
    ]
    wins = row_of_wins(results, names)
    columns = "|".join(["table (features)", *names])
    title = "Mean log density of the test rows, nats: mean over seeds (standard error)"
    write_table(title, columns, [*rows, *([wins] if wins else [])])
    rows = [
        [
            f"{table} ({sizes[table][0]} x {sizes[table][2]})",
            *(f"{np.mean([run['seconds'] for run in row[name]]):.1f}" for name in names),
        ]
        for table, row in results.items()
    ]
    columns = "|".join(["table (training rows x features)", *names])
    write_table("Seconds of processor time of a fit, choices included", columns, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="of files .npz or .npy")
    parser.add_argument("--tables", nargs="+", help="names without ending; default all")
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    parser.add_argument(
        "--methods", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS]
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of processor time for a fit of flow"
    )
    parser.add_argument(
        "--discrete",
        action="store_true",
        help='ours with discrete_features="auto", for tables with integers',
    )
    parser.add_argument(
        "--cache", type=pathlib.Path, help="file of results, used and added to"
    )
    parser.add_argument(
        "--again", nargs="+", default=(), help="methods to measure whatever is cached"
    )
    args = parser.parse_args()
    tables = find_tables(args.folder, args.tables)
    cache = Cache(args.cache, args.again)
    print(describe_run("scipy", "scikit-learn", "torch", "zuko", "pyvinecopulib"))
    with threadpool_limits(1):
        makers, options = available(args)
        results, sizes = measure_tables(tables, makers, options, args, cache)
    n_results = sum(len(runs) for row in results.values() for runs in row.values())
    print(f"- seeds: {args.seeds}; one thread; flows have {args.seconds:g} s a fit")
    if cache.n_reused:
        print(f"- from the cache: {cache.n_reused} of {n_results} results")
    report(results, sizes, list(makers))


if __name__ == "__main__":
    main()
