"""Private kernel sums: an audit, stated errors, the smallest bandwidth, digits.

    python benchmarks/private.py [--only audit errors bandwidths digits]

Noise is the system's, so that numbers differ a little from run to run. Nothing is timed.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from reporting import announce, describe_run, write_table
from scipy.fft import dctn
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import private_audit

from skhdkde._private import Budget
from skhdkde.private import PrivateDensityClassifier, PrivateKernelDensity
from skhdkde.regimes import gaussian_thresholds, private_bandwidth

N_ROWS = 50_000


def exact_sums(Q, X, h):
    """Return kernel sums at queries, by definition."""
    sq = (Q**2).sum(axis=1)[:, None] + (X**2).sum(axis=1) - 2.0 * Q @ X.T
    return np.exp(-0.5 * np.maximum(sq, 0.0) / h**2).sum(axis=1)


def audit(n_pairs):
    """Lower bounds of epsilon, of the mechanism and of one with less noise."""
    stated = Budget.scale
    for delta in (0.0, 0.01):
        for divisor in (1, 2):
            announce(f"audit, delta={delta}, noise / {divisor}")
            Budget.scale = lambda self, z, by=divisor: stated(self, z) // by
            scores = list(
                private_audit.releases(n_pairs, np.random.default_rng(0), delta=delta)
            )
            Budget.scale = stated
            bound = private_audit.epsilon_bound(scores, delta)
            noise = "as stated" if divisor == 1 else "halved"
            caught = "above" if bound > 1.0 else "not above"
            yield delta, noise, n_pairs, f"{bound:.2f}", caught


def errors(n_releases):
    """Stated standard errors beside the spread over releases."""
    cases = [(2, (-6.0, 6.0)), (2, None), (20, None), (384, None)]
    for d, bounds in cases:
        for delta in (0.0, 1e-6):
            announce(f"errors, d={d}, delta={delta}")
            rng = np.random.default_rng(d)
            X, Q = rng.normal(size=(300, d)), rng.normal(size=(30, d))
            h = np.sqrt(d)
            m = "auto" if bounds else 128
            kde = PrivateKernelDensity(
                1.0, delta=delta, bandwidth=h, bounds=bounds, n_components=m
            )
            gaps, stated = [], []
            for _ in range(n_releases):
                kde.fit(X)
                gaps.append(kde.kernel_sum(Q) - exact_sums(Q, X, h))
                stated.append(kde.standard_error(Q))
            gaps = np.array(gaps)
            by_query = np.mean(stated, axis=0) / gaps.std(axis=0)
            whole = np.sqrt(np.mean(np.square(stated)) / np.mean(gaps**2))
            yield (
                d,
                kde.features_,
                delta,
                f"{gaps.std():.2f}",
                f"{whole:.3f}",
                f"{by_query.min():.2f} to {by_query.max():.2f}",
                f"{np.abs(gaps.mean(axis=0) / gaps.std(axis=0)).max():.2f}",
            )


def measured(d, h, delta, box, X, Q, n_releases):
    """Return the root mean square of relative errors at the queries."""
    truth = exact_sums(Q, X, h)
    kde = PrivateKernelDensity(1.0, delta=delta, bandwidth=h, bounds=box)
    gaps = [kde.fit(X).kernel_sum(Q) / truth - 1.0 for _ in range(n_releases)]
    return np.sqrt(np.mean(np.square(gaps))), kde


def bandwidths(n_releases):
    """The smallest bandwidth of 10 % relative error, measured and by theory."""
    cases = [(2, (-6.0, 6.0), 0.0), (2, None, 0.0), (5, None, 0.0), (20, None, 0.0)]
    cases += [(384, None, 0.0), (2, (-6.0, 6.0), 1e-6)]
    for d, box, delta in cases:
        theory = gaussian_thresholds(N_ROWS, np.ones(d))
        widths = None if box is None else box[1] - box[0]
        h = private_bandwidth(N_ROWS, np.ones(d), 1.0, delta=delta, widths=widths)
        rng = np.random.default_rng(d)
        X, Q = rng.normal(size=(N_ROWS, d)), rng.normal(size=(4000, d))
        sq = (Q**2).sum(axis=1)
        Q = Q[np.argsort(np.abs(sq - np.median(sq)))[:200]]
        # in two dimensions noise at one query is much like that at others
        repeats = 5 * n_releases if d < 20 else n_releases
        grid = h * np.array([0.85, 1.0, 1.15])
        found = []
        for each in grid:
            announce(f"bandwidths, d={d}, h={each:.3g}")
            found.append(measured(d, each, delta, box, X, Q, repeats)[0])
        slope, level = np.polyfit(np.log(found), np.log(grid), 1)
        at = np.exp(level + slope * np.log(0.1))
        small, kde = measured(d, 0.5 * theory.h_g, delta, box, X, Q, 1)
        yield (
            d,
            delta,
            "yes" if box else "no",
            kde.features_ if box is None else "lattice",
            f"{theory.h_clt:.3g}",
            f"{at / theory.h_clt:.2f}",
            f"{h / theory.h_clt:.2f}",
            f"{100.0 * (at / h - 1.0):+.0f} %",
            f"{100.0 * small:.1e} %",
            "yes" if kde.relative_error_ > 0.15 else "NO",
        )


def digits(n_splits):
    """Accuracy by similarity to the rows of each class, private and not."""
    data = load_digits()
    # 36 smooth cosines of 64: a map that does not look at the rows
    smooth = dctn(data.images, axes=(1, 2), norm="ortho")[:, :6, :6].reshape(-1, 36)
    y = data.target
    for name, X in (("64 pixels", data.data), ("36 cosines", smooth)):
        for h in (12.0, 16.0, 20.0, 25.0, 30.0):
            announce(f"digits, {name}, h={h}")
            rows = []
            folds = StratifiedKFold(n_splits, shuffle=True, random_state=0)
            for train, test in folds.split(X, y):
                members = [X[train][y[train] == k] for k in range(10)]
                sums = np.array([exact_sums(X[test], member, h) for member in members])
                row = [np.mean(sums.argmax(axis=0) == y[test])]
                for epsilon, delta in ((1.0, 1e-5), (2.0, 1e-5), (4.0, 1e-5), (4.0, 0.0)):
                    private = PrivateDensityClassifier(
                        epsilon, delta=delta, bandwidth=h, classes=range(10)
                    ).fit(X[train], y[train])
                    row.append(private.score(X[test], y[test]))
                rows.append(row)
            yield name, f"{h:.0f}", *(f"{100 * value:.1f}" for value in np.mean(rows, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--releases", type=int, default=500)
    parser.add_argument("--fits", type=int, default=4, help="of 50,000 rows, a bandwidth")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*too small for epsilon")
    print(describe_run("scipy", "scikit-learn"))
    for name in options.only:
        make, title, columns, size = TABLES[name]
        print(f"\n<!-- {name} -->")
        write_table(title, columns, make(getattr(options, size)))
    print("\n<!-- end -->")


TABLES = {
    "audit": (
        audit,
        "Lower bound of epsilon (95 %), stated epsilon 1",
        "delta|noise|pairs|bound|epsilon = 1",
        "pairs",
    ),
    "errors": (
        errors,
        "Stated standard error of a kernel sum, 300 points from N(0, I), epsilon 1",
        "features|frequencies|delta|spread|stated / spread|at single queries|"
        "largest bias / spread",
        "releases",
    ),
    "bandwidths": (
        bandwidths,
        "Smallest bandwidth with a relative error of 10 %, 50,000 points, epsilon 1",
        "features|delta|bounds|frequencies|h_CLT|measured / h_CLT|theory / h_CLT|"
        "difference|error at h_G / 2|warning there",
        "fits",
    ),
    "digits": (
        digits,
        "Digits: accuracy (%) at one bandwidth",
        "rows|bandwidth|not private|epsilon 1, delta 1e-5|epsilon 2, delta 1e-5|"
        "epsilon 4, delta 1e-5|epsilon 4, delta 0",
        "folds",
    ),
}

if __name__ == "__main__":
    main()
