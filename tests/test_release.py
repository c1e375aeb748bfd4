"""Check that the conda recipe and the page on PyPI agree with the repository."""

import hashlib
import importlib.util
import pathlib
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIG["project"]
# Names that differ on conda-forge.
ON_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "dask": "dask-core"}
EXTRAS = ("torch", "neighbors", "dask", "plot")


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"release/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe():
    text = (ROOT / "release/recipe/recipe.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def bounds(requirements):
    """Return names on conda-forge with the versions that requirements admit."""
    found = map(Requirement, requirements)
    return {ON_CONDA.get(one.name, one.name): str(one.specifier) for one in found}


def conda_bounds(requirements):
    return dict(line.partition(" ")[::2] for line in requirements)


def test_recipe_requires_what_the_package_requires(recipe):
    *everywhere, choice = recipe["requirements"]["run"]
    assert choice["if"] == "unix"
    on_unix, on_windows = choice["then"], choice["else"]
    assert on_unix.pop(0) == "__unix"
    assert on_windows == ["__win"]
    assert everywhere.pop(0) == "python >=${{ python_min }}"
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    required = list(map(Requirement, PROJECT["dependencies"]))
    only_unix = [one for one in required if one.marker]
    assert {str(one.marker) for one in only_unix} == {'sys_platform != "win32"'}
    assert conda_bounds(on_unix) == bounds(map(str, only_unix))
    assert conda_bounds(everywhere) == bounds(
        str(one) for one in required if not one.marker
    )


def test_recipe_admits_the_optional_packages_that_extras_do(recipe):
    extras = PROJECT["optional-dependencies"]
    wanted = bounds(line for extra in EXTRAS for line in extras[extra])
    assert conda_bounds(recipe["requirements"]["run_constraints"]) == wanted


def test_recipe_builds_with_what_the_package_builds_with(recipe):
    python, pip, *backend = recipe["requirements"]["host"]
    assert (python, pip) == ("python ${{ python_min }}.*", "pip")
    assert conda_bounds(backend) == bounds(CONFIG["build-system"]["requires"])


def test_recipe_says_what_the_project_says(recipe):
    about = recipe["about"]
    assert about["summary"] == PROJECT["description"]
    assert about["license"] == PROJECT["license"]
    assert [about["license_file"]] == PROJECT["license-files"]
    for files in recipe["tests"][1]["files"]["source"]:
        assert (ROOT / files).is_file()


def test_recipe_of_an_sdist(tmp_path):
    sdist = tmp_path / "skhdkde-1.2.3.tar.gz"
    sdist.write_bytes(b"what was built")
    loaded("recipe").write(sdist, tmp_path / "skhdkde", "somebody")
    written = yaml.safe_load((tmp_path / "skhdkde/recipe.yaml").read_text())
    assert written["context"]["version"] == "1.2.3"
    assert written["source"]["sha256"] == hashlib.sha256(b"what was built").hexdigest()
    assert written["extra"]["recipe-maintainers"] == ["somebody"]
    assert (tmp_path / "skhdkde/conda-forge.yml").is_file()


README = """# A title
[![a badge](doc/badge.svg)](LICENSE) and ![a picture](doc/a.png), drawn
[page](doc/page.rst), [site](../../deployments/github-pages), [with [brackets]](a.md#part)
[elsewhere](https://docs.dask.org), [below](#part)
```python
f[0](x)
```
"""
AT_HOME = """# A title
 and , drawn
page, site, with [brackets]
[elsewhere](https://docs.dask.org), [below](#part)
```python
f[0](x)
```
"""
PUBLISHED = """# A title
[![a badge](https://g.org/o/r/raw/abc/doc/badge.svg)]\
(https://g.org/o/r/blob/abc/LICENSE) \
and ![a picture](https://g.org/o/r/raw/abc/doc/a.png), drawn
[page](https://g.org/o/r/blob/abc/doc/page.rst), \
[site](https://g.org/o/r/deployments/github-pages), \
[with [brackets]](https://g.org/o/r/blob/abc/a.md#part)
[elsewhere](https://docs.dask.org), [below](#part)
```python
f[0](x)
```
"""


@pytest.fixture
def metadata(monkeypatch):
    pytest.importorskip("hatchling")
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA"):
        monkeypatch.delenv(name, raising=False)

    def read(root):
        found = {}
        loaded("metadata").Metadata(str(root), {}).update(found)
        return found

    return read


def test_description_without_a_repository(metadata, tmp_path):
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    found = metadata(tmp_path)
    assert found["readme"]["text"] == AT_HOME
    assert found["urls"] == {}


def test_description_where_the_repository_is_known(metadata, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://g.org")
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
    monkeypatch.setenv("GITHUB_SHA", "abc")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    found = metadata(tmp_path)
    assert found["readme"]["text"] == PUBLISHED
    assert found["urls"]["Source"] == "https://g.org/o/r"


def test_description_has_no_relative_links(metadata):
    """Check that no link leads nowhere, in Markdown, in HTML, or by reference."""
    text = re.sub(
        r"^```.*?^```$", "", metadata(ROOT)["readme"]["text"], flags=re.M | re.S
    )
    links = r"""\]\(([^)\s]+)|^\[[^\]]+\]:\s*(\S+)|(?:href|src|srcset)=["']([^"']+)"""
    targets = ["".join(groups) for groups in re.findall(links, text, flags=re.M)]
    assert targets
    assert [one for one in targets if not one.startswith(("https://", "#"))] == []
