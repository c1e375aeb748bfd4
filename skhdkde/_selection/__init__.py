"""How bandwidth, tail and structure are chosen from the data.

::

    select_bandwidth              the rules as a public function
    bandwidth_by_rule             a rule for prepared points
      reference rules             from moments and spectrum alone
      LeaveOneOut                 points left out one by one: "nearest" and "kl"
        NearLeaveOneOut           the same by neighbours and a sample
      search_bandwidth            the maximum of a BandwidthCurve
    search_structures             maps, structures and tails, on points held out in folds
      Folds -> HeldOut -> KernelCurve, in a Race; stack
    HeldOutScores                 the setting that was chosen, on all training points

All searches maximise a mean log density over points that had no share in the estimate.

======================  ================================================================
select                  `select_bandwidth`, for users
rules                   the rules by name; `LeaveOneOut` for "kl" and "nearest";
                        reference rules
duplicates              duplicates, exact and near ones, merged for a search
curve                   `BandwidthCurve`, its maximum, the search that refines it
cross_validation        folds, and log densities of their points by fits to the others
structure_search        maps, structures and tails ("auto", "stack") compared on them
stacking                weights of the mixture that is best on held-out points
plan                    progress and time of a search
held_out                every training point, scored by fits that did not see it
drift                   whether rows that are added are like those of the fit
neighbor_leave_one_out  "kl" on lists of neighbours
profile                 the curve of a fitted density, for displays
search_result           `BandwidthSearch` and `Candidate`, which users see
======================  ================================================================
"""

from skhdkde._selection.cross_validation import (
    DEGREES_OF_FREEDOM,
    HELD_OUT_NEAREST_TOL,
    HELD_OUT_TOL,
    BaseFolds,
    BaseHeldOut,
    Folds,
    fold_ends,
)
from skhdkde._selection.curve import PARABOLA, BandwidthCurve
from skhdkde._selection.drift import Drift, DriftTest, Earlier
from skhdkde._selection.duplicates import (
    N_NEIGHBORS,
    Distinct,
    merge_duplicates,
    standardized,
    warn_of_near_duplicates,
)
from skhdkde._selection.held_out import HeldOutScores
from skhdkde._selection.neighbor_leave_one_out import (
    may_be_searched,
    search_by_neighbors,
)
from skhdkde._selection.plan import SearchPlan
from skhdkde._selection.profile import bandwidth_grid, queries_of
from skhdkde._selection.rules import (
    N_BANDWIDTHS,
    N_PILOT,
    N_QUERIES,
    OF_SPACE,
    REFERENCE_RULES,
    RULES,
    SMALLEST_FLOAT32,
    Choice,
    LeaveOneOut,
    bandwidth_by_rule,
    queried_bandwidth,
    reference_bandwidth,
)
from skhdkde._selection.search_result import BandwidthSearch
from skhdkde._selection.select import select_bandwidth
from skhdkde._selection.structure_search import Setting, expand, search_structures
