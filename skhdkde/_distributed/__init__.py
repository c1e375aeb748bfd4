"""Training points in blocks, on a Dask cluster: the same fit and results.

::

    DaskTraining      blocks and weights, wherever they are: the only part that knows dask
      run(task)       results of a Task for all blocks, merged in a tree
    Blocks            a Training: what tasks say of the blocks, for fit_density
      BlockFolds -> BlockHeldOut, BlockLeaveOneOut: searches over blocks
    BlockDensity      makes the tasks for queries, and results of what they say

Importing this room does not import dask.

================  ======================================================================
tasks             what is computed on one block, and how results of blocks merge
fit               `Blocks`, and leave-one-out log densities over them
cross_validation  structures compared on folds of the blocks
density           `BlockDensity`, and `PointsSummary` for points that are elsewhere
dask_graph        tasks over blocks as dask graphs; the only file that imports dask
================  ======================================================================
"""

from skhdkde._distributed.density import BlockDensity
from skhdkde._distributed.fit import Blocks, sphere_of
from skhdkde._distributed.tasks import CountTask, merged
