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
    mixture : object or None
        Of the components, for "local".
    preserve_variance : bool
    kernel : str
    degrees_of_freedom : float
        Infinite for kernels other than "student".
    bandwidth : float
    mean_log_density, standard_error : float
        On held-out points, in nats per point and data units; of those dropped early on
        fewer points, with a larger error.
    feature_maps : object or None
        Maps of single features; a tuple has one for each.
    neighborhood : object or None
        Of "neighborhood": how many neighbours, and the share of the common covariance.
    weight : float
        In the fitted density: 1 if it was chosen, 0 if not, or a share of a stack.
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
    """What the search for the KL-optimal bandwidth saw.

    Attributes
    ----------
    bandwidth : float
        The bandwidth chosen, in data units or whitened units of a covariance.
    bandwidths : ndarray of shape (n_bandwidths,)
        Bandwidths tried, ascending.
    mean_log_density : ndarray of shape (n_bandwidths,)
        Mean log density at each, in nats, of points left out one by one or, with
        candidates, in folds; -inf if a query had no training point in reach.
    standard_error : ndarray of shape (n_bandwidths,)
        Standard error of ``mean_log_density`` over the queries, in nats; NaN where
        the mean is -inf.
    n_out_of_reach : ndarray of shape (n_bandwidths,)
        Number of queries without a training point in reach (compact kernels).
    n_queries : int
        Number of training points used as queries.
    n_copies : int
        Number of training points that are duplicates of another one, exact or up to
        rounding; these count as one point with their total weight.
    candidates : tuple of Candidate
        Structures and degrees of freedom that were compared on held-out points; empty if
        there was nothing to compare, and the mean is over points left out one by one.
    stacked_log_density : float or None
        For a stack, what the mixture reaches on the held-out points, in nats. Its weights
        are best for these points, so that it is too high by about one nat per weight
        over the number of points.

    See Also
    --------
    HighDimKernelDensity : Has one as ``bandwidth_search_``.
    select_bandwidth : Returns one if asked to.
    BandwidthDisplay : Draws such a curve, finer, with the regimes.

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
        """Make a table of the candidates, best first.

        Returns
        -------
        table : pandas.DataFrame
            A row for each candidate, with its attributes as columns.

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
