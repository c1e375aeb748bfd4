"""Density estimators of other packages, each tuned as it would be by its users.

Each has ``fit(X)``, ``score_samples(X)`` and ``setting``, what it chose, in words. They
see the training rows only: what has to be chosen is chosen on parts of these.
"""

import copy
import time
import warnings

import numpy as np
from scipy.stats import cauchy
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

__all__ = ["Flow", "Kernels", "Mixture", "Vine"]

# Share of the training rows on which settings are compared.
HELD_OUT = 0.2


def held_out_split(X, random_state):
    """Rows to fit to, and rows on which to compare settings."""
    order = np.random.default_rng(random_state).permutation(len(X))
    n_held_out = round(HELD_OUT * len(X))
    return X[order[n_held_out:]], X[order[:n_held_out]]


class Mixture:
    """Gaussian mixture of scikit-learn, the best on held-out rows, fitted again to all.

    Compares 1 to 30 components, full and diagonal covariances, three values of
    ``reg_covar``.
    """

    requires = ("sklearn",)

    def __init__(self, random_state, seconds=None):
        self.random_state = random_state

    def fit(self, X):
        rows, held_out = held_out_split(X, self.random_state)
        scores = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for candidate in self._candidates():
                try:
                    scores[candidate] = candidate.fit(rows).score(held_out)
                except ValueError:  # a covariance that is singular
                    continue
            ranked = sorted(scores, key=scores.get, reverse=True)
            self.mixture = self._first_that_fits(ranked, X)
        best = self.mixture
        self.setting = f"{best.n_components} {best.covariance_type}, {best.reg_covar:g}"
        return self

    def _candidates(self):
        for k in (1, 2, 3, 4, 6, 8, 12, 20, 30):
            for kind in ("full", "diag"):
                for reg_covar in (1e-2, 1e-3, 1e-5):
                    yield GaussianMixture(
                        k,
                        covariance_type=kind,
                        reg_covar=reg_covar,
                        n_init=3,
                        random_state=self.random_state,
                    )

    @staticmethod
    def _first_that_fits(ranked, X):
        for candidate in ranked:
            try:
                return candidate.fit(X)
            except ValueError:
                continue
        raise ValueError("No Gaussian mixture could be fitted.")

    def score_samples(self, X):
        return self.mixture.score_samples(X)


class Kernels:
    """KernelDensity of scikit-learn, with the bandwidth that is best in 5 folds.

    It is told to sum all pairs (``leaf_size``), as its trees lose accuracy in high
    dimension.
    """

    requires = ("sklearn",)

    def __init__(self, random_state, seconds=None):
        pass

    def fit(self, X):
        grid = {"bandwidth": np.geomspace(0.03, 3.0, 40)}
        self.search = GridSearchCV(KernelDensity(leaf_size=len(X)), grid, cv=5).fit(X)
        self.setting = f"bandwidth {self.search.best_params_['bandwidth']:.3g}"
        return self

    def score_samples(self, X):
        return self.search.best_estimator_.score_samples(X)


class Vine:
    """Vine copula of pyvinecopulib, on margins by its kernel densities.

    Trees, and the family of each pair, parametric or not, are those of the default
    settings: families are compared by AIC. Its margins are zero beyond the training
    rows, and one test row there would give minus infinity: each has a Cauchy
    distribution of weight 1 / n added.
    """

    requires = ("pyvinecopulib",)
    beyond = cauchy()

    def __init__(self, random_state, seconds=None):
        pass

    def fit(self, X):
        import pyvinecopulib

        self.weight = 1.0 / len(X)
        self.margins = []
        for column in X.T:
            margin = pyvinecopulib.Kde1d()
            margin.fit(np.ascontiguousarray(column))
            self.margins.append(margin)
        self.copula = pyvinecopulib.Vinecop.from_data(self._at_margins(X, "cdf"))
        self.setting = "defaults"
        return self

    def _at_margins(self, X, function):
        """``cdf`` or ``pdf`` of each margin at its feature."""
        values = np.empty_like(X)
        for k, margin in enumerate(self.margins):
            column = np.ascontiguousarray(X[:, k])
            inside = getattr(margin, function)(column)
            beyond = getattr(self.beyond, function)(column)
            values[:, k] = (1.0 - self.weight) * inside + self.weight * beyond
        return values

    def score_samples(self, X):
        copula = self.copula.pdf(np.clip(self._at_margins(X, "cdf"), 1e-10, 1 - 1e-10))
        margins = np.log(self._at_margins(X, "pdf")).sum(axis=1)
        with np.errstate(divide="ignore"):
            return np.log(copula) + margins


class Flow:
    """Neural spline or masked autoregressive flow of zuko, the better on held-out rows.

    Compares widths and weight decays within ``seconds`` of processor time in all. A
    flow stops when ``patience`` epochs have brought nothing on the held-out rows, or
    when its share of the time is up, and keeps the weights that were best there.
    """

    requires = ("torch", "zuko")
    patience = 40
    grid = [
        (kind, width, decay)
        for decay in (1e-2, 1.0)
        for width in (64, 32)
        for kind in ("NSF", "MAF")
    ]

    def __init__(self, random_state, seconds=60.0):
        self.random_state = random_state
        self.seconds = seconds

    def fit(self, X):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(self.random_state)
        rows, held_out = (
            torch.as_tensor(part, dtype=torch.float32)
            for part in held_out_split(X, self.random_state)
        )
        end = time.process_time() + self.seconds
        self.held_out_score, self.flow = -np.inf, None
        for i, (kind, width, decay) in enumerate(self.grid):
            now = time.process_time()
            stop = now + (end - now) / (len(self.grid) - i)
            score, flow = self._train(kind, width, decay, rows, held_out, stop)
            if score > self.held_out_score:
                self.held_out_score, self.flow = score, flow
                self.setting = f"{kind}, width {width}, decay {decay:g}"
        return self

    def _train(self, kind, width, decay, rows, held_out, stop):
        """Score on the held-out rows and flow of one setting."""
        import torch
        import zuko

        flow = getattr(zuko.flows, kind)(
            rows.shape[1], transforms=3, hidden_features=[width] * 2, randperm=True
        )
        optimizer = torch.optim.AdamW(flow.parameters(), lr=2e-3, weight_decay=decay)
        best, weights, since = -np.inf, None, 0
        while since < self.patience and time.process_time() < stop:
            for batch in torch.randperm(len(rows)).split(128):
                optimizer.zero_grad()
                (-flow().log_prob(rows[batch]).mean()).backward()
                torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                optimizer.step()
            with torch.no_grad():
                score = float(flow().log_prob(held_out).mean())
            since += 1
            if score > best:
                best, since = score, 0
                weights = copy.deepcopy(flow.state_dict())
        if weights is not None:
            flow.load_state_dict(weights)
        return best, flow

    def score_samples(self, X):
        import torch

        with torch.no_grad():
            return self.flow().log_prob(torch.as_tensor(X, dtype=torch.float32)).numpy()
