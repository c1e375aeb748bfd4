"""Noisy sums of Fourier features, which may be published: differential privacy.

A kernel sum at ``y`` is ``sum_j c_j Re(conj(f_j(y)) F_j)`` over frequencies ``omega_j``,
with ``f_j(x) = exp(i omega_j x)``, and ``F_j`` the sum of ``f_j(x)`` over the rows. Only
the ``F_j``, with noise, are ever released; they answer any number of queries.

All that touches a training row is arithmetic of integers: a row adds whole numbers that
depend on this row alone, to the last bit, so that what one row can change is known
exactly, and the noise is drawn exactly from a law on whole numbers. No floating-point
rounding is left by which the claim could fail.

================  =====================================================================
discrete_noise    exact draws of discrete Laplace and Gaussian noise, from the system
budget            epsilon and delta, their share for the count, scales of the noise
frequencies       random frequencies, and lattices of them in a box
sums              from rows to noisy sums, and from these to kernel sums with errors
plan              which frequencies, and how many, from what is public
================  =====================================================================
"""

from skhdkde._private.budget import Budget
from skhdkde._private.plan import feature_plan, lattice_or_number, relative_error_target
from skhdkde._private.sums import NoisySums, noisy_count, noisy_sums, typical_error
