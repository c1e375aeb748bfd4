"""Increasing maps of single features, with their Jacobian.

With ``T`` such a map of each feature, and ``g`` a density of the mapped points,
``log f(x) = log g(T(x)) + sum_k log T_k'(x_k)``. Every map goes from where its feature
can be onto all numbers, so that ``f`` integrates to one exactly.

::

    fit_maps         a map for each feature, from the training points
      FeatureMaps    all of them: points there and back, slopes, log Jacobian
        FeatureMap   of one feature; a Chain is several, one after the other

=============  =========================================================================
feature_maps   `FeatureMaps`; `fit_maps`; `resolve_maps` and `check_limits`, which check
               what users ask for
feature_map    `FeatureMap`, what all maps have; `Affine`, which standardises; `Chain`
yeo_johnson    `Power`, a power transform, of one parameter
gaussianized   `Spline`, through a smooth distribution function of the feature
bounded        `Log` and `Logit`, of features with one limit, or two
column         `Column`: the training values of a feature, with weights
=============  =========================================================================
"""

from skhdkde._maps.feature_maps import (
    FeatureMaps,
    check_limits,
    chosen_columns,
    column_of,
    excepting,
    fit_maps,
    resolve_maps,
)
