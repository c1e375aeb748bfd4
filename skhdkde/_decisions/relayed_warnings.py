"""Errors and warnings of fits to some of the rows, which say to which."""

import contextlib
import re
import warnings
from collections.abc import Iterator

from skhdkde._utils.warnings import warn_user


class RelayedWarnings:
    """Warnings of several fits, of which users get one of each kind.

    Those that are the same up to their first number are of one kind.
    """

    def __init__(self):
        self._found = {}

    @contextlib.contextmanager
    def of(self, where: str) -> Iterator[None]:
        """Keep the warnings of what is done here, and put ``where`` before errors."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except ValueError as error:
                error.args = (f"{where}: {error}",)
                raise
        for warning in caught:
            text = str(warning.message)
            kind = warning.category, re.split(r"\d", text, maxsplit=1)[0]
            self._found.setdefault(kind, []).append((where, text))

    def warn(self) -> None:
        """Warn once of each kind."""
        for (category, _), each in self._found.items():
            where, text = each[0]
            more = f" Warnings of this kind: {len(each)}." if len(each) > 1 else ""
            warn_user(f"{where}: {text}{more}", category)
