"""What the training points are, feature by feature, and what of it harms an estimate.

::

    Table            the training points of a fit, read in blocks of rows
      check          the one warning about them, at fit, from a sample of rows
      report         DataReport, what users get, made when first asked for

=================  =====================================================================
table              `Table`: reading, the warning, the pass over all rows
report             `DataReport`, the public result, and how it is shown
columns            single features: distinct values, lattices, codes for missing values
discrete_features  values on lattices, spread over their cells: dequantisation
=================  =====================================================================
"""

from skhdkde._data.discrete_features import (
    columns_wanted,
    find_discrete_features,
    step_of_all,
)
from skhdkde._data.report import DataReport
from skhdkde._data.table import Table
