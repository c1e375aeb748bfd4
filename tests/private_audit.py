"""An audit of differential privacy, which knows the claim and sees releases only.

For pairs of neighbouring data sets an observer who knows both guesses, from a release,
which of the two it is from. However clever the guess, its rates of true and false alarms
bound epsilon from below; bounds are of Clopper and Pearson. Shares no code with the
package.
"""

import warnings

import numpy as np
from scipy.stats import beta

from skhdkde.private import PrivateKernelDensity


def releases(n_pairs, rng, *, epsilon=1.0, delta=0.0, n_components=2):
    """Yield the scores of guesses: of a release with the row, and of one without.

    Other rows are drawn anew for each pair. The row is the one, of many, that changes
    the sums most: frequencies are public.
    """
    kde = PrivateKernelDensity(
        epsilon, delta=delta, bandwidth=1.0, n_components=n_components, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        omega, spread = public(kde.fit(rng.normal(size=(300, 2))))
        candidates = rng.uniform(-30.0, 30.0, size=(20_000, 2))
        total = np.abs(features(omega, candidates)).sum(axis=(0, 2))
        row = candidates[[total.argmax()]]
        for _ in range(n_pairs):
            without = rng.normal(size=(300, 2))
            pair = np.vstack([without, row]), without
            yield tuple(
                log_ratio(kde.fit(X), pair, omega, spread, epsilon, delta) for X in pair
            )


def public(kde):
    """Return frequencies and spreads of the noise, which are public."""
    frequencies, released = kde._released.frequencies, kde._released
    turns = frequencies.multiples * frequencies.turns / frequencies.unit
    return 2.0 * np.pi * turns, released.spread


def features(omega, X):
    """Return cosines and sines of rows, by definition."""
    return np.stack([np.cos(X @ omega.T), np.sin(X @ omega.T)])


def log_ratio(kde, pair, omega, spread, epsilon, delta):
    """Return the log of how much likelier a release is with the row than without.

    Spreads are of the noise that the mechanism has, halved or not.
    """
    found = 0.0
    for sign, X in zip((1.0, -1.0), pair, strict=True):
        gaps = kde._released.sums - features(omega, X).sum(axis=1)
        if delta:
            found -= sign * 0.5 * np.sum((gaps / spread) ** 2)
        else:
            found -= sign * np.sqrt(2.0) * np.sum(np.abs(gaps / spread))
        found -= sign * 0.05 * epsilon * abs(kde.n_rows_ - len(X))
    return found


def epsilon_bound(scores, delta, confidence=0.95):
    """Return a lower bound of epsilon, valid with this confidence.

    A guess is made where a score is far from zero: that a release is with the row, or is
    the one without. A tenth of the pairs says how far, the others give the bound. Right
    and wrong guesses are of both kinds of releases: if either kind keeps the claim, so do
    their means.
    """
    scores = np.asarray(scores)
    first, second = np.split(scores, [len(scores) // 10])
    threshold = np.quantile(np.abs(first), 0.85)
    signed = second * [1.0, -1.0]
    right, wrong = (signed >= threshold).sum(), (signed <= -threshold).sum()
    n, tail = signed.size, 0.5 * (1.0 - confidence)
    low = beta.ppf(tail, right, n - right + 1) if right else 0.0
    high = beta.ppf(1.0 - tail, wrong + 1, n - wrong) if wrong < n else 1.0
    return np.log(max((low - delta) / high, 1e-300))
