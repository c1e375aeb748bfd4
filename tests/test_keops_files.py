"""What KeOps keeps on disk survives processes that are killed while they write it."""

import importlib.util
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from skhdkde._pairwise import keops_files

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="KeOps does not run on Windows"),
    pytest.mark.skipif(
        importlib.util.find_spec("pykeops") is None, reason="pykeops is not installed"
    ),
    pytest.mark.skipif(
        not any(map(shutil.which, ["g++", "clang++", os.environ.get("CXX", "g++")])),
        reason="no C++ compiler, which KeOps needs",
    ),
]

# The only formula of these tests.
NEAREST = """
import numpy as np
from skhdkde._pairwise import ComputeOptions, KSmallest, TrainingPoints, reduce_pairs
from skhdkde._pairwise import keops_runtime
points = TrainingPoints(np.arange(5.0)[:, None])
queries = points.as_queries(np.array([[2.25]]))
found = reduce_pairs(KSmallest(1, 1e-9), queries, points, ComputeOptions("keops"))
assert found / points.scale**2 == 0.25**2, found
"""
TABLES = ["LoadKeOps_cpp_class_cache.pkl", "get_keops_dll_impl_cache.pkl"]
# Tables of this size take some milliseconds to write.
AT_THE_END = """
import atexit, glob, os, pickle, signal, sys, time
from keopscore.get_keops_dll import get_keops_dll
from pykeops.common.keops_io.LoadKeOps_cpp import LoadKeOps_cpp
for table in (get_keops_dll.library, LoadKeOps_cpp.library_params):
    table.update({f"{i}": "some parameters" * 10 + str(i) for i in range(2000)})

def ending():
    child = os.fork()
    if child == 0:
        atexit._run_exitfuncs()
        os._exit(0)
    return child

def check():
    for path in glob.glob(os.environ["KEOPS_CACHE_FOLDER"] + "/*/*_cache.pkl"):
        with open(path, "rb") as file:
            pickle.load(file)

start = time.perf_counter()
os.waitpid(ending(), 0)
duration = time.perf_counter() - start
check()
"""


def run(code, folder, **environment):
    """A fresh process whose KeOps has a cache of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KEOPS_CACHE_FOLDER": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def check_silent(result):
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory):
    """A compiler that does not optimise, and keeps what it has compiled."""
    path = tmp_path_factory.mktemp("compiler") / "quick-c++"
    path.write_text(f"""#!/bin/sh
for library; do :; done  # the last argument
kept={path.parent}/$(basename $library)
[ -f $kept ] || g++ "$@" -O0 -fno-lto -o $kept
cp $kept $library
""")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, quick_compiler):
    """A cache in which the formula is compiled."""
    folder = tmp_path_factory.mktemp("keops")
    check_silent(run(NEAREST, folder, CXX=quick_compiler))
    return folder


@pytest.fixture
def cache(compiled, tmp_path):
    """A copy of it: KeOps knows what it has compiled wherever it finds it."""
    return shutil.copytree(compiled, tmp_path / "cache")


def build_folder(cache):
    (folder,) = (path for path in cache.iterdir() if path.name != "skhdkde_locks")
    return folder


def test_empty_tables_are_put_aside_with_a_warning(cache, quick_compiler):
    folder = build_folder(cache)
    libraries = {path: path.stat().st_mtime_ns for path in folder.glob("*.so")}
    for name in TABLES:
        (folder / name).write_bytes(b"")
    result = run(NEAREST, cache, CXX=quick_compiler)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Warning") == 1
    assert all(
        f"{folder / name} is now {name}.broken" in result.stderr for name in TABLES
    )
    assert all((folder / f"{name}.broken").exists() for name in TABLES)
    # what is compiled serves
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.so")} == libraries
    check_silent(run(NEAREST, cache, CXX=quick_compiler))


TABLE = pickle.dumps({f"formula {i}": ("params", i, b"", None) for i in range(20)})


@examples(50)
@given(content=st.integers(0, len(TABLE) - 1).map(lambda n: TABLE[:n]) | st.binary())
def test_whatever_is_no_table_is_put_aside(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("tables")
    good, bad = folder / "good_cache.pkl", folder / "bad_cache.pkl"
    good.write_bytes(TABLE), bad.write_bytes(content)
    with pytest.warns(UserWarning, match=r"bad_cache.pkl is now bad_cache.pkl.broken\."):
        keops_files.put_aside_broken_tables(folder)
    assert {path.name for path in folder.iterdir()} == {good.name, f"{bad.name}.broken"}
    keops_files.put_aside_broken_tables(folder)  # the second time, no warning


def test_tables_are_whole_when_an_end_is_killed(cache):
    """At moments spread evenly over the time that it takes."""
    code = f"""{NEAREST}{AT_THE_END}
for moment in range(30):
    child = ending()
    time.sleep(duration * moment / 30)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    check()
"""
    check_silent(run(code, cache))
    left = {path.name for path in build_folder(cache).glob("*.pkl*")}
    assert left <= {*TABLES, f"{TABLES[1]}.new"}


def test_tables_are_whole_when_several_end_at_once(cache):
    code = f"""{NEAREST}{AT_THE_END}
for _ in range(3):
    children = [ending() for _ in range(4)]
    stop = time.perf_counter() + 2 * duration
    while time.perf_counter() < stop:
        check()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    check()
"""
    check_silent(run(code, cache))
    assert {path.name for path in build_folder(cache).glob("*.pkl*")} <= set(TABLES)


def leave_half_a_library(folder):
    (library,) = folder.glob("*.so")
    library.write_bytes(library.read_bytes()[:1000])


def leave_half_of_the_code(folder):
    for path in [*folder.glob("*.nfo"), *folder.glob("*.so")]:
        path.unlink()
    for path in folder.glob("*.cpp"):
        path.write_bytes(path.read_bytes()[:100])


def leave_an_empty_description(folder):
    leave_half_of_the_code(folder)
    (code,) = (path for path in folder.glob("*.cpp") if "_" not in path.name)
    code.with_suffix(".nfo").write_bytes(b"")


@pytest.mark.parametrize(
    "leave", [leave_half_a_library, leave_half_of_the_code, leave_an_empty_description]
)
def test_unfinished_compilations_are_begun_again(leave, cache, quick_compiler):
    """As of a process that was killed, which leaves the file behind its lock."""
    folder = build_folder(cache)
    leave(folder)
    (lock,) = (
        path for path in (cache / "skhdkde_locks").iterdir() if len(path.name) == 64
    )
    lock.write_text("not finished")
    for path in folder.glob("*.pkl"):
        path.unlink()
    check_silent(run(NEAREST, cache, CXX=quick_compiler))
    assert lock.read_text() == ""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, quick_compiler):
    """From the start, over the compilation, to the end: the next one works in silence."""
    rng = np.random.default_rng(0)
    start = time.monotonic()
    check_silent(run(NEAREST, tmp_path / "first", CXX=quick_compiler))
    duration = time.monotonic() - start
    cache = tmp_path / "cache"
    environment = {**os.environ, "KEOPS_CACHE_FOLDER": str(cache), "CXX": quick_compiler}
    for moments in rng.permutation(np.linspace(0.3, 1.1, 6)).reshape(2, 3) * duration:
        shutil.rmtree(cache, ignore_errors=True)
        for moment in moments:
            process = subprocess.Popen(
                [sys.executable, "-c", NEAREST], env=environment, start_new_session=True
            )
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)  # the compiler as well
            process.wait()
        check_silent(run(NEAREST, cache, CXX=quick_compiler))
        assert not list(pathlib.Path(cache).glob("*/*.broken"))
