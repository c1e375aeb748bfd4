"""The seven kernels, each one small class.

A kernel is a profile of the distance, ``K(z) = k(|z|) / Z_d`` with ``k(0) = 1``,
and its normaliser ``Z_d``, the integral of ``k(|z|)`` over ``R^d``. At bandwidth
``h`` the density of one point is ``k(r / h) / (Z_d h^d)``.

Two families cover six of them; the seventh, student, has a power law for a tail.

*Exponential* profiles, ``k = exp(-(r/h)^p / p)`` with ``p = 2`` (gaussian) and
``p = 1`` (exponential), span thousands of nats in high dimension, so they are
evaluated relative to the nearest point of each query: ``shift`` subtracts from the
smallest *energy* ``r^p`` of a row and ``log_peak`` is what to add back.

*Compact* profiles (tophat, epanechnikov, linear, cosine) vanish for ``r >= h``
and lie in [0, 1]: they need no shift, and ``log_peak`` is zero.

What every kernel offers, for tiles ``sq`` of squared distances and ``h`` in the same
units. Tiles are numpy arrays, torch tensors or lazy tensors of KeOps, and the last
cannot be changed in place: what is returned counts.

================== =========================================================
``log_normalizer`` ``log Z_d``
``variance``       variance per coordinate of the kernel at ``h = 1``
``energy``         in place, squared distances -> what the profile depends on
``shift``          in place, the row's smallest energy minus each
``values``         shifted energies, and what they were shifted by -> profile,
                   relative to the row's largest
``log_peak``       log of the factor that ``values`` left out
``product_terms``  for energies that are squared distances: rate and reference by
                   row, for which ``values_from_product`` takes the least steps
                   from ``rate (reference - sq)`` to what ``values`` gives
``slopes``         ``g`` in ``grad K = g (y - x) / h^2``, scaled as ``values``
``radii``          radii of random draws at ``h = 1``
``reach``          squared distance from which on a pair adds less than
                   ``exp(-margin)`` of what the nearest one adds
``suspect_rows``   rows in which an error ``delta`` of ``sq`` may matter
``suspect_pairs``  the pairs of those rows in which it does
``thresholds``     ``h_g`` and ``h_clt``, where the regimes meet
``tail_index``     of the law of the kernel's values
``discount``       stretch and offset of squared distances that make a kernel's
                   values smaller by given factors (gaussian and student only)
================== =========================================================
"""

import numpy as np

from skhdkde._kernels.compact import Cosine, Epanechnikov, Linear, Tophat
from skhdkde._kernels.exponential import Exponential, Gaussian
from skhdkde._kernels.student import Student

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Gaussian(),
        Tophat(),
        Epanechnikov(),
        Exponential(),
        Linear(),
        Cosine(),
    )
}


KERNEL_NAMES = (*KERNELS, "student")


# Degrees of freedom from which the t distribution is Gaussian to (d + r^2)^2 / 4e8 nats.
GAUSSIAN_DEGREES = 1e8


def make_kernel(name, n_features, degrees_of_freedom=np.inf):
    """The kernel of that name; student of very many degrees is gaussian."""
    if name != "student":
        return KERNELS[name]
    if degrees_of_freedom > GAUSSIAN_DEGREES:
        return KERNELS["gaussian"]
    return Student(degrees_of_freedom, n_features)
