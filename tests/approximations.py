"""What tests of algorithms share."""

import importlib.util
import warnings

from skhdkde import HighDimKernelDensity


def quiet(kde, X):
    """Log densities, and the report on them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*stated error.*")
        return kde.score_samples(X), kde.approximation_


def fit(X, **params):
    params.setdefault("random_state", 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*exact duplicates.*")
        return HighDimKernelDensity(**params).fit(X)


def has_cuda():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
