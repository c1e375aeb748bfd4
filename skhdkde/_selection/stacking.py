"""The mixture of candidates that is best on points that none of them saw.

Its density is ``sum_c p_c f_c`` with ``p`` on the simplex. The mean log density of the
held-out points is concave in ``p``, and EM climbs it without a step to be tuned: with
``r_ic = p_c f_c(x_i) / sum_c p_c f_c(x_i)`` the next ``p_c`` is the mean of ``r_ic``
(Smyth and Wolpert, 1999, Linearly combining density estimators via stacking).
"""

import numpy as np

# Gain in nats below which EM stops, most of its steps, and least share of a candidate.
LEAST_GAIN, MOST_STEPS, LEAST_SHARE = 1e-7, 2000, 1e-12
# A candidate whose absence costs less than so many nats is left out.
LEAST_LOSS = 2e-3


def stack(candidates, weights):
    """Return the shares of candidates that matter, and what their mixture reaches.

    Parameters
    ----------
    candidates : list
        With ``log_density``, of shape (n_queries,): that of points they did not see.
    weights : ndarray of shape (n_queries,)

    Returns
    -------
    shares : dict of candidate to float
        Of those that matter; they add up to 1.
    mean_log_density : float
        Of their mixture at these points, in nats.
    """
    kept = list(candidates)
    shares, best = _mixed(kept, weights)
    while len(kept) > 1:
        weakest = kept[int(np.argmin(shares))]
        fewer = [c for c in kept if c is not weakest]
        own, mean = _mixed(fewer, weights)
        if not best - mean < LEAST_LOSS:
            break
        kept, shares = fewer, own
    _, mean = _mixed(kept, weights)
    return dict(zip(kept, shares.tolist(), strict=True)), mean


def _mixed(candidates, weights):
    """Return the best shares of some candidates, and the mean log density."""
    logs = np.column_stack([c.log_density for c in candidates])
    reached = ~np.isneginf(logs).all(axis=1)  # others are as unlikely by all of them
    own = weights[reached] / weights[reached].sum()
    shares, mean = stacking_weights(logs[reached], own)
    return shares, mean if reached.all() else -np.inf


def stacking_weights(log_density, weights):
    """Return the weights of a mixture that maximise a mean log density, and that.

    Parameters
    ----------
    log_density : ndarray of shape (n_queries, n_candidates)
    weights : ndarray of shape (n_queries,)
        Of sum 1.
    """
    highest = log_density.max(axis=1)
    values = np.exp(log_density - highest[:, None])
    shares = np.full(values.shape[1], 1.0 / values.shape[1])
    before = mean = -np.inf
    for _ in range(MOST_STEPS):
        total = values @ shares
        mean = float(weights @ np.log(total))
        if not mean - before > LEAST_GAIN:
            break
        before = mean
        shares = shares * (values.T @ (weights / total))
        shares = np.maximum(shares, LEAST_SHARE)  # the best of each query stays possible
        shares /= shares.sum()
    return shares, mean + float(weights @ highest)
