"""Parameters of the estimator: what each may be, and what goes together."""

from numbers import Integral, Real

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skhdkde._backends import BACKENDS
from skhdkde._bandwidth import RULES
from skhdkde._kernels import KERNEL_NAMES, KERNELS
from skhdkde._neighbors import wanted_index

__all__ = ["CONSTRAINTS", "check_combination", "check_distributed"]

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


def check_combination(estimator):
    """Raise ValueError if parameters, each valid, do not go together."""
    kernel, kind = estimator.kernel, estimator.covariance_type
    compact = kernel in KERNELS and KERNELS[kernel].compact
    structured = kind in ("local", "auto") or estimator.adaptive is not False
    if compact and (structured or estimator.preserve_variance):
        raise ValueError(
            f"kernel={kernel!r} is zero beyond its bandwidth; it works with "
            "covariance_type 'spherical', 'diag' and 'full', preserve_variance=False and "
            "adaptive=False only."
        )
    if kernel == "exponential" and (kind == "local" or estimator.adaptive is not False):
        what = "covariance_type='local'" if kind == "local" else "adaptive"
        raise ValueError(f"{what} needs kernel 'gaussian' or 'student', got {kernel!r}.")
    degrees = estimator.degrees_of_freedom
    if kernel == "student" and degrees != "auto" and estimator.preserve_variance:
        if degrees <= 2.0:
            raise ValueError(
                "preserve_variance needs a kernel that has one: degrees_of_freedom must "
                f"be > 2, got {degrees!r}."
            )
    if estimator.adaptive is not False and estimator.algorithm == "neighbors":
        raise ValueError(
            "algorithm='neighbors' needs adaptive=False: where points have bandwidths of "
            "their own, the nearest are not those that contribute most. 'sampling', "
            "'auto' and 'exact' work."
        )
    if estimator.algorithm != "exact":
        wanted_index(estimator)  # raises if it cannot be had
    _check_rule(estimator, structured)


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


def _check_rule(estimator, structured):
    rule, kind = estimator.bandwidth, estimator.covariance_type
    searched = isinstance(rule, str) and rule == "kl"
    if searched:
        return
    if kind == "auto":
        raise ValueError(
            "covariance_type='auto' compares structures at the bandwidths that are best "
            f"for them: it needs bandwidth='kl', got {rule!r}."
        )
    if estimator.kernel == "student" and estimator.degrees_of_freedom == "auto":
        raise ValueError(
            "degrees_of_freedom='auto' is chosen together with the bandwidth: it needs "
            f"bandwidth='kl', got {rule!r}. Pass a number."
        )
    structured |= estimator.preserve_variance or estimator.kernel == "student"
    if isinstance(rule, str) and structured:
        raise ValueError(
            f"bandwidth={rule!r} is for kernels of one covariance, not pulled, of finite "
            "variance; pass 'kl' or a number."
        )
