"""What the benchmarks share: the run in words, timing in turn, tables."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import time

import numpy as np

import skhdkde

__all__ = ["announce", "describe_run", "time_in_turn", "write_table"]


def describe_run(*packages, remark=None):
    """What to know of the tables that follow, as a list in Markdown.

    Command, date, machine (processor, cores and ``remark``), and the versions of
    Python, of this package, of numpy and of ``packages``.
    """
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line for line in lines if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        pass
    versions = [f"Python {platform.python_version()}"]
    versions.append(f"skhdkde {skhdkde.__version__}")
    for name in ("numpy", *packages):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    machine = [model, f"{os.cpu_count()} cores", *([remark] if remark else [])]
    return "\n".join(
        [
            f"- command: `{command()}`",
            f"- date: {datetime.date.today().isoformat()}",
            f"- machine: {', '.join(machine)}",
            f"- versions: {', '.join(versions)}",
        ]
    )


def command():
    """This script as called from the root of the repository, files by name only."""
    words = ["python", f"benchmarks/{pathlib.Path(sys.argv[0]).name}"]
    for word in sys.argv[1:]:
        option, equals, value = word.rpartition("=")
        words.append(f"{option}{equals}{pathlib.Path(value).name or value}")
    return shlex.join(words)


def write_table(title, columns, rows):
    """Print a GitHub-markdown table, row by row, if it has any.

    ``|`` separates ``columns``; ``rows`` may be an iterator.
    """
    columns, started = columns.split("|"), False
    for row in rows:
        if not started:
            print(f"\n{title}\n")
            print(f"| {' | '.join(columns)} |")
            print(f"|{' --- |' * len(columns)}")
        started = True
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def announce(text):
    """Say on stderr what is being measured, so that stdout holds tables only."""
    print(text, file=sys.stderr, flush=True)


def time_in_turn(calls, repeats):
    """Seconds of each of ``calls``, taken in turn so that all see the same machine.

    Parameters
    ----------
    calls : dict of str to callable
        Each should have been called once before.
    repeats : int

    Returns
    -------
    seconds : dict of str to ndarray of shape (repeats,)
    """
    seconds = {name: np.empty(repeats) for name in calls}
    for i in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name][i] = time.perf_counter() - start
    return seconds
