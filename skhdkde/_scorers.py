"""Scorers for model selection: mean held-out log density, and minus KL."""

import numpy as np

from skhdkde._utils.arrays import local

# A log density below this counts as this much (nats). Model selection needs finite
# scores, and at 1e9 a float64 still tells apart means that differ by 1e-6.
LOWEST_LOG_DENSITY = -1e9


class _KLScorer:
    """Mean held-out log density in nats, ``scorer(estimator, X, y=None)``.

    Minus the Kullback-Leibler divergence of the estimate, up to a constant of the data.
    For ``GridSearchCV(..., scoring=kl_scorer)`` and others. A log density below -1e9
    nats, such as -inf, counts as -1e9. See :func:`make_kl_scorer`.
    """

    def __init__(self, log_density=None, per_dimension=False):
        self.log_density = log_density
        self.per_dimension = per_dimension

    def __call__(self, estimator, X, y=None):
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
        score = float(np.mean(log_density))
        return score / np.shape(X)[1] if self.per_dimension else score

    def __repr__(self):
        if self.log_density is None and not self.per_dimension:
            return "kl_scorer"
        return (
            f"make_kl_scorer(log_density={self.log_density!r}, "
            f"per_dimension={self.per_dimension!r})"
        )


def make_kl_scorer(*, log_density=None, per_dimension=False):
    """Make a scorer that ranks density estimators by Kullback-Leibler divergence.

    The score is the mean log density of the estimator on held-out points, in nats:
    minus ``KL(truth || estimate)``, up to the entropy of the truth, which does not
    depend on the estimator. It does not grow with the number of held-out points, as
    ``estimator.score`` does, so scores of folds of different size compare.

    Parameters
    ----------
    log_density : callable, default=None
        The true log density, ``log_density(X) -> ndarray of shape (n_samples,)``, in
        nats. With it the score is an unbiased estimate of minus the divergence itself.
        To pickle the scorer this must be picklable: a function of a module, not a lambda.

    per_dimension : bool, default=False
        Whether to divide by the number of columns of X.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None) -> float`` for the ``scoring`` parameter of
        :class:`~sklearn.model_selection.GridSearchCV` and others. The estimator, which
        may be a :class:`~sklearn.pipeline.Pipeline`, must have ``score_samples``.

    Raises
    ------
    TypeError
        If ``log_density`` is neither callable nor None.

    See Also
    --------
    kl_scorer : The scorer made with the defaults.
    HighDimKernelDensity.score : Total log density, which grows with the number of points.
    sklearn.metrics.make_scorer : Scorers from functions of targets and predictions.

    Notes
    -----
    Scores are densities *with respect to the units of the data that the final estimator
    sees*. If a Pipeline scales or projects the data, scores after different
    transformations do not compare unless the log-determinant of the transformation is
    added.

    Where an estimate is zero (``-inf``, out of reach of a compact kernel) the log
    density counts as -1e9 nats, as does anything below, so that means stay finite and
    the estimate that leaves more points out of reach scores lower.

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
    """
    if log_density is not None and not callable(log_density):
        raise TypeError(f"log_density must be callable or None, got {log_density!r}.")
    return _KLScorer(log_density, per_dimension)


kl_scorer = make_kl_scorer()
