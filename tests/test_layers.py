"""The shape of the package: layers, optional imports, sizes."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import skhdkde

PACKAGE = pathlib.Path(skhdkde.__file__).parent

# Imports point downward only. See doc/developers.rst.
LAYERS = {
    "_arrays": -1,
    "_device": -0.5,
    "_student": -0.5,
    "_kernels": 0,
    "_validation": 0,
    "regimes": 0,
    "_frames": 0,
    "_points": 1,
    "_cells": 1,
    "_moments": 1,
    "_digests": 1.2,
    "_sample": 1.5,
    "_covariance": 1,
    "_reductions": 1,
    "_local_law": 1,
    "_spread": 1,
    "_spectrum": 2,
    "_backends._threads": 2,
    "_backends._precision": 2,
    "_backends._tiles": 2,
    "_backends._numpy": 2,
    "_backends._torch": 2,
    "_backends._keops": 2,
    "_backends._keops_runtime": 2,
    "_backends": 2,
    "_faiss": 2.2,
    "_parts": 2.5,
    "_split": 2.5,
    "_neighbors": 2.5,
    "_index_choice": 2.6,
    "_calibration": 3,
    "_approximation": 3,
    "_neighbor_search": 3,
    "_parameters": 3,
    "_search": 3,
    "_structure": 3,
    "_estimate": 3,
    "_fitting": 3,
    "_bandwidth": 3,
    "_diagnosis": 3,
    "_sampling": 3,
    "_scorers": 3,
    "_curve": 3,
    "_blocks": 3,
    "_survey": 3,
    "_folds": 3,
    "_distributed": 3,
    "_dask": 3.5,
    "_kde": 4,
    "dask": 4.5,
    "_plot": 5,
    "": 6,
}
OPTIONAL = {"torch", "pykeops", "keopscore", "faiss", "dask", "distributed", "matplotlib"}


def modules():
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join(parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} == set(LAYERS)


def test_imports_point_downward():
    for name, path in modules():
        for imported in imports(path):
            if imported.split(".")[0] == "skhdkde":
                target = imported.removeprefix("skhdkde").removeprefix(".")
                inside = name.startswith("_backends") and target.startswith("_backends")
                beside = LAYERS[target] == LAYERS[name] == 3  # rules call the search
                assert LAYERS[target] < LAYERS[name] or inside or beside, (
                    f"{name} imports {target}"
                )


def test_no_import_cycles():
    graph = {
        name: {
            i.removeprefix("skhdkde").removeprefix(".")
            for i in imports(path)
            if i.split(".")[0] == "skhdkde"
        }
        for name, path in modules()
    }
    done = set()
    while len(done) < len(graph):
        free = {name for name in graph if name not in done and graph[name] <= done}
        assert free, f"cycle among {set(graph) - done}"
        done |= free


def test_optional_packages_are_not_loaded():
    code = "import json, sys, skhdkde; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not OPTIONAL & {name.split(".")[0] for name in loaded}
    assert "tqdm" not in loaded


def test_fit_and_score_load_no_optional_packages():
    code = """
import json, sys, numpy as np, skhdkde
X = np.random.default_rng(0).normal(size=(50, 3))
kde = skhdkde.HighDimKernelDensity().fit(X)
kde.score_samples(X), kde.log_density_gradient(X), kde.sample(3)
print(json.dumps(sorted(sys.modules)))
"""
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not OPTIONAL & {name.split(".")[0] for name in loaded}


def test_files_and_functions_stay_readable():
    root = PACKAGE.parent
    for path in [*PACKAGE.rglob("*.py"), *(root / "tests").glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 500, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno - doc.count("\n")
                assert length <= 60, f"{path}: {node.name}"


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", skhdkde.__version__)
