"""Warnings that name the user's line."""

import sys
import warnings
from types import FrameType

# What runs inside these packages is not the user's line.
INSIDE = ("skhdkde.", "sklearn.", "joblib.", "dask.", "distributed.")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, naming the line that called the package, however deep the call is."""
    caller: FrameType | None = sys._getframe(1)
    level = 2
    while caller and caller.f_globals.get("__name__", "").startswith(INSIDE):
        caller, level = caller.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
