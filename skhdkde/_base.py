"""Parameters of the estimator: what each may be, and what goes together."""

from numbers import Integral, Real

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skhdkde._kernels import KERNEL_NAMES
from skhdkde._pairwise.backends import BACKENDS
from skhdkde._selection.rules import RULES

COVARIANCE_TYPES = ("spherical", "diag", "full", "local", "auto")
CONSTRAINTS = {
    "bandwidth": [
        Interval(Real, 0, None, closed="neither"),
        StrOptions(set(RULES)),
    ],
    "kernel": [StrOptions(set(KERNEL_NAMES))],
    "degrees_of_freedom": [
        Interval(Real, 0, None, closed="right"),
        StrOptions({"auto"}),
    ],
    "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
    "preserve_variance": ["boolean"],
    "adaptive": ["boolean", Interval(Integral, 1, None, closed="left")],
    "covariance_estimator": [HasMethods(["fit"]), None],
    "mixture": [HasMethods(["fit", "predict"]), None],
    "algorithm": [StrOptions({"exact", "neighbors", "sampling", "auto"})],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
    "neighbors_index": [
        StrOptions({"hnsw", "ivf", "exact"}),
        HasMethods(["fit", "transform"]),
        None,
    ],
    "backend": [StrOptions(set(BACKENDS))],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}


def check_distributed(estimator):
    """Raise ValueError for parameters that need all points in one place."""
    allowed = {
        "algorithm": ("exact",),
        "covariance_type": ("spherical", "diag", "full"),
        "covariance_estimator": (None,),
        "mixture": (None,),
        "adaptive": (False,),
    }
    for name, values in allowed.items():
        value = getattr(estimator, name)
        if not any(value is v or (isinstance(v, str) and value == v) for v in values):
            shown = " or ".join(map(repr, values))
            raise ValueError(
                f"{name} must be {shown} for training points on a cluster, got "
                f"{value!r}. HighDimKernelDensity, on a random sample of them, has all "
                "parameters."
            )
