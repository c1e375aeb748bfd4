"""What stands behind a log density at a query: regime, error bar, effective sample size.

::

    Shares (of _pairwise)      how the sum is shared out, and the nearest points
      Diagnosing               finishes that state as columns, one for each quantity
        PartialDiagnosing      leaves it as it is, to be merged with that of other points
    LocalLaw                   how many points to expect within a distance of the query
    Diagnosis                  what users get

Where the tail index is large the error bar is that of the central limit theorem;
elsewhere near points are redrawn from the local law, and far ones from a normal law.

=============  ========================================================================
diagnosis      the public result, and how it is shown
reduction      the reduction behind a diagnosis
local_law      the local law, fitted to the nearest points
spread         error bars: standard deviations over redrawn data sets
=============  ========================================================================
"""

from skhdkde._diagnosis.diagnosis import Diagnosis
from skhdkde._diagnosis.local_law import N_NEIGHBORS, local_laws
from skhdkde._diagnosis.reduction import Diagnosing, PartialDiagnosing
