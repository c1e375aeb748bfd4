"""What may have been meant: the ends of errors about parameters."""

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, TypeVar, cast

from sklearn.utils._param_validation import InvalidParameterError, StrOptions

F = TypeVar("F", bound=Callable)

# Parameters of scikit-learn's KernelDensity and of other packages, and what to do.
ELSEWHERE = {
    "metric": "the distance is Euclidean; for another, transform the features",
    "metric_params": "the distance is Euclidean; leave it out",
    "leaf_size": "there is no tree; leave it out",
    "breadth_first": "there is no tree; leave it out",
    **dict.fromkeys(
        ("atol", "rtol"),
        "sums are exact by default; leave it out, or set algorithm='auto' and tol, an "
        "error of the log density in nats",
    ),
    "bw_method": "it is bandwidth, which is in the units of the data if it is a number, "
    "not a factor of their standard deviation",
    "bw": "it is bandwidth",
    **dict.fromkeys(("weights", "sample_weight"), "pass sample_weight to fit"),
    **dict.fromkeys(("X", "data", "dataset"), "pass points, as rows, to fit"),
    **dict.fromkeys(("nu", "df"), "it is degrees_of_freedom"),
    "seed": "it is random_state",
}
TREES = "There are no trees: 'exact' sums over all points."


def did_you_mean(value: Any, options: Iterable[str]) -> str:
    """Return a question that names the option most like a string; "" if none is."""
    if not isinstance(value, str):
        return ""
    found = difflib.get_close_matches(value.strip().lower(), sorted(options), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


@contextlib.contextmanager
def hinting(constraints: Mapping, values: Mapping) -> Iterator[None]:
    """Add to an error of scikit-learn's checks of parameters what may have been meant."""
    try:
        yield
    except InvalidParameterError as error:
        for name, value in values.items():
            if f"The {name!r} parameter" in str(error):
                error.args = (f"{error}{_hint(name, value, constraints.get(name, ()))}",)
        raise


def hinted(function: Any) -> Any:
    """Return a function under scikit-learn's ``validate_params``, with better errors."""

    @functools.wraps(function)
    def hinted_function(*args, **kwargs):
        with hinting(function._skl_parameter_constraints, kwargs):
            return function(*args, **kwargs)

    return hinted_function


def _hint(name, value, constraints):
    """Return what to do about a value that a parameter may not have."""
    if isinstance(value, str):
        if name == "algorithm" and value in ("ball_tree", "kd_tree"):
            return f" {TREES}"
        choices = [c.options for c in constraints if isinstance(c, StrOptions)]
        return did_you_mean(value, set().union(*choices))
    if getattr(value, "ndim", 1) == 0:
        return f" Pass {name}.item()."
    if not hasattr(value, "__len__"):
        return ""
    by_itself = ", and 'kl' finds the best by itself" if name == "bandwidth" else ""
    return f" Pass one value: GridSearchCV compares several{by_itself}."


def explained(init: F) -> F:
    """Return a constructor whose errors about its arguments say what to do.

    Its signature is that of ``init``, from which scikit-learn reads the parameters.
    """
    known = list(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def explained_init(self, *args, **kwargs):
        kind = type(self).__name__
        if args:
            raise TypeError(f"{kind} takes parameters by name only. {_named(kind, args)}")
        if unknown := about_unknown(kind, kwargs, known):
            raise TypeError(unknown)
        init(self, **kwargs)

    return cast(F, explained_init)


def _named(kind, args):
    """Return how to pass what was passed without a name."""
    if isinstance(args[0], Real):
        return f"Write {kind}(bandwidth={args[0]!r})."
    if hasattr(args[0], "__len__") and not isinstance(args[0], str):
        return f"Points are passed to fit, as rows: {kind}().fit(X)."
    return f"Write, say, {kind}(bandwidth='kl', kernel='gaussian')."


def about_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> str:
    """Return a sentence on each name that is no parameter, as to what to do."""
    sentences = []
    for name in names:
        if name not in known:
            says = f"{kind} has no parameter {name!r}"
            if name in ELSEWHERE:
                sentences.append(f"{says}: {ELSEWHERE[name]}.")
            else:
                sentences.append(f"{says}.{did_you_mean(name, known)}")
    return " ".join(sentences)
