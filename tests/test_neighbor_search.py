"""The search for the bandwidth on lists of neighbours: when its result is taken."""

import numpy as np
import pytest

from skhdkde._selection import neighbor_leave_one_out


class Queries:
    """Queries whose curves are parabolas in ``log h`` about two bandwidths."""

    def __init__(self, approximate, exact, bend=1.0):
        self.rows, self.weights = np.arange(50), np.ones(50)
        self.approximate, self.exact, self.bend = approximate, exact, bend

    def subset(self, rows):
        return self

    def log_density(self, bandwidths):
        return self._curve(bandwidths, self.approximate)

    def exact_log_density(self, bandwidths):
        return self._curve(bandwidths, self.exact)

    def _curve(self, bandwidths, best):
        curve = -self.bend * np.log(bandwidths / best) ** 2
        return np.tile(curve, (len(self.rows), 1))


@pytest.mark.parametrize("to_the_side", [0.0, 0.02, 0.15, -0.3])
def test_the_result_is_taken_if_both_curves_have_their_best_in_one_place(to_the_side):
    """Also if that is beside the bandwidths tried: the queries are few."""
    best = np.exp(to_the_side)
    holds = neighbor_leave_one_out.holds
    assert holds(Queries(best, best * 1.004), 1.0)
    assert not holds(Queries(best, best * 1.006), 1.0)
    assert not holds(Queries(best, best, bend=-1.0), 1.0)
