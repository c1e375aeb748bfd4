"""Approximate log densities, each with a stated error: neighbours and random samples.

::

    approximate -> Approximation     which sum for which query: samples, neighbours, all
                     Unlike          errors at queries unlike the training points
                     Prepared        the points of one component, with search and levels
                       NearFarSum    their sums at a SumBatch of queries: SumTerms
                         Sampler     draws samples, of which SampleSums takes moments
                       NeighborSearch (TileSearch, IndexSearch over an index, or
                                       ProjectedSearch for some near points)

The error of a sum over neighbours and a sample is known from three sides: the variance of
the sample, a bound on what both miss, and what calibration finds on points left out, as
they are and moved.

=============  =========================================================================
setup          from an estimator's parameters to an `Approximation`
approximation  `Approximation`: which sum for which query
mixed          `MixedApproximation`: those of a mixture of densities
exact          `ExactSums`, over all points, reported in the same way
report         `Report` on the queries, and the warning
unlike         errors beside the training points, and far from them
calibration    `Prepared`: how many neighbours and how hard to search, for a tolerance
costs          what sums and indexes cost, counted, and when an index pays
index_choice   which index suits the data, by trial
near_far_sum   near points one by one, a sample of the far ones, a bound on the missed
subsample      random samples, and the regression estimate of a sum
neighbors      searches for neighbours: by tiles, a transformer or an index
faiss_index    an index by faiss; the only file that imports it
=============  =========================================================================
"""

from skhdkde._approximation.calibration import calibrated
from skhdkde._approximation.exact import ExactSums
from skhdkde._approximation.neighbors import IndexSearch, wanted_index
from skhdkde._approximation.report import ERROR, Report
from skhdkde._approximation.setup import approximate, cheapest, grown, prepare_index
