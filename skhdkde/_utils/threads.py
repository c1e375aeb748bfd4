"""Threads over independent tasks, with the BLAS kept to one thread in each."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from joblib import cpu_count
from threadpoolctl import ThreadpoolController, threadpool_limits


class ForkLock:
    """A lock that is free in a child forked while a thread of its parent held it."""

    def __init__(self):
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self):
        self._lock = threading.Lock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *exception):
        self._lock.release()


class _BlasCap:
    """One thread in each BLAS call while any pass runs; afterwards as many as before.

    The number of BLAS threads belongs to the process: with several passes at once,
    the first to come sets it and the last to leave restores it. The libraries are asked
    and told themselves: a pass may be over in less time than ``threadpool_limits`` takes.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        """Forget all passes."""
        self._lock = threading.Lock()
        self._n_passes = 0
        self._libraries: Any = None
        self._before: list = []  # each library, and its threads without the cap

    def after_fork(self):
        """Hold no lock and no cap, in a child forked during a pass of its parent."""
        before = self._before if self._n_passes else []
        self.reset()
        _restore(before)

    def n_threads(self):
        """Return how many threads a BLAS call would use, were it not for our own cap."""
        with self._lock:
            if self._n_passes == 0:
                self._look()
            return max((n for _, n in self._before), default=0) or cpu_count()

    def _look(self):
        """Note how many threads each library has now."""
        if self._libraries is None:
            found = ThreadpoolController().select(user_api="blas")
            self._libraries = found.lib_controllers
        self._before = [(library, library.num_threads) for library in self._libraries]

    def __enter__(self):
        """Cap the threads; return how many passes run, this one too."""
        with self._lock:
            if self._n_passes == 0:
                self._look()
                for library, n_threads in self._before:
                    if n_threads != 1:
                        library.set_num_threads(1)
            self._n_passes += 1
            return self._n_passes

    def __exit__(self, *exc_info):
        with self._lock:
            self._n_passes -= 1
            if self._n_passes == 0:
                _restore(self._before)


def _restore(before):
    """Give libraries the threads that they had before a cap."""
    for library, n_threads in before:
        if n_threads != 1:
            library.set_num_threads(n_threads)


_blas_cap = _BlasCap()
_in_forked_child = False


def _note_fork():
    global _in_forked_child
    _in_forked_child = True
    _blas_cap.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def openmp_threads(n_threads: int) -> int:
    """Return how many threads OpenMP may have, if ``n_threads`` are wanted.

    One, in a child forked since this module was imported: threads of OpenMP are not
    forked, and a child that asks for more than one may wait for them for ever.
    """
    return 1 if _in_forked_child else n_threads


@contextlib.contextmanager
def openmp_after_fork() -> Iterator[None]:
    """Let OpenMP have one thread while a block or a function runs in a forked child.

    For what is not ours and sets its number of threads itself, as k-means does.
    """
    limits = threadpool_limits(1, user_api="openmp") if _in_forked_child else None
    with limits or contextlib.nullcontext():
        yield


@contextlib.contextmanager
def one_thread_if(small: bool) -> Iterator[None]:
    """Give the BLAS and OpenMP one thread each while a block runs, if it is ``small``.

    Threads that wait for each other between short tasks take most of the time, and all
    of the cores of others.
    """
    if not small:
        yield
        return
    with _blas_cap, threadpool_limits(1, user_api="openmp"):
        yield


def n_threads_for(n_jobs: int | None) -> int:
    """Return the number of threads for ``n_jobs``.

    None: as many as the BLAS would use, which follows the machine, the environment,
    ``threadpool_limits`` and, inside joblib's processes, their share of the cores.
    Negative: counted from the number of cores, as joblib does.
    """
    if n_jobs is None:
        return _blas_cap.n_threads()
    if n_jobs < 0:
        return max(1, cpu_count() + 1 + n_jobs)
    return n_jobs


def run_tasks(
    work: Callable[[Any, Callable[[int], None]], Any],
    tasks: Sequence[Any],
    n_threads: int,
    progress: Callable[[int], None],
) -> list[Any]:
    """Return ``[work(task, check) for task in tasks]``, computed on threads.

    Of ``n_threads`` no more are used than the share of the cores that other passes, run
    at the same time from threads of the user's, leave. ``work`` calls ``check(amount)``
    between tiles: it advances ``progress`` and raises if another task failed or the user
    interrupted, so that all stop promptly.
    """
    with _blas_cap as n_passes:
        if n_threads > 1 and len(tasks) > 1 and n_passes > 1:
            n_threads = min(n_threads, max(1, cpu_count() // n_passes))
        if n_threads == 1 or len(tasks) == 1:
            return [work(task, progress) for task in tasks]
        run = _Run(work, progress)
        with ThreadPoolExecutor(min(n_threads, len(tasks))) as executor:
            futures = [executor.submit(run, task) for task in tasks]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                if run.failures:
                    raise run.failures[0]
                return [future.result() for future in futures]
            finally:
                run.stop.set()
                for future in futures:
                    future.cancel()


class _Run:
    """Tasks that stop together: where one fails, the others do not go on."""

    def __init__(self, work, progress):
        self.work, self.progress = work, progress
        self.stop = threading.Event()
        self.failures: list[BaseException] = []

    def check(self, amount: int) -> None:
        """Advance the progress; raise if another task failed or the user interrupted."""
        if self.stop.is_set():
            raise _Stopped
        self.progress(amount)

    def __call__(self, task: Any) -> Any:
        try:
            return self.work(task, self.check)
        except _Stopped:
            raise
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()  # here, so that no other task begins
            raise


class _Stopped(Exception):
    """Another task failed, or the user interrupted; this one need not go on."""


@contextlib.contextmanager
def progress_bar(
    total: int, verbose: int, label: str | None, unit: str = "pair"
) -> Iterator[Callable[[int], None]]:
    """Show a bar while a block of code runs, if ``verbose``.

    What it gives moves the bar on by a number of units, from any thread.
    """
    if not verbose:
        yield lambda amount: None
        return
    from tqdm.auto import tqdm

    lock = threading.Lock()
    with tqdm(desc=label, total=total, unit=unit, unit_scale=True) as bar:

        def advance(amount: int) -> None:
            with lock:
                bar.update(amount)

        yield advance
