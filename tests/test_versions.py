"""``python -m skhdkde``: what a bug report says of the machine."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import skhdkde
from skhdkde.__main__ import OPTIONAL, REQUIRED, main

CONFIG = pathlib.Path(__file__).parent.parent / "pyproject.toml"
EXTRAS = ("torch", "neighbors", "dask", "plot")
# A torch that sees a GPU, for a machine without any.
TORCH = """
class version: cuda = "13.7"
class cuda:
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda number: "Pretended card")
"""


def rows(text):
    """Return what is printed, as pairs of name and value."""
    found = re.findall(r"^  (\S.*?)  +(\S.*)$", text, flags=re.MULTILINE)
    assert found
    return found


@pytest.mark.skipif(os.name == "nt", reason="the driver's program is a shell script")
def test_the_command_shows_versions_and_gpus(tmp_path):
    (tmp_path / "torch-9.8.7.dist-info").mkdir()
    (tmp_path / "torch-9.8.7.dist-info/METADATA").write_text(
        "Name: torch\nVersion: 9.8.7\n"
    )
    (tmp_path / "torch.py").write_text(TORCH)
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Card of the driver, 80 GiB, 580.1'\n")
    driver.chmod(0o755)
    paths = [str(tmp_path), *filter(None, sys.path)]
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "3",
    }
    command = [sys.executable, "-m", "skhdkde"]
    printed = rows(subprocess.check_output(command, env=environment, text=True))
    assert ("version", skhdkde.__version__) in printed
    assert ("numpy", np.__version__) in printed
    assert ("OMP_NUM_THREADS", "3") in printed
    assert ("torch", "9.8.7") in printed
    assert ("NVIDIA driver", "Card of the driver, 80 GiB, 580.1") in printed
    assert ("torch", "CUDA 13.7, sees Pretended card") in printed


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_it_says_what_is_not_installed(monkeypatch, no_driver, capsys):
    def version(name, installed=importlib.metadata.version):
        if name in REQUIRED and name != "pykeops":
            return installed(name)
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    main([])
    printed = dict(rows(capsys.readouterr().out))
    missing = {name for name, found in printed.items() if found == "not installed"}
    assert missing == {"pykeops", *(names.split()[0] for names in OPTIONAL)}
    assert printed["NVIDIA driver"] == "none"
    assert any(found.startswith("threads ") for found in printed.values())


def test_it_says_which_of_several_packages_is_installed(monkeypatch, no_driver, capsys):
    def version(name):
        if name == "faiss-gpu":
            return "1.2.3"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    main([])
    assert "  faiss-gpu             1.2.3\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "code, said",
    [
        ("raise SystemExit('a line\\nNo devices were found')", "No devices were found"),
        ("raise SystemExit(9)", "9"),
        (None, ""),
    ],
)
def test_a_driver_that_fails_is_no_failure(code, said, monkeypatch, capsys):
    def run(command, run=subprocess.run, **kwargs):
        program = [sys.executable, "-Sc", code] if code else ["/no/such/program"]
        return run(program, **kwargs)

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    main([])
    failed = dict(rows(capsys.readouterr().out))["NVIDIA driver"]
    assert failed.startswith("failed: ")
    assert said in failed


def test_help(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    assert "python -m skhdkde" in capsys.readouterr().out


def names(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_all_packages_are_asked_for():
    project = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]
    assert names(project["dependencies"]) == set(REQUIRED)
    extras = project["optional-dependencies"]
    optional = {name for extra in EXTRAS for name in names(extras[extra])}
    assert optional <= {name for names in OPTIONAL for name in names.split()}
