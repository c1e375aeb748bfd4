"""Integrals of positive functions that are given by their logs."""

from collections.abc import Callable

import numpy as np

from skhdkde._utils.typing import FloatArray

# Nodes of the trapezoidal rule, and nats below the largest value that are cut off.
N_NODES, DEPTH = 2001, 45.0
# Least share of the nodes that are above that.
LEAST_SHARE = 0.4
MOST_ZOOMS = 60


def log_integral(
    log_integrand: Callable[[FloatArray], FloatArray], low: float, high: float
) -> float:
    """Return the log of an integral from ``low`` to ``high``.

    The integrand must be analytic and fall off exponentially to both sides: then the
    trapezoidal rule is right to rounding.
    """
    nodes, logs = nodes_where_large(log_integrand, low, high)
    largest = logs.max()
    return float(largest + np.log(np.exp(logs - largest).sum() * (nodes[1] - nodes[0])))


def nodes_where_large(
    log_integrand: Callable[[FloatArray], FloatArray], low: float, high: float
) -> tuple[FloatArray, FloatArray]:
    """Return equidistant nodes where the integrand is not negligible, and logs there."""
    for _ in range(MOST_ZOOMS):
        nodes = np.linspace(low, high, N_NODES)
        logs = log_integrand(nodes)
        large = np.flatnonzero(logs > logs.max() - DEPTH)
        first, last = max(large[0] - 1, 0), min(large[-1] + 1, N_NODES - 1)
        if last - first >= LEAST_SHARE * N_NODES:
            break
        low, high = nodes[first], nodes[last]
    return nodes, logs
