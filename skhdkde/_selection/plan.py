"""What a search goes through, with its progress and its time."""

from __future__ import annotations

import time
from typing import Any

from skhdkde._utils.warnings import warn_user


class SearchPlan:
    """The steps of a search: two for each setting, one to end with.

    Parameters
    ----------
    n_settings : int
    verbose : int
        0 shows nothing, 1 a bar, and from 2 on a line for each step too.
    most_seconds : float or None
        After which no further setting is begun.
    """

    def __init__(self, n_settings, verbose=0, most_seconds=None):
        self.n_steps, self.verbose = 2 * n_settings + 1, verbose
        self.most_seconds = most_seconds
        self.skipped: list[Any] = []
        self.best, self._bar = -float("inf"), None
        self._start = time.monotonic()

    def __enter__(self):
        if self.verbose:
            from tqdm.auto import tqdm

            self._bar = tqdm(desc="structure search", total=self.n_steps, unit="step")
        return self

    def __exit__(self, kind, *_):
        if self._bar is not None:
            if kind is None:
                self._bar.update(self.n_steps - self._bar.n)
            self._bar.close()
        if kind is None and self.skipped:
            names = "; ".join(dict.fromkeys(map(str, self.skipped)))
            warn_user(
                f"max_search_seconds={self.most_seconds} ended the search before these "
                f"settings were compared on all folds: {names}. What is fitted is the "
                "best of the others; more seconds compare all."
            )

    @property
    def time_is_up(self):
        """Whether no further setting is to be begun."""
        if self.most_seconds is None:
            return False
        return time.monotonic() - self._start >= self.most_seconds

    def begin(self, setting):
        """Show what comes next."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{setting}; best {self.best:.4g} nats")

    def done(self, setting, mean_log_density):
        """Count a step, and what it found in nats."""
        self.best = max(self.best, mean_log_density)
        if self._bar is not None:
            self._bar.update(1)
            if self.verbose > 1:
                found = f"{mean_log_density:.4f} nats, best {self.best:.4f}: {setting}"
                self._bar.write(found)

    def next_round(self):
        """Forget the best mean: those to come are over other points."""
        self.best = -float("inf")

    def drop(self, n_steps):
        """Count steps that are not needed."""
        if self._bar is not None and n_steps:
            self._bar.update(n_steps)

    def extend(self, n_steps):
        """Add steps."""
        self.n_steps += n_steps
        if self._bar is not None:
            self._bar.total = self.n_steps
            self._bar.refresh()

    def skip(self, setting):
        """Note a setting for which there was no time."""
        self.skipped.append(setting)
