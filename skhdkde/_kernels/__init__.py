"""The seven kernels, each one small class.

::

    Kernel                    the role: a profile, its normaliser, effects of rounding
      ExponentialFamily       exp(-(r/h)^p / p)
        Gaussian, Exponential
      CompactKernel           zero from r = h on
        Tophat, Epanechnikov, Linear, Cosine
      Student                 a power law for a tail

``KERNELS`` has the six without a parameter by name, and ``make_kernel`` makes any. A new
kernel is a subclass of ``Kernel``, listed here; the engine needs nothing more.

=========  ==========================================================================
kernel     the role, gaussian and exponential
compact    the four that are zero from ``r = h`` on
student    student
on_sphere  all kernels restricted to the unit sphere, and normalised there
projected  kernels of the space around a sphere, projected to it along rays
bessel     Bessel functions of any order: constant and mean cosine of von Mises-Fisher
integrals  integrals of functions that are given by their logs
=========  ==========================================================================
"""

import numpy as np

from skhdkde._kernels.bessel import (
    concentration,
    log_vmf_peak,
    mean_cosine,
    one_minus_mean_cosine,
)
from skhdkde._kernels.compact import (
    N_FOR_CLT,
    SHARP_CURVE,
    Cosine,
    Epanechnikov,
    Linear,
    Tophat,
)
from skhdkde._kernels.kernel import Exponential, Gaussian, Kernel
from skhdkde._kernels.on_sphere import (
    SphereCosine,
    SphereEpanechnikov,
    SphereExponential,
    SphereLinear,
    SphereStudent,
    SphereTophat,
    VonMisesFisher,
)
from skhdkde._kernels.projected import Projected
from skhdkde._kernels.student import Student

_PLAIN = Gaussian(), Tophat(), Epanechnikov(), Exponential(), Linear(), Cosine()
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _PLAIN}
_ON_SPHERE = (
    VonMisesFisher(),
    SphereTophat(),
    SphereEpanechnikov(),
    SphereExponential(),
    SphereLinear(),
    SphereCosine(),
)
SPHERE_KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _ON_SPHERE}
KERNEL_NAMES = (*KERNELS, "student")
# Degrees of freedom from which the t distribution is Gaussian to (d + r^2)^2 / 4e60 nats;
# times the square of a bandwidth they must not leave the range of float64.
GAUSSIAN_DEGREES = 1e60


def make_kernel(name: str, n_features: int, degrees_of_freedom: float = np.inf) -> Kernel:
    """Return the kernel of that name; student of very many degrees is gaussian."""
    if name != "student":
        return KERNELS[name]
    if degrees_of_freedom > GAUSSIAN_DEGREES:
        return KERNELS["gaussian"]
    return Student(degrees_of_freedom, n_features)


def restricted(kernel: Kernel, n_features: int) -> Kernel:
    """Return the kernel restricted to the unit sphere in a space of ``n_features``."""
    if kernel.name == "student":
        return SphereStudent(kernel.degrees_of_freedom, n_features)
    return SPHERE_KERNELS[kernel.name]
