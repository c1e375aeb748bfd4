"""What sums and indexes cost, counted in pairs of an exact sum.

``algorithm="auto"`` decides by these costs whether an index is built and which of its
levels are used. They are counted and not timed, so that equal data give an equal estimate
on any machine. The constants are nanoseconds of one core in float32, measured with 16 to
384 features; only their ratios matter. ``benchmarks/scale.py`` times what they decide.
"""

from __future__ import annotations

import numpy as np

from skhdkde._approximation.faiss_index import LISTS, ROUNDS, TRAINED_ON

# Fixed part, and part per feature, of the time of: a pair of an exact sum; a point summed
# one by one; one of a sample; one of a sample that is only glanced at; one that is met in
# a list; one that is met on a walk through a graph; a product of a pair alone.
PAIR, NEAR, SAMPLED, GLANCED = (1.0, 0.024), (150.0, 1.5), (4.5, 0.056), (2.5, 0.022)
LISTED, WALKED, PRODUCT = (7.0, 0.11), (550.0, 1.0), (0.3, 0.02)
# Time of a search for one query, with what the error of its sum takes, and of each
# neighbour that it returns.
SEARCH, RETURNED = 33_000.0, 60.0
# What is expected before it is measured: neighbours, share of the lists that are scanned,
# and share of the queries that have to be compared with all points in the end.
USUAL_NEIGHBORS, USUAL_LISTS, USUAL_FAILURES = 64, 0.03, 0.1
# Time to measure the levels of an index, and pairs for each point on the way.
MEASURING, MEASURED_PAIRS = 1.2e9, 2048
# Size of a sample, with the reserve.
USUAL_SAMPLE = 2560


def _time(part, n_features):
    fixed, per_feature = part
    return fixed + per_feature * n_features


def cost_of_query(
    n_features: int,
    n_neighbors: int,
    n_sampled: int,
    *,
    glance: bool = False,
    n_listed: float = 0.0,
    walk: float = 0.0,
) -> float:
    """Return the cost of an approximate sum at one query, in pairs of an exact sum.

    Parameters
    ----------
    n_features : int
    n_neighbors : int
        Points that are found and summed one by one.
    n_sampled : int
        Size of the sample of the others, with the reserve.
    glance : bool
        Whether the sample is glanced at for most queries.
    n_listed : float
        Points in the lists that are scanned.
    walk : float
        Width of the walk through a graph.

    Returns
    -------
    cost : float
    """
    sample = GLANCED if glance else SAMPLED
    time = n_sampled * _time(sample, n_features)
    if n_neighbors:
        time += SEARCH + n_neighbors * (RETURNED + _time(NEAR, n_features))
        time += n_listed * _time(LISTED, n_features) + walk * _time(WALKED, n_features)
    return time / _time(PAIR, n_features)


def index_pays(n_points: int, n_features: int) -> bool:
    """Return whether an index of lists is expected to be repaid.

    That is, whether fit and as many queries as there are points take less time with it.
    """
    n_lists = min(LISTS * np.sqrt(n_points), n_points / TRAINED_ON)
    # there are two of them: one is made on trial
    trained = 2.0 * ROUNDS * TRAINED_ON * n_lists**2
    made = (trained + n_points * n_lists) * _time(PRODUCT, n_features) + MEASURING
    made = made / _time(PAIR, n_features) + MEASURED_PAIRS * n_points
    query = cost_of_query(
        n_features, USUAL_NEIGHBORS, USUAL_SAMPLE, n_listed=USUAL_LISTS * n_points
    )
    return made < n_points * ((1.0 - USUAL_FAILURES) * n_points - query)
