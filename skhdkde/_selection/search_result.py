"""What a search for the bandwidth saw."""

from dataclasses import dataclass, fields

import numpy as np

from skhdkde._utils.frames import data_frame


@dataclass(frozen=True)
class Candidate:
    """A setting that was compared with others, at its best bandwidth.

    Attributes
    ----------
    covariance_type : {"spherical", "diag", "full", "local", "neighborhood"}
        Type of covariance.
    mixture : object or None
        Mixture of the components, for "local".
    preserve_variance : bool
        Whether the estimate has the variances of the training points.
    kernel : str
        The kernel.
    degrees_of_freedom : float
        Degrees of freedom; infinite for kernels other than "student".
    bandwidth : float
        Best bandwidth, in data units, or in whitened units of a covariance.
    mean_log_density, standard_error : float
        Mean log density of held-out points in data units, in nats, and its standard
        error. A setting that was dropped early has them for fewer points.
    feature_maps : object or None
        Maps of single features; a tuple has one for each feature.
    neighborhood : object or None
        Number of neighbours and share of the common covariance, for "neighborhood".
    weight : float
        Weight in the fitted density: 1 if it was chosen, 0 if not, or its share in a
        stack.
    """

    covariance_type: str
    mixture: object
    preserve_variance: bool
    kernel: str
    degrees_of_freedom: float
    bandwidth: float
    mean_log_density: float
    standard_error: float
    feature_maps: object = None
    neighborhood: object = None
    weight: float = 0.0


@dataclass(frozen=True)
class BandwidthSearch:
    """Result of the search for the bandwidth of least Kullback-Leibler divergence.

    Attributes
    ----------
    bandwidth : float
        The chosen bandwidth, in data units, or in whitened units of a covariance.
    bandwidths : ndarray of shape (n_bandwidths,)
        The bandwidths that were tried, ascending, in the same units.
    mean_log_density : ndarray of shape (n_bandwidths,)
        Mean log density at each bandwidth, in nats. The points are left out one at a
        time or, if there are candidates, in folds. -inf if a point had no training point
        within reach.
    standard_error : ndarray of shape (n_bandwidths,)
        Standard error of ``mean_log_density`` over the points, in nats; NaN where
        the mean is -inf.
    n_out_of_reach : ndarray of shape (n_bandwidths,)
        Number of points without a training point within reach of a compact kernel.
    n_queries : int
        Number of training points that were left out.
    n_copies : int
        Number of training points that are duplicates of another one, exactly or up to
        rounding. Duplicates count as one point with their total weight.
    candidates : tuple of Candidate
        The maps, structures and degrees of freedom that were compared on held-out points.
        Empty if there was nothing to compare.
    stacked_log_density : float or None
        Mean log density of a stack on the held-out points, in nats; None without a stack.
        Its weights were chosen on these points. So it is too high by about the number of
        weights over the number of points.

    See Also
    --------
    HighDimKernelDensity : Has it as ``bandwidth_search_``.
    select_bandwidth : Returns it with ``return_search=True``.
    BandwidthDisplay : Plots a finer curve, with the regimes.

    Examples
    --------
    >>> import numpy as np
    >>> from skhdkde import HighDimKernelDensity
    >>> X = np.random.default_rng(0).normal(size=(500, 20))
    >>> kde = HighDimKernelDensity(kernel="student", random_state=0).fit(X)
    >>> search = kde.bandwidth_search_
    >>> search
    <BandwidthSearch: bandwidth=0.908..., best of 7 from 0.7... to 1.1...,
    -30.6... nats over 500 queries>
    >>> [found.degrees_of_freedom for found in search.candidates]
    [3.0, 5.0, 10.0, 30.0, 100.0]
    >>> float(search.to_frame().loc[0, "degrees_of_freedom"])  # the best; by pandas
    100.0
    """

    bandwidth: float
    bandwidths: np.ndarray
    mean_log_density: np.ndarray
    standard_error: np.ndarray
    n_out_of_reach: np.ndarray
    n_queries: int
    n_copies: int
    candidates: tuple = ()
    stacked_log_density: float | None = None

    def to_frame(self):
        """Return the candidates as a table, best first.

        Returns
        -------
        table : pandas.DataFrame
            One row for each candidate, with its attributes as columns.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        columns = [field.name for field in fields(Candidate)]
        rows = [[getattr(c, name) for name in columns] for c in self.candidates]
        table = data_frame("BandwidthSearch.to_frame", rows, columns=columns)
        return table.sort_values("mean_log_density", ascending=False, ignore_index=True)

    def __repr__(self):
        low, high, mixed = self.bandwidths[0], self.bandwidths[-1], ""
        if self.stacked_log_density is not None:
            n_mixed = sum(c.weight > 0.0 for c in self.candidates)
            mixed = f"; stack of {n_mixed}, {self.stacked_log_density:.6g} nats"
        return (
            f"<BandwidthSearch: bandwidth={self.bandwidth:.6g}, best of "
            f"{len(self.bandwidths)} from {low:.4g} to {high:.4g}, "
            f"{self.mean_log_density.max():.6g} nats over {self.n_queries} queries"
            f"{mixed}>"
        )
