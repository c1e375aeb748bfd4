"""Decisions by densities: anomalies, their p-values, false discoveries, classes.

    python benchmarks/decisions.py FOLDER

FOLDER has tables of which some rows are anomalies, files ``name.npz`` with arrays X and
y (1 for anomalies). Without it only what is simulated or ships with scikit-learn runs.

Detection: for each seed 1,200 rows of a table (all, if there are fewer), with its share
of anomalies but at least 30 of them (all, if there are fewer); 70 percent of each kind
for training. Clean training has the normal rows of these only, contaminated training
all. Scored are the other 30 percent. Features are standardised on the training rows;
those that are constant there are dropped. Nothing is chosen by labels here; the
detector's own defaults were, on these tables by other splits.
"""

import argparse
import pathlib
import warnings

import numpy as np
from reporting import announce, describe_run, write_table
from scipy.stats import kstest, rankdata
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import IsolationForest
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from skhdkde import DensityClassifier, DensityOutlierDetector, HighDimKernelDensity

N_ROWS, LEAST_ANOMALIES, TRAIN_SHARE = 1200, 30, 0.7
RATES = 0.05, 0.1, 0.2
# Tables with more have one split.
MANY_FEATURES = 300
NAMES = {
    "ours": "DensityOutlierDetector",
    "ours, trim=0": "the same, trim=0",
    "forest": "IsolationForest",
    "LOF": "LocalOutlierFactor",
    "SVM": "OneClassSVM",
    "5-NN": "distance to the 5th neighbour",
}


def distances(train, test):
    """Minus the distance to the fifth neighbour among the training rows."""
    neighbors = NearestNeighbors(n_neighbors=5).fit(train)
    return -neighbors.kneighbors(test)[0][:, -1]


SCORES = {
    "ours": lambda A, B: DensityOutlierDetector().fit(A).score_samples(B),
    "ours, trim=0": lambda A, B: DensityOutlierDetector(trim=0).fit(A).score_samples(B),
    "forest": lambda A, B: IsolationForest(random_state=0).fit(A).score_samples(B),
    "LOF": lambda A, B: LocalOutlierFactor(novelty=True).fit(A).score_samples(B),
    "SVM": lambda A, B: OneClassSVM().fit(A).score_samples(B),
    "5-NN": distances,
}


def load(path):
    """Rows of a table, and which are anomalies."""
    found = np.load(path)
    return found["X"].reshape(len(found["X"]), -1).astype(float), found["y"] == 1


def split(is_anomaly, seed):
    """Training and test rows of a table, normal ones and anomalies: four arrays."""
    rng = np.random.default_rng(seed)
    odd, normal = np.flatnonzero(is_anomaly), np.flatnonzero(~is_anomaly)
    n_rows = min(N_ROWS, len(is_anomaly))
    n_odd = max(LEAST_ANOMALIES, round(n_rows * len(odd) / len(is_anomaly)))
    parts = []
    for rows, n in ((normal, n_rows - min(n_odd, len(odd))), (odd, n_odd)):
        rows = rng.permutation(rows)[:n]
        parts += np.split(rows, [round(TRAIN_SHARE * len(rows))])
    return parts


def standardised(train, *others):
    """Rows without the features that are constant in training, standardised there."""
    varies = train.min(axis=0) < train.max(axis=0)
    mean, scale = train[:, varies].mean(axis=0), train[:, varies].std(axis=0)
    return [(rows[:, varies] - mean) / scale for rows in (train, *others)]


def detection(tables, seeds):
    """Areas under the curve on all tables, clean and contaminated."""
    areas = {kind: [] for kind in ("clean", "contaminated")}
    shares = []
    for name, path in tables.items():
        X, is_anomaly = load(path)
        found = {kind: [] for kind in areas}
        for seed in range(seeds if X.shape[1] <= MANY_FEATURES else 1):
            normal, normal_test, odd, odd_test = split(is_anomaly, seed)
            shares.append(len(odd) / (len(odd) + len(normal)))
            test = np.concatenate([normal_test, odd_test])
            for kind in areas:
                rows = normal if kind == "clean" else np.concatenate([normal, odd])
                A, B = standardised(X[rows], X[test])
                truth = ~is_anomaly[test]
                found[kind].append(
                    [roc_auc_score(truth, score(A, B)) for score in SCORES.values()]
                )
            announce(f"{name}, seed {seed}")
        for kind in areas:
            areas[kind].append(np.mean(found[kind], axis=0))
    report_detection(tables, {kind: np.array(a) for kind, a in areas.items()}, shares)


def report_detection(tables, areas, shares):
    """Write means and ranks, and each table."""
    rows, both = [], np.mean(list(areas.values()), axis=(0, 1))
    # ranks are among one of ours and the others
    others = [k for k, name in enumerate(SCORES) if not name.startswith("ours")]
    for k, name in enumerate(SCORES):
        row = [NAMES[name]]
        for area in areas.values():
            among = area[:, [k, *others]] if k not in others else area[:, [0, *others]]
            place = 0 if k not in others else 1 + others.index(k)
            ranks = rankdata(-among, axis=1)[:, place]
            row += [f"{area[:, k].mean():.3f}", f"{ranks.mean():.2f}"]
        rows.append([*row, f"{both[k]:.3f}"])
    columns = "detector|clean: mean AUC|rank|contaminated: mean AUC|rank|mean of both"
    title = (
        f"Area under the ROC curve of test rows, mean over {len(tables)} tables; of the "
        f"contaminated training rows {min(shares):.0%} to {max(shares):.0%}, in the "
        f"median {np.median(shares):.0%}, are anomalies"
    )
    write_table(title, columns, rows)
    for kind, area in areas.items():
        cells = [
            [name, *(f"{value:.3f}" for value in row)]
            for name, row in zip(tables, area, strict=True)
        ]
        write_table(
            f"The same by table, {kind} training", "|".join(["table", *SCORES]), cells
        )


def correlated(n, d, rng):
    """Return normal points of correlated features, of one law for each number."""
    mixing = np.random.default_rng(d).normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mixing + 0.3 * rng.normal(size=(n, d))


def heavy(n, d, rng):
    """Return correlated rows with tails of four degrees of freedom."""
    return correlated(n, d, rng) / np.sqrt(rng.chisquare(4, size=(n, 1)) / 4)


def clusters(n, d, rng):
    """Return points of three clusters of different sizes."""
    centers = 3.0 * np.random.default_rng(d).normal(size=(3, d))
    label = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    return centers[label] + np.array([1.0, 0.5, 1.5])[label, None] * correlated(n, d, rng)


def skewed(n, d, rng):
    """Exponentials of correlated normal features."""
    return np.exp(0.7 * correlated(n, d, rng))


LAWS = {f.__name__: f for f in (correlated, heavy, clusters, skewed)}
STUDENT = {"kernel": "student", "degrees_of_freedom": 4, "preserve_variance": True}
FULL = {**STUDENT, "covariance_type": "full"}
MAPPED_STACK = {"covariance_type": "stack", "feature_maps": "auto"}
# Parameters (None for the detector's default), law, rows, features.
SETTINGS = [
    ({}, "correlated", 100, 5),
    ({}, "heavy", 1000, 50),
    ({}, "correlated", 5000, 400),
    ({"adaptive": True}, "clusters", 500, 10),
    ({"covariance_type": "diag"}, "skewed", 200, 20),
    ({**STUDENT, "covariance_type": "diag"}, "clusters", 1000, 100),
    (None, "correlated", 100, 5),
    (None, "skewed", 100, 50),
    (None, "correlated", 200, 400),
    (None, "heavy", 300, 100),
    (None, "clusters", 1000, 20),
    (None, "correlated", 2000, 400),
    (None, "skewed", 5000, 50),
    (FULL, "heavy", 1000, 10),
    ({"covariance_type": "local"}, "clusters", 300, 5),
    ({"covariance_type": "neighborhood"}, "clusters", 200, 5),
    ({"covariance_type": "neighborhood", **STUDENT}, "skewed", 1000, 10),
    ({"covariance_type": "auto"}, "heavy", 200, 10),
    ({"covariance_type": "auto"}, "clusters", 1000, 30),
    (MAPPED_STACK, "skewed", 300, 5),
]
# Fresh points of a setting in all, and for each data set, relative to its rows: more
# would see which data set it is, and not only whether p-values are uniform.
N_FRESH, FRESH_SHARE = 200, 0.03


def p_values_of(parameters, law, n, d, seed):
    """P-values of fresh points, a few for each of many data sets."""
    rng = np.random.default_rng(seed)
    n_fresh = max(1, round(FRESH_SHARE * n))
    found = []
    for _ in range(-(-N_FRESH // n_fresh)):
        X = LAWS[law](n + n_fresh, d, rng)
        estimator = None
        if parameters is not None:
            estimator = HighDimKernelDensity(**parameters, random_state=0)
        detector = DensityOutlierDetector(estimator).fit(X[:n])
        found.append(detector.p_values(X[n:]))
    return np.concatenate(found)


def uniformity():
    """Whether p-values of fresh points are uniform."""
    rows, n_passed = [], 0
    for k, (parameters, law, n, d) in enumerate(SETTINGS):
        announce(f"p-values: {parameters}, {law}, {n} x {d}")
        p = p_values_of(parameters, law, n, d, k)
        test = kstest(p, "uniform").pvalue
        n_passed += test > 0.01
        words = "the default" if parameters is None else str(parameters or "spherical")
        below = [f"{np.mean(p <= level):.3f}" for level in (0.05, 0.1, 0.2)]
        rows.append([words, law, f"{n} x {d}", *below, f"{test:.3f}"])
    title = (
        f"P-values of fresh points, clean training: share at most 0.05, 0.1 and 0.2, and "
        f"p of a Kolmogorov-Smirnov test; above 0.01 in {n_passed} of {len(rows)}"
    )
    write_table(title, "estimator|law|rows x features|0.05|0.1|0.2|KS", rows)


def discoveries(detector, test, is_anomaly):
    """Share of false ones among those flagged, and share found, at each rate."""
    found = []
    for rate in RATES:
        flagged = detector.predict(test, fdr=rate) == -1
        found.append(np.sum(flagged & ~is_anomaly) / max(1, flagged.sum()))
        found.append(np.mean(flagged[is_anomaly]))
    return found


def simulated_discoveries(law, n_sets, trim):
    """Rates on simulated data: of 500 fresh rows 25 are shifted and 25 too wide."""
    rows = []
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        X = LAWS[law](1500, 10, rng)
        train, test = X[:1000], X[1000:]
        test[:25] += 4.0 * train.std(axis=0)
        test[25:50] += 3.0 * (test[25:50] - train.mean(axis=0))
        detector = DensityOutlierDetector(trim=trim).fit(train)
        rows.append(discoveries(detector, test, np.arange(500) < 50))
    return np.mean(rows, axis=0)


def real_discoveries(path, seeds, trim):
    """Rates on a table: up to 1,000 normal rows for training, and up to 450 fresh.

    To these comes one anomaly for each nine.
    """
    X, is_anomaly = load(path)
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        normal = rng.permutation(np.flatnonzero(~is_anomaly))
        odd = rng.permutation(np.flatnonzero(is_anomaly))
        n_train = min(1000, round(TRAIN_SHARE * len(normal)))
        normal_test = normal[n_train : n_train + 450]
        odd = odd[: max(1, len(normal_test) // 9)]
        test = np.concatenate([normal_test, odd])
        A, B = standardised(X[normal[:n_train]], X[test])
        detector = DensityOutlierDetector(trim=trim).fit(A)
        rows.append(discoveries(detector, B, is_anomaly[test]))
    return np.mean(rows, axis=0)


def false_discoveries(tables, seeds, trim):
    """Write rates of false discoveries, and shares of anomalies found."""
    rows = {
        f"simulated: {law}": simulated_discoveries(law, 10 * seeds, trim) for law in LAWS
    }
    real = []
    for name, path in tables.items():
        announce(f"false discoveries: {name}")
        real.append(real_discoveries(path, 2 * seeds, trim))
    cells = [[name, *(f"{v:.3f}" for v in row)] for name, row in rows.items()]
    mean = np.mean(list(rows.values()), axis=0)
    cells.append(["simulated: mean", *(f"{v:.3f}" for v in mean)])
    if real:
        mean = np.mean(real, axis=0)
        cells.append(["real: mean over tables", *(f"{v:.3f}" for v in mean)])
        most = np.max(real, axis=0)
        cells.append(["real: largest of a table", *(f"{v:.3f}" for v in most)])
    columns = "data|" + "|".join(f"false at {r:.0%}|found" for r in RATES)
    title = (
        "Share of false discoveries, and of anomalies found, at three stated rates: "
        f"clean training, trim={trim!r}"
    )
    write_table(title, columns, cells)


def classes():
    """Accuracy and log loss on digits, five shuffled folds."""
    X, y = load_digits(return_X_y=True)
    models = {
        "DensityClassifier": DensityClassifier(),
        "DensityClassifier(temperature=1)": DensityClassifier(temperature=1),
        "LDA": LinearDiscriminantAnalysis(),
        "LDA, shrinkage by Ledoit-Wolf": LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto"
        ),
        "QDA(reg_param=0.01)": QuadraticDiscriminantAnalysis(reg_param=0.01),
        "QDA(reg_param=0.1)": QuadraticDiscriminantAnalysis(reg_param=0.1),
        "QDA(reg_param=0.5)": QuadraticDiscriminantAnalysis(reg_param=0.5),
        "KNN(5)": KNeighborsClassifier(5),
    }
    rows = []
    for name, model in models.items():
        found = []
        for train, test in KFold(5, shuffle=True, random_state=0).split(X):
            model.fit(X[train], y[train])
            proba = model.predict_proba(X[test])
            right = model.classes_[proba.argmax(axis=1)] == y[test]
            found.append([right.mean(), log_loss(y[test], proba)])
        accuracy, loss = np.mean(found, axis=0)
        rows.append([name, f"{accuracy:.4f}", f"{loss:.4f}"])
    write_table("Digits, five shuffled folds", "classifier|accuracy|log loss", rows)


def refusals():
    """Share of digits that are refused: of those known, and of one that was left out."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(X))
    train, test = order[:1200], order[1200:]
    rows = []
    for level in (0.01, 0.05):
        known, unknown = [], []
        for digit in range(10):
            rows_of = train[y[train] != digit]
            model = DensityClassifier(reject=level).fit(X[rows_of], y[rows_of])
            refused = model.predict(X[test]) == -1
            known.append(refused[y[test] != digit].mean())
            unknown.append(refused[y[test] == digit].mean())
        rows.append([f"{level}", f"{np.mean(known):.3f}", f"{np.mean(unknown):.3f}"])
    title = "Share refused, each digit left out of the training in turn"
    write_table(title, "reject|of known digits|of the one left out", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, nargs="?", help="of files .npz")
    parser.add_argument("--seeds", type=int, default=3, help="number of random splits")
    parser.add_argument(
        "--only", nargs="+", choices=["detection", "p-values", "fdr", "classes"]
    )
    parser.add_argument(
        "--untrimmed", action="store_true", help="detection with trim=0, too"
    )
    args = parser.parse_args()
    if not args.untrimmed:
        del SCORES["ours, trim=0"]
    tables = {}
    if args.folder is not None:
        tables = {path.stem: path for path in sorted(args.folder.glob("*.npz"))}
    only = args.only or ["detection", "p-values", "fdr", "classes"]
    print(describe_run("scipy", "scikit-learn"))
    print(f"- seeds: {args.seeds}, one for more than {MANY_FEATURES} features")
    # constant features and the like, which no one is there to read about
    warnings.simplefilter("ignore", UserWarning)
    with threadpool_limits(1):
        if "detection" in only and tables:
            detection(tables, args.seeds)
        if "fdr" in only:
            false_discoveries(tables, args.seeds, 0)
            false_discoveries(tables, args.seeds, "auto")
        if "p-values" in only:
            uniformity()
        if "classes" in only:
            classes()
            refusals()


if __name__ == "__main__":
    main()
