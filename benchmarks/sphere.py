"""Densities on the sphere: cost of a pass, and held-out log density of embeddings.

    python benchmarks/sphere.py
    python benchmarks/sphere.py --only quality TABLE.npz OTHER.npz

The cost is that of ``support="sphere"`` beside ``support="euclidean"`` with the same
kernel and structure, on the same points and queries, in turn. Log densities are those of
test rows. A table is a file ``.npz`` with arrays X and, if some rows are anomalies, y (1
for these, which are told from test rows by their log density). Rows are divided by their
norm; for each seed four of five normal ones are training rows, from which all choices are
made.
"""

import argparse
import functools
import pathlib
import time

import numpy as np
from reporting import announce, describe_run, time_in_turn, write_table
from scipy.special import logsumexp, softmax
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from skhdkde import HighDimKernelDensity
from skhdkde._kernels import log_vmf_peak
from skhdkde.regimes import sphere_thresholds

FULL = {"covariance_type": "full", "preserve_variance": True}
STUDENT = {"kernel": "student", "degrees_of_freedom": 5.0}
# Mean cosine to its mode that a component of a mixture has at most.
LARGEST_COSINE = 0.999
NEAREST = "cosine to the nearest"


class Uniform:
    """The uniform density."""

    def __init__(self, random_state=None):
        pass

    def fit(self, X):
        return self

    def score_samples(self, X):
        return np.full(len(X), log_vmf_peak(X.shape[1], 0.0))


class VonMisesFisherMixture:
    """Mixture of von Mises-Fisher distributions by expectation and maximisation.

    The number of components is the best of ``numbers`` on a fifth of the training rows.
    Concentrations are by the approximation of Banerjee et al. (2005).
    """

    def __init__(self, random_state, numbers=(1, 2, 3, 5, 10, 20, 50, 100)):
        self.random_state, self.numbers = random_state, numbers

    def fit(self, X):
        held_out, rows = np.split(X, [len(X) // 5])
        numbers = [k for k in self.numbers if k == 1 or 3 * k <= len(rows)]
        if len(numbers) > 1:
            scores = [self._fit(rows, k).score_samples(held_out).mean() for k in numbers]
            numbers = [numbers[np.argmax(scores)]]
        self.setting = f"{numbers[0]} components"
        return self._fit(X, numbers[0])

    def _fit(self, X, n_components, most=200):
        labels = KMeans(n_components, random_state=self.random_state).fit_predict(X)
        shares, reached = np.eye(n_components)[labels], -np.inf
        for _ in range(most):
            self._maximise(X, shares)
            terms = self._terms(X)
            before, reached = reached, logsumexp(terms, axis=1).mean()
            if reached - before < 1e-4:
                break
            shares = softmax(terms, axis=1)
        return self

    def _maximise(self, X, shares):
        sums, totals = shares.T @ X, shares.sum(axis=0) + 1e-300
        lengths = np.maximum(np.linalg.norm(sums, axis=1), 1e-300)
        self.modes, self.log_weights = sums / lengths[:, None], np.log(totals / len(X))
        cosine = np.minimum(lengths / totals, LARGEST_COSINE)
        self.kappa = cosine * (X.shape[1] - cosine**2) / (1.0 - cosine**2)

    def _terms(self, X):
        peaks = log_vmf_peak(X.shape[1], self.kappa)
        return self.kappa * (X @ self.modes.T - 1.0) + peaks + self.log_weights

    def score_samples(self, X):
        return logsumexp(self._terms(X), axis=1)


class Ours:
    """HighDimKernelDensity on the sphere, as the others are called."""

    def __init__(self, random_state, **parameters):
        self.kde = HighDimKernelDensity(
            support="sphere", random_state=random_state, **parameters
        )

    def fit(self, X):
        self.kde.fit(X)
        found = self.kde
        self.setting = (
            f"{found.covariance_type_}, {found.kernel_}, {found.bandwidth_:.3g}"
        )
        return self

    def score_samples(self, X):
        return self.kde.score_samples(X)


METHODS = {
    "uniform": Uniform,
    "one von Mises-Fisher": functools.partial(VonMisesFisherMixture, numbers=(1,)),
    "mixture of von Mises-Fisher": VonMisesFisherMixture,
    "von Mises-Fisher kernel": Ours,
    "Student kernel": functools.partial(Ours, kernel="student"),
    "full, preserved, student": functools.partial(Ours, kernel="student", **FULL),
    "auto": functools.partial(Ours, covariance_type="auto"),
}


def passes(n, m, d, dtype, repeats, n_jobs):
    """Rows of the ratio of each pass on the sphere to that in the space around it."""
    rng = np.random.default_rng(0)
    X = normalize(rng.standard_normal((n, d))).astype(dtype)
    queries = normalize(rng.standard_normal((m, d))).astype(dtype)
    spherical = {"bandwidth": sphere_thresholds(n, d).h_g}
    preserved = {"bandwidth": 0.6, **FULL}
    settings = {
        "restricted, gaussian": spherical,
        "restricted, student 5": {**spherical, **STUDENT},
        "projected, full, preserved, gaussian": preserved,
        "projected, full, preserved, student 5": {**preserved, **STUDENT},
    }
    rows = []
    for name, parameters in settings.items():
        announce(f"{name}, d = {d}, {np.dtype(dtype)}")
        calls = {}
        for support in ("euclidean", "sphere"):
            kde = HighDimKernelDensity(support=support, n_jobs=n_jobs, **parameters)
            calls[support] = functools.partial(kde.fit(X).score_samples, queries)
            calls[support]()
        flat, sphere = time_in_turn(calls, repeats).values()
        medians = (f"{np.median(seconds):.3f}" for seconds in (flat, sphere))
        ratio = f"{np.median(sphere / flat):.2f}"
        rows.append([d, np.dtype(dtype), name, *medians, ratio])
    return rows


def split(path, seed):
    """Training rows, test rows and anomalies, of unit norm."""
    table = np.load(path)
    X = normalize(np.asarray(table["X"], dtype=np.float64))
    is_odd = table["y"] == 1 if "y" in table else np.zeros(len(X), dtype=bool)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~is_odd))
    n_train = 4 * len(order) // 5
    return X[order[:n_train]], X[order[n_train:]], X[is_odd]


def area(score, test, odd):
    """Area under the curve of anomalies against test rows; a low score is odd."""
    if not len(odd):
        return np.nan
    scores = np.nan_to_num(np.concatenate([score(test), score(odd)]))
    return roc_auc_score(np.arange(len(scores)) >= len(test), -scores)


def nearest_cosine(train, X):
    """Cosine to the nearest training row."""
    return (X @ train.T).max(axis=1)


def in_words(each, digits):
    """Mean over splits, with its standard error."""
    error = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
    return f"{np.mean(each):.{digits}f} ({error:.{digits}f})"


def quality(paths, seeds):
    """Print the tables of log densities, of anomalies and of seconds of a fit."""
    scores, areas, settings, seconds = ({name: [] for name in METHODS} for _ in range(4))
    areas = {NEAREST: [], **areas}
    shapes = []
    for path in paths:
        splits = [split(path, seed) for seed in range(seeds)]
        shapes.append(f"{path.stem} ({len(splits[0][0])} x {splits[0][0].shape[1]})")
        for name, make in METHODS.items():
            announce(f"{name}, {path.stem}")
            start = time.process_time()
            fitted = [make(seed).fit(rows[0]) for seed, rows in enumerate(splits)]
            seconds[name].append(f"{(time.process_time() - start) / seeds:.1f}")
            settings[name].append(getattr(fitted[0], "setting", ""))
            means, found = [], []
            for one, (_, test, odd) in zip(fitted, splits, strict=True):
                means.append(np.mean(one.score_samples(test)))
                found.append(area(one.score_samples, test, odd))
            scores[name].append(in_words(means, 1))
            areas[name].append(in_words(found, 3))
        cosines = [
            area(functools.partial(nearest_cosine, train), test, odd)
            for train, test, odd in splits
        ]
        areas[NEAREST].append(in_words(cosines, 3))
    columns = "estimate|" + "|".join(shapes)
    for title, found in {
        f"Mean log density of test rows with respect to surface measure, nats: mean over "
        f"{seeds} splits (standard error)": scores,
        "Area under the curve, anomalies against test rows (standard error)": areas,
        "What was chosen, first split": settings,
        "Seconds of processor time of a fit, choices included": seconds,
    }.items():
        write_table(title, columns, ([name, *cells] for name, cells in found.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", type=pathlib.Path)
    parser.add_argument("--only", choices=["passes", "quality"])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--features", type=int, nargs="+", default=[16, 64, 256, 768])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print(describe_run("scipy", "scikit-learn"))
    if args.only in (None, "passes"):
        write_table(
            f"`score_samples` of {args.queries} queries against {args.points} points, "
            f"median of {args.repeats}",
            "d|dtype|kernel|seconds, euclidean|seconds, sphere|ratio",
            (
                row
                for d in args.features
                for dtype in (np.float32, np.float64)
                for row in passes(
                    args.points, args.queries, d, dtype, args.repeats, args.n_jobs
                )
            ),
        )
    if args.only in (None, "quality") and args.tables:
        quality(args.tables, args.seeds)


if __name__ == "__main__":
    main()
