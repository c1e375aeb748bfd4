"""Scorers for model selection: mean held-out log density, and minus KL."""

import numpy as np
from sklearn import get_config
from sklearn.utils.metadata_routing import MetadataRequest

from skhdkde._utils.arrays import local
from skhdkde._utils.validation import check_weights

# A log density below this counts as this much (nats). Model selection needs finite
# scores, and at 1e9 a float64 still tells apart means that differ by 1e-6.
LOWEST_LOG_DENSITY = -1e9


class _KLScorer:
    """Mean held-out log density, ``scorer(estimator, X, y=None, *, sample_weight=None)``.

    In nats. It is minus the Kullback-Leibler divergence of the estimate, up to a constant
    of the data. Pass it to ``GridSearchCV(..., scoring=kl_scorer)`` and others. A log
    density below -1e9 nats, such as -inf, counts as -1e9. See :func:`make_kl_scorer`.
    """

    def __init__(self, log_density=None, per_dimension=False):
        self.log_density = log_density
        self.per_dimension = per_dimension
        self._requested = None

    def set_score_request(self, *, sample_weight):
        """Set whether to use weights that are passed to a search; change the scorer.

        This needs scikit-learn's ``enable_metadata_routing``, without which it raises
        RuntimeError. True uses the weights, False ignores them, None raises an error if
        they are passed. A string is the name under which they are passed.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request is only available with metadata routing: call "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        self._request(sample_weight)
        self._requested = sample_weight
        return self

    def get_metadata_routing(self):
        """Return what is requested, as scikit-learn's routers ask for it."""
        return self._request(self._requested)

    def _request(self, sample_weight):
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="sample_weight", alias=sample_weight)
        return request

    def _accept_sample_weight(self):
        # asked by scikit-learn's searches where metadata routing is off
        return True

    def __call__(self, estimator, X, y=None, *, sample_weight=None):
        if not hasattr(estimator, "score_samples"):
            raise TypeError(
                "kl_scorer needs an estimator with score_samples, got "
                f"{type(estimator).__name__}."
            )
        log_density = np.asarray(local(estimator.score_samples(X)), dtype=np.float64)
        log_density = np.maximum(log_density, LOWEST_LOG_DENSITY)
        if self.log_density is not None:
            truth = np.asarray(local(self.log_density(X)), dtype=np.float64)
            if truth.shape != log_density.shape:
                raise ValueError(
                    f"log_density(X) must have shape {log_density.shape}, got "
                    f"{truth.shape}."
                )
            if np.isnan(truth).any():
                raise ValueError("log_density(X) contains NaN.")
            log_density = log_density - truth
        score = _mean(log_density, check_weights(sample_weight, log_density))
        return score / np.shape(X)[1] if self.per_dimension else score

    def __repr__(self):
        if self.log_density is None and not self.per_dimension:
            return "kl_scorer"
        return (
            f"make_kl_scorer(log_density={self.log_density!r}, "
            f"per_dimension={self.per_dimension!r})"
        )


def _mean(values, weights):
    """Return the mean; a weight of 0 leaves its value out, also an infinite one."""
    if weights is None:
        return float(np.mean(values))
    counted = weights > 0.0
    return float(np.average(values[counted], weights=weights[counted]))


def make_kl_scorer(*, log_density=None, per_dimension=False):
    """Make a scorer that ranks density estimators by Kullback-Leibler divergence.

    The score is the mean log density of the estimate on held-out points, in nats. It is
    minus ``KL(truth || estimate)``, up to the entropy of the truth, which does not
    depend on the estimator. ``estimator.score`` is a sum, which grows with the number of
    points. This score is a mean, so scores of folds of different sizes can be compared.

    Parameters
    ----------
    log_density : callable, default=None
        The true log density, ``log_density(X) -> ndarray of shape (n_samples,)``, in
        nats. With it the score is an unbiased estimate of minus the divergence itself.
        To pickle the scorer, pass a function of a module, not a lambda.

    per_dimension : bool, default=False
        Whether to divide by the number of columns of X.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None, *, sample_weight=None) -> float`` for the
        ``scoring`` parameter of :class:`~sklearn.model_selection.GridSearchCV` and
        others. The estimator, which may be a :class:`~sklearn.pipeline.Pipeline`, must
        have ``score_samples``. With weights the score is the weighted mean.

    Raises
    ------
    TypeError
        If ``log_density`` is neither callable nor None.

    See Also
    --------
    kl_scorer : The scorer made with the defaults.
    HighDimKernelDensity.score : Total log density, which grows with the number of points.
    sklearn.metrics.make_scorer : Makes scorers from functions of targets and predictions.

    Notes
    -----
    Scores are log densities *in the units of the data that the final estimator sees*. If
    steps of a Pipeline scale or project the data, scores after different steps cannot be
    compared, unless the log determinant of the transformation is added.

    Log densities below -1e9 nats count as -1e9. So means stay finite where the estimate
    is zero, out of reach of a compact kernel, and an estimate that is zero at more points
    scores lower.

    ``GridSearchCV(..., scoring=scorer).fit(X, sample_weight=weights)`` passes the weights
    of training points to the estimator, and those of held-out points to the scorer. If
    scikit-learn's metadata routing is on, both must request them:
    ``estimator.set_fit_request(sample_weight=True)`` and
    ``scorer.set_score_request(sample_weight=True)``, which changes the scorer in place.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.stats import multivariate_normal
    >>> from skhdkde import HighDimKernelDensity, make_kl_scorer
    >>> rng = np.random.default_rng(0)
    >>> train, test = rng.normal(size=(2, 500, 20))
    >>> scorer = make_kl_scorer(
    ...     log_density=multivariate_normal(np.zeros(20)).logpdf, per_dimension=True
    ... )
    >>> round(-scorer(HighDimKernelDensity().fit(train), test), 3)  # KL per feature
    0.102

    Weights count in the fits and in the scores:

    >>> from sklearn.model_selection import GridSearchCV
    >>> weights = rng.integers(0, 3, size=500)
    >>> search = GridSearchCV(HighDimKernelDensity(), {"bandwidth": [0.7, 0.9, 1.1]},
    ...                       scoring=make_kl_scorer())
    >>> search.fit(train, sample_weight=weights).best_params_
    {'bandwidth': 0.9}
    """
    if log_density is not None and not callable(log_density):
        raise TypeError(f"log_density must be callable or None, got {log_density!r}.")
    return _KLScorer(log_density, per_dimension)


kl_scorer = make_kl_scorer()
