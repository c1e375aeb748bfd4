"""How wide kernels are in single features."""

import numpy as np


def kernel_widths(density):
    """Return the width of a kernel in each feature, the others being as they are.

    It is ``h / sqrt(P_jj)``, in data units, for kernels of precision matrix ``P / h^2``;
    the geometric mean over the points, without their local scales. None for kernels that
    take no shape from the data. Of constant features it is of no meaning.
    """
    if density.structure is None or density.structure.covariance_type == "spherical":
        return None
    logs, n_points = 0.0, 0
    for component in density.whitened:
        own = len(component.rows)
        logs = logs - 0.5 * own * np.log(component.precisions())
        n_points += own
    widths = density.bandwidth * np.exp(logs / n_points)
    if density.constant is None:
        return widths
    return density.constant.complete(widths[None])[0]
