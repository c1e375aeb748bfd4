"""Mutual information and entropy of laws whose values are known: bias and coverage.

    python benchmarks/information.py --sets 20

For each law the tables have the mean error over data sets, its spread, the mean of the
stated standard errors, and how many of the 95 % intervals have the truth in them. Truths
are closed forms, or means of the true log density over a million points.
"""

import argparse
import time
import warnings

import numpy as np
from reporting import announce, describe_run, write_table
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, multivariate_t

from skhdkde import HighDimKernelDensity
from skhdkde.information import entropy, mutual_information

CENTERS = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
OTHERS = np.array([[0.0, 3.0], [0.0, 0.0], [3.0, 3.0]])


def normal(n, rng, d=16, r=0.5):
    """Draw pairs of correlated normal features."""
    X = rng.standard_normal((n, d))
    return X, r * X + np.sqrt(1.0 - r**2) * rng.standard_normal((n, d))


def copula(n, rng):
    """Draw correlated normal features, each through a map of its own."""
    X, Y = normal(n, rng, 3, 0.6)
    X = np.column_stack([np.exp(X[:, 0]), X[:, 1] ** 3 + X[:, 1], np.exp(0.7 * X[:, 2])])
    return X, np.column_stack([Y[:, 0], np.exp(Y[:, 1]), np.sinh(Y[:, 2])])


def mixture(n, rng):
    """Draw three clusters, between which X and Y differ together."""
    cluster = rng.integers(3, size=n)
    means = CENTERS[cluster], OTHERS[cluster]
    return tuple(mean + rng.standard_normal((n, 2)) for mean in means)


def mixture_log_densities(X, Y):
    """Return true log densities of both together and of each."""
    of_X, of_Y = (
        np.array([multivariate_normal(center).logpdf(Z) for center in centers])
        for centers, Z in ((CENTERS, X), (OTHERS, Y))
    )
    logs = logsumexp([of_X + of_Y, of_X, of_Y], axis=1) - np.log(3.0)
    return tuple(logs)


SCATTER = np.block([[np.eye(2), 0.5 * np.eye(2)], [0.5 * np.eye(2), np.eye(2)]])


def student(n, rng):
    """Draw a multivariate t law of four degrees of freedom."""
    Z = multivariate_t(np.zeros(4), SCATTER, df=4).rvs(n, random_state=rng)
    return Z[:, :2], Z[:, 2:]


def student_log_densities(X, Y):
    """Return true log densities of both together and of each."""
    own = multivariate_t(np.zeros(2), np.eye(2), df=4)
    both = multivariate_t(np.zeros(4), SCATTER, df=4).logpdf(np.hstack([X, Y]))
    return both, own.logpdf(X), own.logpdf(Y)


def simulated(draw, log_densities):
    """Return mutual information and joint entropy from a million points."""
    both, of_X, of_Y = log_densities(*draw(10**6, np.random.default_rng(99)))
    return np.mean(both - of_X - of_Y), -np.mean(both)


def normal_truth(d, r):
    """Return mutual information and joint entropy of correlated normal pairs."""
    log_det = d * np.log(1.0 - r**2)
    return -0.5 * log_det, d * (1.0 + np.log(2.0 * np.pi)) + 0.5 * log_det


# Its maps add the mean logs of their slopes to the entropy, which is left out.
COPULA = normal_truth(3, 0.6)[0], np.nan
LAWS = {
    "normal (5000, 32)": (normal, 5000, lambda: normal_truth(16, 0.5)),
    "maps of normal (1000, 6)": (copula, 1000, lambda: COPULA),
    "three clusters (1000, 4)": (
        mixture,
        1000,
        lambda: simulated(mixture, mixture_log_densities),
    ),
    "Student 4 (1000, 4)": (
        student,
        1000,
        lambda: simulated(student, student_log_densities),
    ),
}
ESTIMATORS = {
    "default": None,
    "full": HighDimKernelDensity(
        covariance_type="full", preserve_variance=True, random_state=0
    ),
}


COLUMNS = "distribution|estimator|truth|mean error|spread|stated error|inside|CPU s"


def row(law, estimator, truth, found, seconds):
    """Return a row of the table for estimates of one quantity."""
    values = np.array([f.value for f in found])
    inside = [low <= truth <= high for low, high in (f.interval() for f in found)]
    stated = np.mean([f.standard_error for f in found])
    return (
        law,
        estimator,
        f"{truth:.3f}",
        f"{values.mean() - truth:+.3f}",
        f"{values.std(ddof=1):.3f}",
        f"{stated:.3f}",
        f"{sum(inside)} of {len(inside)}",
        f"{seconds / len(found):.1f}",
    )


def rows(laws, estimators, n_sets, quantity):
    """Yield rows of a table, of mutual information or of the entropy of all features."""
    for law in laws:
        draw, n, truths = LAWS[law]
        truth = truths()[quantity == "entropy"]
        for name in estimators if np.isfinite(truth) else ():
            announce(f"{quantity}: {law}, {name}")
            start, found = time.process_time(), []
            for seed in range(n_sets):
                X, Y = draw(n, np.random.default_rng(seed))
                if quantity == "entropy":
                    found.append(entropy(np.hstack([X, Y]), estimator=ESTIMATORS[name]))
                else:
                    found.append(mutual_information(X, Y, estimator=ESTIMATORS[name]))
            yield row(law, name, truth, found, time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=20, help="data sets of each law")
    parser.add_argument("--laws", nargs="*", default=list(LAWS), choices=list(LAWS))
    parser.add_argument(
        "--estimators", nargs="*", default=list(ESTIMATORS), choices=list(ESTIMATORS)
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(describe_run("scipy", "scikit-learn"))
    for quantity in ("mutual information", "entropy"):
        print(f"\n<!-- {quantity} -->")  # by which the guide finds its table
        title = f"{quantity.capitalize()}, nats, {args.sets} data sets; 95 % intervals"
        table = rows(args.laws, args.estimators, args.sets, quantity)
        write_table(title, COLUMNS, table)


if __name__ == "__main__":
    main()
