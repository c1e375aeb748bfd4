"""Sums of a mixture of densities by algorithms other than "exact", each by its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skhdkde._approximation.report import ALGORITHM, ERROR, EXACT, N_EVALUATIONS
from skhdkde._density import MixedDensity, responsibilities
from skhdkde._pairwise import ComputeOptions
from skhdkde._utils.typing import FloatArray, Rows


@dataclass(eq=False)
class MixedApproximation:
    """Sums of the members of a mixture; one approximation for each."""

    density: MixedDensity
    approximations: list[Any]  # Approximation of each member

    @property
    def algorithm(self):
        """What the members are summed by, as users write it."""
        return self.approximations[0].algorithm

    @property
    def tol(self) -> float:
        """Error of a log density that is accepted, in nats."""
        return self.approximations[0].tol

    @property
    def kind(self) -> str | None:
        """Kind of the search of the heaviest member, None if there is none."""
        return self.approximations[0].kind

    @property
    def n_neighbors(self) -> int:
        """Neighbours at the first level, the most of all members."""
        return max(own.n_neighbors for own in self.approximations)

    @property
    def pays(self) -> bool:
        """Whether this is so for all members."""
        return all(own.pays for own in self.approximations)

    def log_density(
        self, X, options: ComputeOptions, rows: Rows = slice(None)
    ) -> tuple[FloatArray, FloatArray]:
        """Return log densities and what was used; see :class:`Approximation`.

        The stated error is the mean of those of the members by responsibilities. The
        algorithm is "exact" where it is so for all members, else one of the others.
        """
        found, log_densities = [], []
        if X is not None:
            X, rows = np.asarray(X)[rows], slice(None)
        for member, own in zip(self.density.members, self.approximations, strict=True):
            near = member.queries(X)
            log_density, used = own.log_density(near.X, options, rows)
            used[:, ERROR] = near.errors(used[:, ERROR])
            found.append(used)
            log_densities.append(near.log_density(log_density))
        logs = self.density.weighted(log_densities, X, rows)
        shares = responsibilities(logs, self.density.member_weights)
        used = found[0].copy()
        algorithms = np.column_stack([one[:, ALGORITHM] for one in found])
        first = np.argmax(algorithms != EXACT, axis=1)
        used[:, ALGORITHM] = algorithms[np.arange(len(first)), first]
        errors = np.column_stack([one[:, ERROR] for one in found])
        used[:, ERROR] = np.sum(np.where(shares > 0.0, shares * errors, 0.0), axis=1)
        if X is not None:
            used[~self.density.inside(X), ERROR] = 0.0  # there it is zero
        used[:, N_EVALUATIONS] = np.sum([one[:, N_EVALUATIONS] for one in found], axis=0)
        return self.density.total(logs, X), used
