"""The shape of the package: rooms, what they import of each other, optional packages."""

import ast
import functools
import inspect
import json
import pathlib
import pydoc
import re
import shutil
import subprocess
import sys

import pytest
from importlinter.cli import lint_imports

import skhdkde

PACKAGE = pathlib.Path(skhdkde.__file__).parent
CONFIG = pathlib.Path(__file__).parent.parent / "pyproject.toml"
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
# Files that others may import although they are in a room: those of _utils, each of which
# is a subject of its own, and one whose room is imported where there is no dask.
OPEN_ROOM = "_utils"
OPEN_FILES = {"skhdkde._dask_estimator": {"skhdkde._distributed.dask_graph"}}
# Packages that `import skhdkde` leaves alone, and who imports them.
OPTIONAL = {
    "cloudpickle": {"_distributed.dask_graph"},
    "dask": {"_distributed.dask_graph"},
    "distributed": {"_distributed.dask_graph"},
    "faiss": {"_approximation.faiss_index"},
    "keopscore": {"_pairwise.keops_runtime"},
    "matplotlib": {"_displays"},
    "pandas": {"_utils.frames"},
    "pykeops": {"_pairwise.keops_runtime"},
    "torch": {
        "_pairwise.device_table",
        "_pairwise.torch_backend",
        "_pairwise.torch_settings",
        "_pairwise.torch_visit",
        "_pairwise.triton_kernels",
    },
    "tqdm": {"_distributed.dask_graph", "_selection.plan", "_utils.threads"},
    "triton": {"_pairwise.triton_kernels"},
}


# Loaded by joblib and by scikit-learn, where they are.
LOADED_BY_OTHERS = {"cloudpickle", "pandas"}


@functools.cache
def imports():
    """Return what each module imports, in functions too, but not for types alone."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("skhdkde", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imported(tree):
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if is_module(name) else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_module(name):
    """Return whether a name, as it is after all imports, is that of a module."""
    return name.split(".")[0] == "skhdkde" and inspect.ismodule(pydoc.locate(name))


def own_imports():
    """Yield pairs of modules of the package of which the first imports the second."""
    for name, targets in imports().items():
        for target in targets:
            if target.split(".")[0] == "skhdkde":
                yield name, target


def room_of(name):
    """Return the room that a module is in, or is the page of; None for no room."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def test_there_are_rooms():
    assert {"_utils", "_kernels", "_pairwise", "_density", "_distributed"} <= ROOMS


def test_rooms_import_downwards():
    assert lint_imports(config_filename=str(CONFIG), no_cache=True) == 0


@pytest.mark.parametrize(
    "file, line, said",
    [
        ("_kernels/kernel.py", "import skhdkde._fit", "skhdkde._kernels is not allowed"),
        ("regimes.py", "from skhdkde._kernels import KERNELS", "skhdkde.regimes is not"),
        ("_scorers.py", "import skhdkde._displays", "skhdkde._scorers is not allowed"),
        ("_more.py", "", "skhdkde._more"),
    ],
)
def test_an_import_upwards_is_found(tmp_path, file, line, said):
    """Also one in a function, and a module that is in no layer."""
    copy = tmp_path / "skhdkde"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CONFIG, tmp_path)
    with (copy / file).open("a", encoding="utf-8") as source:
        source.write(f"\n\ndef wrong():\n    {line or 'pass'}\n")
    code = "from importlinter.cli import *; raise SystemExit(lint_imports(no_cache=True))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert said in result.stdout


def test_rooms_are_entered_by_their_page():
    """Nobody outside a room imports its files."""
    for name, target in own_imports():
        room = room_of(target)
        if room in (None, OPEN_ROOM, room_of(name)):
            continue
        open_files = OPEN_FILES.get(name, set())
        assert target == f"skhdkde.{room}" or target in open_files, f"{name}: {target}"


def test_inside_a_room_files_import_files():
    """Nobody inside a room imports its page, and nobody that of the package."""
    for name, target in own_imports():
        assert target != "skhdkde", name
        if room_of(name) == room_of(target) is not None:
            assert target.count(".") == 2, f"{name}: {target}"


def test_no_import_cycles():
    graph = {name: set() for name in imports()}
    for name, target in own_imports():
        graph[name].add(target)
    done = set()
    while len(done) < len(graph):
        free = {name for name in graph if name not in done and graph[name] <= done}
        assert free, f"cycle among {set(graph) - done}"
        done |= free


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_have_their_files(package):
    found = {
        name.removeprefix("skhdkde.")
        for name, targets in imports().items()
        if package in {target.split(".")[0] for target in targets}
    }
    assert found == OPTIONAL[package]


def loaded(code):
    """Return the packages that are loaded after some code, and are optional."""
    code = f"import json, sys, skhdkde\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    names = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    optional = OPTIONAL.keys() - LOADED_BY_OTHERS
    return optional & {name.split(".")[0] for name in names}


def test_optional_packages_are_not_loaded():
    assert not loaded("")


def test_fit_and_score_load_no_optional_packages():
    code = """
import numpy as np
X = np.random.default_rng(0).normal(size=(50, 3))
kde = skhdkde.HighDimKernelDensity().fit(X)
kde.score_samples(X), kde.log_density_gradient(X), kde.sample(3), kde.diagnose()
"""
    assert not loaded(code)


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", skhdkde.__version__)
