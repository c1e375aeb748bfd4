"""How pairs are visited.

::

    reduce_pairs          the one entry: a reduction over queries x training points
      _numpy.py           tiles of inner products, on threads
        _precision.py     bounds the error of a tile, and mends what matters
        _threads.py       how many threads; BLAS kept to one thread in each; Ctrl-C

A *tile* is a block of queries against a block of training points, small enough to
stay in the cache while a reduction (``skhdkde/_reductions.py``) passes over it.
"""

from skhdkde._backends._numpy import reduce_pairs

__all__ = ["reduce_pairs"]
