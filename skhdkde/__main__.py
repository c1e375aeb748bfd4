"""``python -m skhdkde`` prints what a bug report needs to say about the machine.

Packages are asked for their version without being imported. Only torch is, in a process
of its own, and only where there is a GPU that it may see.
"""

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator

from joblib import cpu_count
from threadpoolctl import threadpool_info

# Names on PyPI. Where a package has several, the first that is installed is shown.
REQUIRED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "threadpoolctl",
    "joblib",
    "tqdm",
    "pykeops",
)
OPTIONAL = (
    "torch",
    "triton",
    "faiss-cpu faiss-gpu-cu12 faiss-gpu faiss",
    "dask",
    "distributed",
    "pandas",
    "polars",
    "matplotlib",
)
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "SCIPY_ARRAY_API",
)
ASK_DRIVER = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
ASK_TORCH = """
import torch
cuda = torch.cuda
names = [cuda.get_device_name(i) for i in range(cuda.device_count())]
print(f"CUDA {torch.version.cuda}, sees {', '.join(names) or 'no GPU'}")
"""


def report() -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _section("skhdkde", [("version", sys.modules["skhdkde"].__version__)])
    yield from _section("system", _system())
    yield from _section("required packages", map(_package, REQUIRED))
    yield from _section("optional packages", map(_package, OPTIONAL))
    yield from _section("threads", _threads())
    yield from _section("GPU", _gpu())


def _section(title: str, rows: Iterable[tuple[str, object]]) -> Iterator[str]:
    yield title
    for name, found in rows:
        yield f"  {name:<22}{found}"


def _system():
    """Yield names and values: the machine, and what the environment sets."""
    yield "Python", f"{platform.python_version()}, {platform.python_implementation()}"
    yield "platform", f"{platform.platform()}, {platform.machine()}"
    yield "CPUs", f"{cpu_count()} usable of {os.cpu_count()}"
    compilers = filter(shutil.which, ("g++", "clang++"))  # those that KeOps looks for
    yield "C++ compiler", ", ".join(compilers) or "none"
    for variable in filter(os.environ.get, VARIABLES):
        yield variable, os.environ[variable]


def _package(names):
    """Return a name of a package, and its version."""
    for name in names.split():
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return names.split()[0], "not installed"


def _threads():
    """Yield each library with threads of its own that numpy and others have loaded."""
    for library in threadpool_info():
        known = [f"threads {library['num_threads']}"]
        for key in ("version", "architecture", "threading_layer"):
            if library.get(key):
                known.append(f"{key.replace('_', ' ')} {library[key]}")
        yield library["internal_api"], ", ".join(known)


def _gpu():
    """Yield what the driver of NVIDIA and torch say of GPUs."""
    driver = shutil.which("nvidia-smi")
    if driver is None:
        yield "NVIDIA driver", "none"
        return
    for line in _said_by(driver, *ASK_DRIVER):
        yield "NVIDIA driver", line
    if _package("torch")[1] != "not installed":
        for line in _said_by(sys.executable, "-c", ASK_TORCH):
            yield "torch", line


def _said_by(*command):
    """Return the lines that a program prints; where it fails, the last of its error."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"failed: {error}"]
    if run.returncode:
        lines = (run.stderr or run.stdout).split("\n")
        return [f"failed: {next(filter(None, reversed(lines)), run.returncode)}"]
    return run.stdout.splitlines()


def main(arguments: list[str] | None = None) -> None:
    """Print the report, for the command line."""
    argparse.ArgumentParser(
        prog="python -m skhdkde",
        description="Print versions of skhdkde and the packages that it uses, libraries "
        "with threads, and GPUs, for a bug report.",
    ).parse_args(arguments)
    print("\n".join(report()))


if __name__ == "__main__":
    main()
