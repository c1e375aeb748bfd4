"""What the benchmarks share: the machine in words, timing in turn, tables."""

import importlib.metadata
import os
import platform
import sys
import time

import numpy as np

__all__ = ["announce", "describe_machine", "time_in_turn", "write_table"]


def describe_machine(*packages):
    """One paragraph: processor, cores, Python and the versions of ``packages``."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line for line in lines if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        pass
    versions = [f"Python {platform.python_version()}"]
    for name in ("skhdkde", "numpy", *packages):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    return f"{model}, {os.cpu_count()} cores; {', '.join(versions)}."


def write_table(title, columns, rows):
    """Print a GitHub-markdown table, if it has rows; ``|`` separates ``columns``."""
    if not rows:
        return
    columns = columns.split("|")
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    sys.stdout.flush()


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
