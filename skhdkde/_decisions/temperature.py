"""How far posterior probabilities of classes are to be trusted."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# Temperature up to which one is looked for.
HIGHEST = 1e3


def best_temperature(log_density, log_prior, label, weights):
    """Return the temperature at which rows that were held out are likeliest to be right.

    Log densities are divided by it. It is 1 or more: in high dimension the difference of
    two of them has errors of many nats, and probabilities are too near to 0 and 1.

    Parameters
    ----------
    log_density : ndarray of shape (n_rows, n_classes)
        Of each row in each class, its own by a fit that did not see it.
    log_prior : ndarray of shape (n_classes,)
    label : ndarray of int of shape (n_rows,)
    weights : ndarray of shape (n_rows,)
    """
    usable = np.isfinite(log_density[np.arange(len(label)), label])
    log_density, label, weights = log_density[usable], label[usable], weights[usable]
    if not len(label) or log_density.shape[1] == 1:
        return 1.0
    at = np.arange(len(label)), label

    def loss(log_temperature):
        joint = log_density * np.exp(-log_temperature) + log_prior
        return -np.average(log_softmax(joint, axis=1)[at], weights=weights)

    limits = (0.0, np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=limits, method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
