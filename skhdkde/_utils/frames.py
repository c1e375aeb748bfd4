"""Data frames: columns and entries of X that cannot be used, and tables of results."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

# How the types of dates and times, of pandas and polars, begin.
TIMES = ("date", "time", "duration", "period")


@contextlib.contextmanager
def naming_columns(X: Any) -> Iterator[None]:
    """Refuse dates, and add to errors which column or entry they come from."""
    for name, dtype in _columns(X):
        if str(dtype).lower().startswith(TIMES):
            raise TypeError(_about_dates(name, dtype))
    try:
        yield
    except (ValueError, TypeError) as error:
        text = str(error)
        if "NaN" in text:
            # the next line of scikit-learn's error recommends estimators of its own
            text, where = text.partition("\n")[0], _where_missing(X)
        else:
            where = _where_text(X)
        if where:
            text = f"{text.rstrip('.')}. {where}"
        error.args = (text,)
        raise


def data_frame(method: str, data: Any, **options: Any) -> Any:
    """Return a pandas.DataFrame; ``method`` is what an error says needs pandas.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"{method} needs pandas: pip install pandas.") from error
    return pd.DataFrame(data, **options)


def _about_dates(name, kind):
    return (
        f"column {name!r} of X has dates or times ({kind}): leave it out, or pass "
        "numbers, such as days since a date."
    )


def _is_number(value):
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _columns(X):
    """Return names and types of the columns of a data frame; nothing of other things."""
    names, dtypes = getattr(X, "columns", None), getattr(X, "dtypes", None)
    if names is None or dtypes is None or not hasattr(X, "__getitem__"):
        return []
    return list(zip(list(names), list(dtypes), strict=False))


def _where_text(X):
    """Return what is said of the first column that is not numeric, "" for none."""
    for name, dtype in _columns(X):
        values = np.asarray(X[name])
        try:
            values.astype(np.float64)
        except (ValueError, TypeError):
            first = next((v for v in values.tolist() if not _is_number(v)), None)
            if type(first).__name__.lower().startswith(TIMES):
                return _about_dates(name, type(first).__name__)
            shown = "" if first is None else f", such as {first!r}"
            return (
                f"Column {name!r} of X has {dtype}{shown}: leave it out, or make columns "
                "of numbers of it, by OneHotEncoder or pandas.get_dummies."
            )
    return ""


def _where_missing(X):
    """Return which entry of X is the first that is missing, "" if that is not known."""
    try:
        if hasattr(X, "isna"):
            missing = np.asarray(X.isna(), dtype=bool)
        else:
            missing = np.isnan(np.asarray(X, dtype=np.float64))
    except (ValueError, TypeError):
        return ""
    if missing.ndim != 2 or not missing.any():
        return ""
    row, column = np.argwhere(missing)[0].tolist()
    names = [name for name, _ in _columns(X)]
    name = f" ({names[column]!r})" if names else ""
    n_rows = int(missing.any(axis=1).sum())
    return (
        f"Rows with NaN: {n_rows}; the first is row {row}, with NaN in column "
        f"{column}{name}."
    )
