"""How wide kernels are in single features."""

import numpy as np

from skhdkde._density.mixed import MixedDensity


def kernel_widths(density):
    """Return the width of a kernel in each feature, the others being as they are.

    It is ``h / sqrt(P_jj)``, in data units, for kernels of precision matrix ``P / h^2``;
    the geometric mean over the points, without their local scales. None for kernels that
    take no shape from the data. Of constant features it is of no meaning.
    """
    logs = _log_widths(density)
    if logs is None:
        return None
    if density.constant is None:
        return np.exp(logs)
    return density.constant.complete(np.exp(logs)[None])[0]


def _log_widths(density):
    """Return logs of the widths in features that vary; None if they have no shape."""
    if isinstance(density, MixedDensity):
        return sum(m.weight * _mapped_log_widths(m, density) for m in density.members)
    if density.structure is None or density.structure.covariance_type == "spherical":
        return None
    logs, n_points = 0.0, 0
    for component in density.packed:
        own = len(component.rows)
        logs = logs - 0.5 * own * np.log(component.precisions())
        n_points += own
    return np.log(density.bandwidth) + logs / n_points


def _mapped_log_widths(member, density):
    """Return logs of the widths of a member, in units of the features as they are."""
    logs = _log_widths(member.density)
    if logs is None:
        logs = np.full(density.n_features, np.log(member.density.bandwidth))
    if member.maps is not None:
        with np.errstate(divide="ignore"):
            logs = logs - np.log(member.maps.slopes(density.training)).mean(axis=0)
    return logs
