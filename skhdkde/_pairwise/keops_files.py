"""The files KeOps keeps in its cache, whole whatever was killed while it wrote them.

KeOps writes in place and without a lock: a table of formulas when Python ends, code and a
library when it compiles one. Here each has a lock, tables are written beside and renamed,
and what an unfinished process left is put aside or made again.
"""

import atexit
import contextlib
import os
import pathlib
import pickle
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from skhdkde._utils.warnings import warn_user

# Files of a formula are named by ten digits; a library has them within its name.
CODE_NAME = re.compile("[0-9a-f]{10}")
LINES_OF_DESCRIPTION = 4


@contextlib.contextmanager
def lock(name: str, *, shared: bool = False) -> Iterator[IO[str]]:
    """Hold a lock that one thread of one process of the user has at a time.

    What it gives is the file behind the lock. Any number may hold one that is shared.
    """
    import fcntl  # KeOps does not run on Windows either

    folder = os.environ.get("KEOPS_CACHE_FOLDER") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(folder) / "skhdkde_locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield file
        finally:  # closing is not enough where a forked child has the file too
            fcntl.flock(file, fcntl.LOCK_UN)


def put_aside_broken_tables(folder: pathlib.Path) -> None:
    """Rename the tables that KeOps could not read, to be called under their lock."""
    broken = [path for path in sorted(folder.glob("*_cache.pkl")) if not _readable(path)]
    for path in broken:
        path.replace(_aside(path))
    if broken:
        warn_user(
            "KeOps' table of compiled formulas is empty or broken, as a process leaves "
            "it that is killed while it writes: "
            + ", ".join(f"{path} is now {_aside(path).name}" for path in broken)
            + ". Its formulas are found again; you may delete what was put aside."
        )


def _aside(path):
    return path.with_name(path.name + ".broken")


def _readable(path):
    """Return whether a file holds a table, as KeOps reads it."""
    try:
        with path.open("rb") as file:
            return isinstance(pickle.load(file), dict)
    except Exception:  # garbage may be anything to pickle
        return False


def write_whole_at_exit(table: Any, useless: Iterable[Any]) -> None:
    """Write a table of KeOps beside and rename it, when Python ends.

    ``useless`` are those not to be written.
    """
    for each in (table, *useless):
        atexit.unregister(each.save_cache)
    atexit.register(_write_whole, table, table.cache_file)


def _write_whole(table, path):
    """Replace the file of a table; if that cannot be, others look formulas up again."""
    table.cache_file = f"{path}.new"
    with contextlib.suppress(OSError), lock("table"):
        table.save_cache()
        pathlib.Path(table.cache_file).replace(path)


@contextlib.contextmanager
def compilation(name: str, formula: str, folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock ``name`` of a formula, without what an unfinished compilation left.

    While the file behind the lock is not empty, its last holder has not finished.
    """
    with lock(name) as file:
        file.seek(0)
        if file.read():
            with lock("compilations"):
                _remove_unfinished(formula, folder)
        file.truncate(0)
        file.write("not finished")
        file.flush()
        with lock("compilations", shared=True):
            yield
        file.truncate(0)


def _remove_unfinished(formula, folder):
    """Remove code without its description, and the libraries of a formula.

    Nothing else may compile: KeOps writes code first and its description after it.
    """
    for code in folder.iterdir():
        if not CODE_NAME.fullmatch(code.stem) or code.suffix == ".nfo":
            continue
        description = _lines(code.with_suffix(".nfo"))
        if len(description) < LINES_OF_DESCRIPTION:
            code.unlink()
        elif description[0] == f"red_formula={formula}":
            for library in folder.glob(f"pykeops_cpp_{code.stem}.*.so"):
                library.unlink()


def _lines(path):
    try:
        return path.read_text().split("\n")
    except FileNotFoundError:
        return []
