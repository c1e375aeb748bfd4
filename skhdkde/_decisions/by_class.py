"""Errors and warnings of the fits to single classes, which name the class."""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from skhdkde._utils.warnings import warn_user


@contextlib.contextmanager
def one_warning_of_each_kind() -> Iterator[Callable]:
    """Yield a context for each class, given its name; then warn once of each kind.

    Warnings that are the same up to their first number are of one kind.
    """
    found: dict = {}

    @contextlib.contextmanager
    def of_class(name: Any) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except ValueError as error:
                error.args = (f"In class {name!r}: {error}",)
                raise
        for warning in caught:
            text = str(warning.message)
            kind = warning.category, re.split(r"\d", text, maxsplit=1)[0]
            found.setdefault(kind, []).append((name, text))

    yield of_class
    for (category, _), each in found.items():
        name, text = each[0]
        more = f" So in {len(each)} classes." if len(each) > 1 else ""
        warn_user(f"In class {name!r}: {text}{more}", category)
