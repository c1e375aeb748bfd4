"""Blocks of training points on a Dask cluster: tasks over them as graphs.

The only file that imports dask. Blocks stay where they are; tasks are sent to them, and
what these say of a block is merged in a tree. Where blocks are read from a file, a task
reads its block itself: none is kept for another task, so that the memory of a worker
holds those that it works on and no more. Graphs are written as such, since one of
``dask.delayed`` has a layer for every pair of blocks.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import uuid
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from skhdkde._density import in_range
from skhdkde._distributed.tasks import CountTask, merged
from skhdkde._utils.validation import (
    check_data,
    check_points,
    check_weights,
    relative_weights,
    rows_are_points,
    weighted_total,
)
from skhdkde._utils.warnings import warn_user

# Results that are merged at once.
FAN = 8
# Queries in a task at most, elements of them, and tasks for each thread at least.
MOST_QUERIES, QUERY_SIZE, TASKS_PER_THREAD = 2**15, 2**23, 8
# Bytes that reading a block may take to write down: more are the data themselves.
LARGEST_RECIPE = 2**16
# Elements of a block that is made of an array in memory.
BLOCK_SIZE = 2**23
# Share of a worker's memory that blocks may take.
LARGEST_SHARE = 0.9
# No warning, since what is in memory has to be sent.
LARGE_GRAPHS = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}


try:
    import cloudpickle
    import dask
    import dask.array as da
    import distributed
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph
except ImportError as error:
    raise ImportError(
        f"skhdkde.dask needs {error.name}: pip install 'skhdkde[dask]'."
    ) from error


class DaskTraining:
    """The blocks of training points and their weights, wherever they are.

    Parameters
    ----------
    X, weights : dask arrays
        Weights are None if there are none.
    verbose : int

    Attributes
    ----------
    given : dask array
        The points as the user has them, which they are as queries.
    weighted : bool
        Whether positive weights differ, once the sizes of blocks have been asked for.
    """

    def __init__(self, X, weights, verbose):
        self.X, self.weights, self.verbose = X, weights, verbose
        self.given = X
        self.weighted = weights is not None
        self._blocks = self._counted = None

    def moved_to(self, points):
        """Return this with the same rows as other points, such as without features."""
        moved = copy.copy(self)
        moved.X, moved._blocks = points, None
        return moved

    def __getstate__(self):
        return {**vars(self), "_blocks": None}

    def blocks(self):
        """Return points and weights of each block, as a task takes them, and needs."""
        if self._blocks is None:
            points, needs = _block_arguments(self.X)
            weights, more = [None] * len(points), []
            if self.weights is not None:
                weights, more = _block_arguments(self.weights)
            self._blocks = list(zip(points, weights, strict=True)), needs + more
        return self._blocks

    def run(self, task, extras=None):
        """Return the results of a task for all blocks, merged.

        ``extras`` is what the task also takes for each block; None leaves a block out.
        """
        name = _name(type(task).__name__.removesuffix("Task").lower())
        blocks, needs = self.blocks()
        graph: dict[Any, Any] = {f"{name}-task": task}
        keys = []
        for j, block in enumerate(blocks):
            more = () if extras is None else extras[j]
            if more is not None:
                keys.append((f"{name}-block", j))
                graph[keys[-1]] = (_of, f"{name}-task", j, *block, *more)
        _add_tree(graph, f"{name}-task", name, keys)
        layers = HighLevelGraph.from_collections(name, graph, dependencies=needs)
        return computed(Delayed(name, layers), self.verbose, name.split("-")[0])

    def sizes(self):
        """Return rows, and rows of positive weight, of each block: (n_blocks, 2)."""
        if self._counted is None:
            rows = np.array(self.X.chunks[0], dtype=np.float64)
            if self.weights is not None or np.isnan(rows).any():
                self._counted = self._count()
            else:
                self._counted = np.column_stack([rows, rows]).astype(int)
        return self._counted

    def _count(self):
        """Return the sizes of blocks, and make weights relative; drop equal ones."""
        counts = self.run(CountTask())
        if not counts.heaviest:  # no weights, or none is positive
            return counts.sizes
        self.weighted = counts.lightest < counts.heaviest
        if not self.weighted and (counts.sizes[:, 0] == counts.sizes[:, 1]).all():
            self.weights = self._blocks = None
            return counts.sizes
        relative = functools.partial(relative_weights, heaviest=counts.heaviest)
        self.weights = self.weights.map_blocks(relative, dtype=np.float64)
        self._blocks = None
        if relative([counts.lightest])[0] > 0.0:
            return counts.sizes
        return self.run(CountTask()).sizes  # without those that vanish

    def at(self, density, kind, Q):
        """Return results at the queries, a dask array, not yet computed."""
        check_memory(Q)
        known, chunks = not math.isnan(Q.shape[0]), Q.chunks[0]
        if known and Q.shape[0]:
            Q = Q.rechunk((self._rows_of_queries(*Q.shape), -1))
        task = density.task(kind, float_dtype(Q))
        result = self._result(density, kind, task, Q, None)
        return result.rechunk({0: chunks}) if known else result

    def at_own(self, density, kind):
        """Return results at the training points, each without itself, in their blocks."""
        rows = self.sizes()[:, 0].tolist()
        X, (_, columns) = self.given, self.given.chunks
        X = da.Array(X.dask, X.name, (tuple(rows), columns), X.dtype)
        step = self._rows_of_queries(sum(rows), X.shape[1])
        own = [
            (start, min(start + step, n), j)
            for j, n in enumerate(rows)
            for start in range(0, max(n, 1), step)
        ]
        Q = X.rechunk((tuple(stop - start for start, stop, _ in own), -1))
        task = density.task(kind, density.dtype, n_left_out=1)
        return self._result(density, kind, task, Q, own).rechunk({0: tuple(rows)})

    def _rows_of_queries(self, n_queries, n_features):
        """Return how many queries a task takes, so that all threads are busy."""
        wanted = TASKS_PER_THREAD * _n_threads()
        groups = -(-wanted // self.X.numblocks[0])
        most = min(MOST_QUERIES, QUERY_SIZE // n_features)
        return max(1, min(-(-n_queries // groups), most))

    def _result(self, density, kind, task, Q, own):
        """Return results of all blocks of queries against all blocks of points, lazily.

        ``own`` says, for each block of queries that are training points, of which rows
        of which block it is.
        """
        name, (blocks, needs) = _name(kind), self.blocks()
        first_rows = np.cumsum([0, *Q.chunks[0]])  # NaN where sizes are not known
        graph: dict[Any, Any] = {f"{name}-task": task, f"{name}-density": density}
        finish = getattr(type(density), f"{kind}_from")
        columns = {
            "density": 0,
            "diagnosis": len(density.DIAGNOSIS_COLUMNS),
            "gradient": Q.shape[1],
        }[kind]
        last_index = (0,) if columns else ()
        for i in range(Q.numblocks[0]):
            query, keys = (f"{name}-queries", i), []
            where = i, float(first_rows[i]), Q.shape[1]
            graph[query] = _checked_queries, (Q.name, i, 0), *where, f"{name}-density"
            for j, block in enumerate(blocks):
                keys.append((f"{name}-block", i, j))
                mine = own[i][:2] if own and own[i][2] == j else ()
                task_and_block = f"{name}-task", j, *block
                graph[keys[-1]] = (_at_queries, *task_and_block, query, *mine)
            _add_tree(graph, f"{name}-task", (f"{name}-sum", i), keys)
            known = (blocks[own[i][2]][1], *own[i]) if own else ()
            result = f"{name}-task", (f"{name}-sum", i), float_dtype(Q), query
            finished = _finished, finish, f"{name}-density", *result, *known
            graph[(name, i, *last_index)] = finished
        layers = HighLevelGraph.from_collections(name, graph, dependencies=[*needs, Q])
        dtype = np.result_type(float_dtype(Q), density.dtype)
        dtype = np.dtype(np.float64) if kind == "diagnosis" else dtype
        chunks = (Q.chunks[0], (columns,)) if columns else (Q.chunks[0],)
        return da.Array(layers, name, chunks, dtype)


class _Recipe:
    """The way to make a block, for the task that needs it."""

    def __init__(self, graph, key):
        self.graph, self.key = graph, key

    def make(self):
        """Return the block."""
        return dask.get(self.graph, self.key)


def _block_arguments(array):
    """Return what stands for each block of an array in a graph, and what it depends on.

    These are recipes, if there are any; else keys of the array.
    """
    keys = list(dask.core.flatten(array.__dask_keys__()))
    if distributed.futures_of(array):
        return keys, [array]
    (array,) = dask.optimize(array)
    graph, dependencies = _graph_and_needs(array)
    recipes = _recipes(graph, dependencies, keys)
    return (keys, [array]) if recipes is None else (recipes, [])


def _in_memory(array):
    """Return whether the graph of an array holds its data."""
    if distributed.futures_of(array):
        return False
    (array,) = dask.optimize(array)
    graph, needs = _graph_and_needs(array)
    key = next(dask.core.flatten(array.__dask_keys__()))
    size = _size(_Recipe({k: graph[k] for k in _closure(key, needs)}, key))
    return size is not None and size > LARGEST_RECIPE


def _graph_and_needs(array):
    """Return the graph of an optimised array, and the keys that each key needs."""
    graph = dict(array.__dask_graph__())
    layer = HighLevelGraph.from_collections("blocks", graph, ())
    return graph, layer.get_all_dependencies()


def _recipes(graph, needs, keys):
    """Return a recipe for each block, or None.

    There are some if every block is read or made by itself, from what takes little to
    write down.
    """
    if _refers_to_cluster(graph):
        return None
    recipes = []
    used: set[Any] = set()
    for key in keys:
        found = _closure(key, needs)
        if any(needs[k] for k in found & used):  # a mean of all, say: to be made once
            return None
        used |= found
        recipes.append(_Recipe({k: graph[k] for k in found}, key))
    size = _size(recipes[0])
    return recipes if size is not None and size <= LARGEST_RECIPE else None


def _size(recipe):
    """Return the bytes of a recipe; None if it cannot be sent, as an open file."""
    try:
        return len(cloudpickle.dumps(recipe))
    except Exception:  # an object may raise anything when it is pickled
        return None


def _refers_to_cluster(graph):
    """Return whether tasks of a graph need results that only the cluster has."""
    tasks = list(graph.values())
    needed = set().union(*(getattr(task, "dependencies", ()) for task in tasks))
    return bool(distributed.futures_of(tasks)) or not needed <= graph.keys()


def _closure(key, needs):
    """Return a key and all that it needs, directly or not."""
    found, todo = set(), [key]
    while todo:
        last = todo.pop()
        if last not in found:
            found.add(last)
            todo += needs[last]
    return found


def _of(task, j, X, weights, *more):
    """Return the result of a task for block ``j``."""
    with _noted(f"in block {j} of X"):
        X, weights = (b.make() if isinstance(b, _Recipe) else b for b in (X, weights))
        return task.of(X, weights, *more)


def _at_queries(task, j, X, weights, queries, *rows):
    """Return the result of a task for block ``j`` at queries."""
    return _of(task, j, X, weights, queries.X, *rows)


def _checked_queries(Q, i, first_row, n_features, density):
    """Return block ``i`` of the queries, in range, or raise an error that names it.

    ``first_row`` is NaN where it is not known: rows are then counted in the block.
    """
    where = f"in block {i} of the queries X"
    if math.isnan(first_row):
        first_row, where = 0, f"{where}, where rows are counted"
    with _noted(where):
        if Q.shape[1:] != (n_features,):
            raise ValueError(f"X has {Q.shape[1:]} features, expected {n_features}.")
        Q = check_points(Q) if len(Q) else np.asarray(Q)
        warn = functools.partial(_warn, where)
        return in_range(Q, density, first_row=int(first_row), warn=warn)


def _warn(where, message):
    """Warn the user of something in a block, on whichever machine this runs."""
    message = f"{message} ({where})"
    try:
        distributed.get_worker()
    except ValueError:
        warn_user(message)
    else:
        distributed.warn(message)


@contextlib.contextmanager
def _noted(where):
    """Add to the message of an error where it came about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} ({where})") from error
    except Exception as error:
        error.add_note(where)
        raise


def _merged(task, results):
    """Return the results of a task, merged."""
    return merged(task.merge, results)


def _finished(finish, density, task, result, dtype, queries, *own):
    """Return what a density makes of merged results, with weights that may be recipes."""
    if own:
        weights, *rows = own
        own = weights.make() if isinstance(weights, _Recipe) else weights, *rows
    return finish(density, task, result, dtype, queries, *own)


def _add_tree(graph, task, root, keys):
    """Add to a graph the merges of the results at ``keys``, up to the key ``root``."""
    level, base = 0, root if isinstance(root, tuple) else (root,)
    while len(keys) > FAN:
        groups = [keys[k : k + FAN] for k in range(0, len(keys), FAN)]
        level, keys = level + 1, []
        for k, group in enumerate(groups):
            keys.append((f"{base[0]}-merge", *base[1:], level, k))
            graph[keys[-1]] = (_merged, task, group)
    graph[root] = (_merged, task, keys)


def on_sphere(X, sphere):
    """Return a dask array of rows of unit norm as points of a sphere."""
    dtype, columns = float_dtype(X), (sphere.n_features,)
    points = functools.partial(_on_sphere, sphere=sphere, dtype=dtype)
    meta = np.empty((0, 0), dtype=dtype)
    return X.map_blocks(points, chunks=(X.chunks[0], columns), meta=meta)


def _on_sphere(X, sphere, dtype):
    return sphere.points(np.asarray(X, dtype=dtype))


def training_arrays(estimator, X, sample_weight):
    """Return points and weights as dask arrays whose blocks go together."""
    if is_dask(X):
        X = checked(estimator, X, reset=True)
        check_memory(X)
        X = _sent(X) if _in_memory(X) else X
    else:
        X = check_data(estimator, X, reset=True)
        sample_weight = check_weights(sample_weight, X)
        rows = min(-(-len(X) // _n_threads()), max(1, BLOCK_SIZE // X.shape[1]))
        X = _sent(da.from_array(X, chunks=(rows, -1), name=False))
    if sample_weight is None:
        return X, None
    if is_dask(sample_weight):
        return X, _weights_beside(X, _as_array(sample_weight))
    if math.isnan(X.shape[0]):
        X = X.compute_chunk_sizes()
    weights = check_weights(sample_weight, range(X.shape[0]))
    return X, _sent(da.from_array(weights, chunks=(X.chunks[0],), name=False))


def _weights_beside(X, weights):
    """Return weights in blocks that go with those of X, or raise an error."""
    if weights.ndim != 1:
        raise ValueError(f"sample_weight must be 1D, got shape {weights.shape}.")
    if not (math.isnan(X.shape[0]) or math.isnan(weights.shape[0])):
        if len(weights) != len(X):
            raise ValueError(
                f"sample_weight.shape == {weights.shape}, expected {(X.shape[0],)}!"
            )
        return weights.rechunk((X.chunks[0],))
    if weights.numblocks[0] != X.numblocks[0]:
        raise ValueError(
            f"sample_weight has {weights.numblocks[0]} blocks and X {X.numblocks[0]}; "
            "where their sizes are not known they must go together one by one."
        )
    return weights


def total(values, sample_weight):
    """Return the sum of values times weights, both of dask, not yet computed."""
    if sample_weight is None:
        return values.sum(dtype=np.float64)
    weights = _weights_beside(values, _as_array(sample_weight))
    totals = da.map_blocks(_total, values, weights, dtype=np.float64)
    return totals.sum()


def _total(values, weights):
    return np.array([weighted_total(values, weights)])


def _sent(array):
    """Return an array in memory, sent to the workers once."""
    with dask.config.set(LARGE_GRAPHS):
        return array if _client() is None else array.persist()


def checked(estimator, X, *, reset):
    """Return a dask array or DataFrame as an array with all features in one block.

    What its blocks hold is checked where they are.
    """
    array = _as_array(X)
    names = X if array is X else X._meta
    if array.ndim != 2:
        raise ValueError(
            f"Expected 2D array for X, got {array.ndim}D array instead, of shape "
            f"{array.shape}."
        )
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported, got X of dtype {array.dtype}.")
    with rows_are_points(estimator, array):
        validate_data(estimator, names, reset=reset, skip_check_array=True)
    if 0 in array.shape:
        raise ValueError(
            f"X has shape {array.shape}; at least one row and one feature are required."
        )
    return array.rechunk({1: -1}) if array.numblocks[1] > 1 else array


def check_memory(array):
    """Raise ValueError if a worker cannot hold the blocks that it has to work on."""
    client, rows = _client(), max(array.chunks[0], default=0)
    if client is None or math.isnan(rows):
        return
    size = rows * array.shape[1] * array.dtype.itemsize
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        needed, limit = size * worker["nthreads"], worker["memory_limit"]
        if limit and needed > LARGEST_SHARE * limit:
            raise ValueError(
                f"X has blocks of up to {rows} rows, {_mib(size)}: a worker with "
                f"{worker['nthreads']} threads works on as many at once, and has "
                f"{_mib(limit)} of memory. Make blocks smaller, as by X.rechunk, or "
                "give workers fewer threads."
            )


def computed(collection, verbose, label):
    """Return a result, or raise an error that says what happened on the cluster."""
    try:
        with dask.config.set(LARGE_GRAPHS):
            return _shown(collection, label) if verbose else collection.compute()
    except distributed.KilledWorker as error:
        raise RuntimeError(
            "a task failed since workers died on it again and again. Most often they ran "
            "out of memory: make blocks smaller, as by X.rechunk, or give workers fewer "
            "threads or more memory."
        ) from error
    except (distributed.client.FutureCancelledError, ValueError) as error:
        if isinstance(error, ValueError) and "Missing dependency" not in str(error):
            raise
        raise RuntimeError(
            "work was cancelled, or blocks are gone from the cluster: their client "
            "closed, or the worker that had them died and they cannot be made again. "
            "Fit again, to data from files or persisted anew."
        ) from error


def from_memory(X):
    """Return queries in memory as a dask array."""
    return da.from_array(X, chunks=(MOST_QUERIES, -1), name=False)


def _shown(collection, label):
    """Return a result, computed with a progress bar."""
    client = _client()
    if client is None:
        from tqdm.dask import TqdmCallback

        with TqdmCallback(desc=label, unit="task"):
            return collection.compute()
    future = client.compute(collection)
    distributed.progress(future, notebook=False)
    return future.result()


def _client():
    """Return the active client, or None."""
    try:
        return distributed.get_client()
    except ValueError:
        return None


def _n_threads():
    """Return the number of threads of the cluster, or of this machine."""
    client = _client()
    if client is None:
        return dask.system.CPU_COUNT
    return max(sum(client.nthreads().values()), 1)


def float_dtype(array):
    """Return float32 for arrays of float32 or float16, float64 for others."""
    narrow = array.dtype in (np.float32, np.float16)
    return np.dtype(np.float32 if narrow else np.float64)


def is_dask(X):
    """Return whether X is a collection of dask."""
    return dask.is_dask_collection(X)


def _as_array(X):
    """Return a dask array, DataFrame or Series as an array."""
    if isinstance(X, da.Array):
        return X
    if isinstance(X, Delayed) or not hasattr(X, "to_dask_array"):
        kind = type(X).__name__
        raise TypeError(
            f"X and sample_weight may be dask arrays or DataFrames, got {kind}."
        )
    return X.to_dask_array()


def _name(kind):
    """Return a name for keys of a graph that no other graph has."""
    return f"{kind}-{uuid.uuid4().hex}"


def _mib(size):
    """Return a number of bytes in words."""
    return f"{size / 2**20:.0f} MiB"
