"""Held-out log density of this package's estimates and of scikit-learn's.

    python benchmarks/quality.py digits breast_cancer
    python benchmarks/quality.py images.npz --noise 1 --divide 256 --validation 1000

Every method is fitted to the same training points. What it leaves open is chosen on the
validation points for scikit-learn's, and by its own search on the training points for
this package. Figures are on test points that nothing has seen.
"""

import argparse
import pathlib
import time
import warnings

import numpy as np
from reporting import announce, describe_run, write_table
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skhdkde import HighDimKernelDensity

OURS = {
    "spherical": {},
    "full": {"covariance_type": "full"},
    "full, preserved": {"covariance_type": "full", "preserve_variance": True},
    "full, preserved, student": {
        "covariance_type": "full",
        "preserve_variance": True,
        "kernel": "student",
    },
    "local, preserved": {"covariance_type": "local", "preserve_variance": True},
    "local, preserved, student": {
        "covariance_type": "local",
        "preserve_variance": True,
        "kernel": "student",
    },
    "auto": {"covariance_type": "auto"},
    "auto, maps": {"covariance_type": "auto", "feature_maps": "auto"},
    "stack, maps": {"covariance_type": "stack", "feature_maps": "auto"},
}


def load(name, args):
    """Rows of the data set, in its units, with noise if asked for."""
    noise, divide = args.noise, args.divide
    if name == "digits":
        X, noise, divide = load_digits().data, 1.0, 17.0
    elif name == "breast_cancer":
        X = load_breast_cancer().data
    elif name.endswith(".csv"):
        X = np.loadtxt(name, delimiter=",")
    else:
        X = np.load(name)
        X = X if isinstance(X, np.ndarray) else X[X.files[0]]
    X = X.reshape(len(X), -1).astype(np.float64)
    if noise:
        X += noise * np.random.default_rng(0).uniform(size=X.shape)
    return X / divide


def split(X, seed, args, standardize):
    order = np.random.default_rng(seed).permutation(len(X))
    n_test = args.validation or round(0.15 * len(X))
    test, validation = order[:n_test], order[n_test : 2 * n_test]
    train = order[2 * n_test :]
    if standardize:
        X = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    return X[train], X[validation], X[test]


def tuned(candidates, train, validation, test):
    """Test score of the candidate that is best on the validation points."""
    fitted = []
    for candidate in candidates:
        try:
            fitted.append(candidate.fit(train))
        except ValueError:  # a mixture whose covariance collapsed
            continue
    scores = [np.mean(f.score_samples(validation)) for f in fitted]
    best = fitted[int(np.argmax(scores))]
    return np.mean(best.score_samples(test)), " ".join(f"{best}".split())


class Gaussian:
    """A covariance estimator with ``score_samples``."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X):
        self.estimator.fit(X)
        return self

    def score_samples(self, X):
        return np.full(len(X), self.estimator.score(X))

    def __str__(self):
        return str(self.estimator)


def peers(train, quick):
    """Candidates of each of scikit-learn's density estimators."""
    n, d = train.shape
    scale = float(np.sqrt(np.mean(train.var(axis=0))))
    ranks = sorted({k for k in (2, 5, 10, 15, 20, 30, 50, 100, 200, 400) if k < d})
    counts = (1, 2, 4, 10, 20, 40) if quick else (1, 2, 4, 10, 20, 40, 80)
    large = n * d**2 > 1e9  # a full covariance takes minutes for each component
    return {
        "KernelDensity, exact": [
            KernelDensity(bandwidth=scale * h, leaf_size=n)
            for h in np.geomspace(0.05, 2.0, 25).tolist()
        ],
        "Gaussian": [Gaussian(EmpiricalCovariance()), Gaussian(LedoitWolf())],
        "PPCA": [PCA(k, svd_solver="full") for k in ranks],
        "GaussianMixture": [
            GaussianMixture(
                k, covariance_type=kind, reg_covar=reg * scale**2, random_state=0
            )
            for kind in ("diag", "full", "tied")
            for k in counts
            for reg in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
            if kind == "diag" or not large
        ],
    }


def measure(X, seed, args, standardize):
    """Mean test log density, seconds and setting of every method."""
    train, validation, test = split(X, seed, args, standardize)
    found = {}
    for name, candidates in peers(train, args.quick).items():
        announce(f"seed {seed}: {name}")
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            score, setting = tuned(candidates, train, validation, test)
        found[name] = score, time.perf_counter() - start, setting
    for name, parameters in OURS.items():
        announce(f"seed {seed}: {name}")
        start = time.perf_counter()
        kde = HighDimKernelDensity(random_state=0, **parameters).fit(train)
        score = float(np.mean(kde.score_samples(test)))
        setting = f"h = {kde.bandwidth_:.3g}, {kde.covariance_type_}"
        if np.isfinite(kde.degrees_of_freedom_):
            setting += f", student {kde.degrees_of_freedom_:g}"
        found[f"skhdkde {name}"] = score, time.perf_counter() - start, setting
    return found


def report(name, X, args, seeds, standardize):
    runs = [measure(X, seed, args, standardize) for seed in seeds]
    reference = np.array([run["skhdkde auto"][0] for run in runs])
    rows = []
    for method in runs[0]:
        scores = np.array([run[method][0] for run in runs])
        gaps = reference - scores
        seconds = np.median([run[method][1] for run in runs])
        row = [method, f"{scores[0]:.2f}", f"{scores.mean():.2f}"]
        row += [f"{gaps.mean():.2f}", f"{gaps.min():.2f}", f"{seconds:.1f}"]
        rows.append([*row, f"`{runs[0][method][2]}`"])
    n, d = X.shape
    title = f"{pathlib.Path(name).stem}, n = {n}, d = {d}: mean test log density, nats"
    if standardize:
        title += ", features standardised on the training points"
    columns = f"method|split {seeds[0]}|mean of {len(seeds)}|below auto, mean|least"
    write_table(title, columns + f"|seconds|chosen on split {seeds[0]}", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", help="digits, breast_cancer, or a file")
    parser.add_argument("--seeds", type=int, default=5, help="number of random splits")
    parser.add_argument("--noise", type=float, default=0.0, help="width, uniform")
    parser.add_argument("--divide", type=float, default=1.0)
    parser.add_argument("--validation", type=int, help="points; default 15 percent")
    parser.add_argument("--quick", action="store_true", help="fewer mixtures")
    args = parser.parse_args()
    print(describe_run("scipy", "scikit-learn"))
    for name in args.data:
        X = load(name, args)
        report(name, X, args, range(args.seeds), name == "breast_cancer")


if __name__ == "__main__":
    main()
