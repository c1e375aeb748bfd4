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

``Kernel`` states the role; ``KERNELS`` has the six without a parameter by name, and
``make_kernel`` makes any. Files: ``kernel`` (the role, gaussian, exponential), ``compact``,
``student``, ``volumes``.
"""

import numpy as np

from skhdkde._kernels.compact import Cosine, Epanechnikov, Linear, Tophat
from skhdkde._kernels.kernel import Exponential, Gaussian, Kernel
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
