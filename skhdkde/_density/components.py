"""Training points in the frames of a structure, with their local scales.

A *part* holds the points of one frame: all of them, or those of one component of a
mixture. In its coordinates every kernel is spherical. The estimate is the sum over parts.
"""

import numpy as np

from skhdkde._density.covariance import fit_frames
from skhdkde._pairwise.backends import reduce_pairs
from skhdkde._pairwise.points import TrainingPoints, indistinct
from skhdkde._pairwise.reductions import KSmallest

# Relative error of the distances that local scales are made of.
SCALE_TOL = 1e-4
DEFAULT_NEIGHBOR = 5


class InFrame:
    """Points of one ``frame``, with the ``spread`` of a coordinate there."""

    @property
    def n_features(self):
        return len(self.frame.center)

    def pull(self, kernel, bandwidth, preserve_variance):
        """``a`` with ``a^2 spread^2 + bandwidth^2 variance = spread^2``."""
        if not preserve_variance:
            return 1.0
        share = bandwidth**2 * kernel.variance(self.n_features) / self.spread**2
        return float(np.sqrt(max(1.0 - share, 0.0)))


class Part(InFrame):
    """The points of one frame.

    Attributes
    ----------
    frame : Frame
    rows : ndarray of int
        Which of the training points they are.
    Z : ndarray of shape (n_points, n_features)
        Their coordinates in the frame, in the dtype of X.
    weights : ndarray of shape (n_points,) or None
        Relative to the largest of all parts.
    local : ndarray of shape (n_points,) or None
        Factors of the bandwidth, of root mean square 1.
    spread : float
        Standard deviation of a coordinate that preserving the variance refers to.
    """

    def __init__(self, frame, rows, Z, weights, spread):
        self.frame, self.rows, self.Z = frame, rows, Z
        self.weights, self.spread, self.local = weights, spread, None

    def adapt(self, k, engine):
        """Make bandwidths proportional to the distance to the ``k``-th neighbour."""
        k = min(k, len(self.Z) - 1)
        if k < 1:
            self.local = np.ones(len(self.Z))
            return
        points = TrainingPoints(self.Z)
        everything = np.arange(len(self.Z))
        sq = reduce_pairs(
            KSmallest(k, SCALE_TOL),
            points.rows_as_queries(everything),
            points,
            leave_out=everything,
            **engine,
        )[:, -1]
        # copies in X need not be equal to the last bit in the frame
        apart = sq > indistinct(points.largest_norm / points.scale, points.dtype)
        if not apart.any():
            self.local = np.ones(len(self.Z))
            return
        sq = np.maximum(sq, sq[apart].min())
        self.local = np.sqrt(sq / np.average(sq, weights=self.weights))

    def log_scales(self):
        """Log of what each point's density is multiplied by, apart from the bandwidth."""
        if self.local is None:
            return np.full(len(self.Z), self.frame.log_det)
        return self.frame.log_det - self.Z.shape[1] * np.log(self.local)

    def points(self, pull=1.0, scale=None, discount=(1.0, 0.0)):
        """The points ready for products, pulled to the origin of the frame.

        ``discount`` is a kernel's, for points with local scales.
        """
        Z = self.Z if pull == 1.0 else (pull * self.Z).astype(self.Z.dtype, copy=False)
        stretch = offset = None
        if self.local is not None:
            stretch = self.local**-2.0 * discount[0]
            offset = np.zeros(len(Z)) + discount[1]
        return TrainingPoints(
            Z,
            self.weights,
            frame=self.frame,
            stretch=stretch,
            offset=offset,
            scale=scale,
            largest_weight=1.0,
        )


def make_parts(X, weights, structure, random_state, *, whole=None, **engine):
    """The parts of a structure fitted to X.

    Parameters
    ----------
    X : ndarray of shape (n_points, n_features)
    weights : ndarray of shape (n_points,) or None
    structure : Structure
    random_state : int or RandomState instance
    whole : tuple or None
        See :func:`~skhdkde._covariance.fit_frames`.
    engine : dict
        For :func:`~skhdkde._backends.reduce_pairs`.

    Returns
    -------
    list of Part
    """
    parts = []
    relative = None if weights is None else weights / weights.max()
    for frame, rows in fit_frames(X, weights, structure, random_state, whole=whole):
        Z = frame.apply(X[rows]).astype(X.dtype, copy=False)
        own = None if relative is None else relative[rows]
        spread = 1.0
        if structure.covariance_type == "spherical":
            mean_sq = np.average(np.einsum("ij,ij->i", Z, Z), weights=own)
            spread = float(np.sqrt(mean_sq / Z.shape[1]))
        part = Part(frame, rows, Z, own, spread)
        if structure.adaptive:
            k = DEFAULT_NEIGHBOR if structure.adaptive is True else structure.adaptive
            part.adapt(k, engine)
        parts.append(part)
    return parts
