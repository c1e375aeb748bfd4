"""A fitted density: kernels over the training points, in shapes taken from the data.

::

    Structure            what shape, place and size kernels have: the parameters
      fit_whitenings     covariances or a mixture fitted to the data -> Whitening
      whiten_components  -> WhitenedPoints, one for each component
    Density              a Component for each: the kernel sums over its points
      log_density, gradient, diagnose; draw

A `Whitening` is the linear map from data units to *whitened units*, in which kernels are
spherical. Without one the two units are the same.

=================  ===================================================================
density            `Structure`, `Component`, `Density`; `BaseDensity`, shared with blocks
mixed              `MixedDensity`: densities of mapped features, and mixtures of them
components         the training points of each component of a structure
whitened_points    `WhitenedPoints`: coordinates, local scales, shrinkage of centres
sphere             `UnitSphere`, on which rows of norm 1 are
projected          structures on the sphere: densities projected along rays
neighborhoods      `NeighborhoodPoints`: a covariance for each point
whitening          `Whitening`, the map of a bandwidth matrix; `Whitened`
covariance         covariances, mixtures, spectra: what whitenings are made of
constant_features  features that do not vary, each with a kernel of its own
splits             kernels over some features, and given these over the others
growth             more points at the same bandwidth and structure
marginals          densities of some features: marginal, and given values of others
completion         missing values of points: conditional means and draws
kernel_widths      how wide kernels are in single features
far_rows           the check for rows that decide means and variances
far_queries        queries whose squared distances are out of range, brought nearer
sampling           random draws
=================  ===================================================================
"""

from skhdkde._density.completion import (
    LeftOut,
    conditional_draws,
    conditional_means,
    patterns,
)
from skhdkde._density.components import whiten_components
from skhdkde._density.constant_features import (
    ConstantFeatures,
    Ranges,
    columns_of,
    constant_at,
    find_constant_features,
    warn_of_constant_features,
)
from skhdkde._density.covariance import (
    MixtureSpec,
    PooledSpec,
    centering,
    covariance_spectrum,
    full_whitening,
    scatter_spectrum,
    shrink,
    shrunk_covariance,
    standardizing,
)
from skhdkde._density.density import (
    BaseDensity,
    Choice,
    Component,
    Density,
    Structure,
    plain_component,
    plain_density,
    structured_density,
)
from skhdkde._density.far_queries import in_range
from skhdkde._density.far_rows import (
    FEW,
    MOST_OF_VARIANCE,
    N_TYPICAL,
    FarRows,
    TypicalRows,
    check_far_rows,
)
from skhdkde._density.growth import REFIT, NewPoints, check_growth, grown, with_new_points
from skhdkde._density.kernel_widths import kernel_widths
from skhdkde._density.marginals import conditional, constant_among, marginal
from skhdkde._density.mixed import Member, MixedDensity, responsibilities
from skhdkde._density.neighborhoods import (
    NeighborhoodPoints,
    NeighborhoodSpec,
    check_neighborhoods,
    too_many_matrices,
)
from skhdkde._density.projected import (
    ProjectedComponent,
    ProjectedWhitened,
    ProjectedWhitening,
)
from skhdkde._density.sampling import (
    check_n_samples,
    draw,
    random_steps,
    with_constant,
)
from skhdkde._density.sphere import UnitSphere, check_unit_rows
from skhdkde._density.whitened_points import WhitenedPoints
from skhdkde._density.whitening import Whitened, Whitening
