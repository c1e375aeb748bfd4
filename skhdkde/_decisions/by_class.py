"""Errors and warnings of the fits to single classes, which name the class."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

from skhdkde._utils.warnings import warn_user


class ClassWarnings:
    """Warnings of all classes, of which users get one of each kind.

    Those that are the same up to their first number are of one kind.
    """

    def __init__(self):
        self._found = {}

    @contextlib.contextmanager
    def of_class(self, name: Any) -> Iterator[None]:
        """Keep the warnings of what is done for a class, and name it in errors."""
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
            self._found.setdefault(kind, []).append((name, text))

    def warn(self) -> None:
        """Warn once of each kind."""
        for (category, _), each in self._found.items():
            name, text = each[0]
            more = f" So in {len(each)} classes." if len(each) > 1 else ""
            warn_user(f"In class {name!r}: {text}{more}", category)
