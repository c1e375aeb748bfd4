"""What a search goes through, with its progress and its time."""

from __future__ import annotations

import time
from typing import Any

from skhdkde._utils.warnings import warn_user

# Elapsed and remaining time, but no rate: steps differ too much for one to mean anything.
BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}{postfix}]"
)
# Most characters of a setting beside the bar, and on lines of their own; most settings
# that a warning names.
BESIDE_BAR, ON_LINE, MOST_NAMED = 44, 100, 8


class SearchPlan:
    """The steps of a search: two for each setting, one to end with.

    Parameters
    ----------
    n_settings : int
    verbose : int
        0 shows nothing, 1 a bar, and from 2 on a line for each step too.
    most_seconds : float or None
        After which no further setting is begun.

    Attributes
    ----------
    skipped : list
        Settings for which there was no time.
    best : tuple of (float, setting) or None
        The largest mean log density, in nats, of those compared on as many folds.
    """

    def __init__(self, n_settings, verbose=0, most_seconds=None):
        self.n_steps, self.verbose = 2 * n_settings + 1, verbose
        self.most_seconds = most_seconds
        self.skipped: list[Any] = []
        self.best: tuple[float, Any] | None = None
        self._bar, self._where = None, None
        self._start = time.monotonic()

    def __enter__(self):
        if self.verbose:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                desc="structure search",
                total=self.n_steps,
                smoothing=0.0,  # the remaining time is by the mean time of all steps
                bar_format=BAR_FORMAT,
            )
        return self

    def __exit__(self, kind, *_):
        if self._bar is not None:
            if kind is None:
                if self.best is not None:
                    mean, setting = self.best
                    found = f"best {mean:.4g} nats: {_named(setting, BESIDE_BAR)}"
                    self._bar.set_postfix_str(found, refresh=False)
                self._bar.update(self.n_steps - self._bar.n)
            self._bar.close()
        if kind is None and self.skipped:
            self._warn_of_skipped()

    def _warn_of_skipped(self):
        names = list(dict.fromkeys(_named(setting) for setting in self.skipped))
        named = "; ".join(names[:MOST_NAMED])
        if len(names) > MOST_NAMED:
            named += f"; and {len(names) - MOST_NAMED} more"
        warn_user(
            f"max_search_seconds={self.most_seconds} ended the search before these "
            f"settings were compared on all folds: {named}. The fit is the best of "
            "the others; a stack may then be a single density. More seconds compare all."
        )

    @property
    def time_is_up(self):
        """Whether no further setting is to be begun."""
        if self.most_seconds is None:
            return False
        return time.monotonic() - self._start >= self.most_seconds

    def begin(self, setting, where):
        """Show what comes next: a setting, on "1 fold" or on "all folds"."""
        if where != self._where:  # means on other rows do not compare
            self._where, self.best = where, None
        if self._bar is not None:
            best = "" if self.best is None else f"best {self.best[0]:.4g} nats; "
            self._bar.set_postfix_str(f"{best}now {_named(setting, BESIDE_BAR)}, {where}")

    def done(self, setting, mean_log_density):
        """Count a step, and what it found in nats."""
        if self.best is None or mean_log_density > self.best[0]:
            self.best = mean_log_density, setting
        if self._bar is None:
            return
        self._bar.update(1)
        if self.verbose > 1:
            found = f"{mean_log_density:.4f} nats (best {self.best[0]:.4f})"
            line = f"{self._where}: {found}: {_named(setting)}"
            self._bar.write(line, file=self._bar.fp)

    def drop(self, n_steps):
        """Count steps that are not needed, and take no time."""
        if self._bar is not None and n_steps:
            self._bar.initial += n_steps  # which the remaining time leaves out
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


def _named(setting, width=ON_LINE):
    """Return the name of a setting on one line, cut at a width."""
    name = " ".join(str(setting).split())
    return name if len(name) <= width else name[: width - 3] + "..."
