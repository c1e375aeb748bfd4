"""Look into what was built: ``python release/check.py dist/*``.

The wheel holds the package, its licence and nothing else; the sdist what tests and pages
need. The description, as PyPI shows it, has no link that leads nowhere. What is wrong is
printed, and makes the exit status 1. Needs ``readme-renderer[md]``, which twine brings.
"""

import email
import pathlib
import re
import sys
import tarfile
import zipfile

from readme_renderer import markdown

IN_WHEEL = {"skhdkde/__init__.py", "skhdkde/__main__.py", "skhdkde/py.typed"}
IN_SDIST = {
    "CHANGELOG.rst",
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "benchmarks/README.md",
    "doc/conf.py",
    "examples/plot_quickstart.py",
    "release/recipe/recipe.yaml",
    "skhdkde/py.typed",
    "tests/conftest.py",
}


def faults_of_wheel(path):
    """Yield what is wrong with a wheel."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        message = email.message_from_bytes(wheel.read(metadata))
    info = metadata.removesuffix("METADATA")
    yield from (f"{name} is missing" for name in IN_WHEEL - names)
    strange = [name for name in names if not name.startswith(("skhdkde/", info))]
    yield from (f"{name} does not belong here" for name in strange)
    if f"{info}licenses/LICENSE" not in names:
        yield "the licence is missing"
    yield from faults_of_description(message)


def faults_of_sdist(path):
    """Yield what is wrong with an sdist."""
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        root = sdist.getnames()[0].partition("/")[0]
        metadata = sdist.extractfile(f"{root}/PKG-INFO").read()
    yield from (f"{name} is missing" for name in IN_SDIST - names)
    generated = ("doc/_build", "doc/auto_examples", "doc/api/generated")
    yield from (f"{name} was generated" for name in names if name.startswith(generated))
    yield from faults_of_description(email.message_from_bytes(metadata))


def faults_of_description(message):
    """Yield links of the description that lead nowhere on PyPI."""
    page = markdown.render(message.get_payload(decode=True).decode())
    if not page or "<h1" not in page:
        yield "the description is missing, or cannot be rendered"
        return
    places = {f"#{name}" for name in re.findall(r'\bid="([^"]*)"', page)}
    for target in re.findall(r'\b(?:href|src|srcset)="([^"]*)"', page):
        if not target.startswith("https://") and target not in places:
            yield f"the description links to {target}"


def main(paths):
    """Print what is wrong; return whether anything is."""
    if len(paths) != 2 or {path.suffix for path in paths} != {".whl", ".gz"}:
        sys.exit("Name one wheel and one sdist.")
    n_faults = 0
    for path in paths:
        faults = faults_of_wheel if path.suffix == ".whl" else faults_of_sdist
        for fault in sorted(faults(path)):
            print(f"{path.name}: {fault}")
            n_faults += 1
    print(f"{len(paths)} files, {n_faults} faults")
    return n_faults > 0


if __name__ == "__main__":
    sys.exit(main([pathlib.Path(argument) for argument in sys.argv[1:]]))
