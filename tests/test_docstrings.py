"""Docstrings of all public objects are complete, as numpydoc sees it."""

import dataclasses
import functools
import inspect
import pydoc

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import ERROR_MSGS, validate

import skhdkde
import skhdkde.dask

# What numpydoc may miss, and why.
ANYWHERE = {
    "GL01": "summaries begin beside the quotes, which numpydoc allows from 1.11 on",
    "ES01": "where the summary says it all, a second paragraph would be padding",
    "RT02": "return values have names, as in scikit-learn",
}
IN_METHODS_AND_MODULES = {
    "SA01": "the class, or what is in the module, says what to see also",
    "EX01": "the class, or what is in the module, has examples",
}
IN_DATACLASSES = {
    "PR01": "users get these objects from functions; their fields are Attributes, which "
    "test_attributes_are_described compares with the fields",
}
# Data, which have no docstrings of their own: a scorer and a tuple. numpydoc would read
# those of their classes.
DATA = {"skhdkde.kl_scorer", "skhdkde.regimes.REGIMES"}


def exported(module, name):
    """Names and objects of a module's ``__all__``, and of the modules in it."""
    for attribute in module.__all__:
        found = getattr(module, attribute)
        yield f"{name}.{attribute}", found
        if inspect.ismodule(found):
            yield from exported(found, f"{name}.{attribute}")


def methods(cls, name):
    """Public methods and properties that the package defines.

    Others are scikit-learn's; so are ``set_fit_request`` and ``set_score_request``.
    """
    for attribute in inspect.classify_class_attrs(cls):
        found = attribute.object
        if isinstance(found, (classmethod, staticmethod)):
            # numpydoc does not look at what a bound method returns
            found = function = found.__func__
        elif isinstance(found, property):
            function = found.fget
        else:
            function = getattr(found, "func", found)  # of a cached property
        hidden = attribute.name.startswith("_") or not inspect.isroutine(function)
        if not hidden and function.__module__.startswith("skhdkde"):
            yield f"{name}.{attribute.name}", found


TOP = dict(exported(skhdkde, "skhdkde"))
TOP |= dict(exported(skhdkde.dask, "skhdkde.dask"))
DOCUMENTED = {name: found for name, found in TOP.items() if name not in DATA}
CLASSES = {name: found for name, found in TOP.items() if inspect.isclass(found)}
METHODS = dict(pair for name, cls in CLASSES.items() for pair in methods(cls, name))


def test_collection_is_complete():
    assert set(TOP) >= DATA | {
        "skhdkde.BandwidthDisplay",
        "skhdkde.BandwidthSearch",
        "skhdkde.DataReport",
        "skhdkde.DensityClassifier",
        "skhdkde.DensityOutlierDetector",
        "skhdkde.Diagnosis",
        "skhdkde.HighDimKernelDensity",
        "skhdkde.RegimeDisplay",
        "skhdkde.dask.DaskHighDimKernelDensity",
        "skhdkde.make_kl_scorer",
        "skhdkde.regimes",
        "skhdkde.regimes.GaussianThresholds",
        "skhdkde.regimes.SphereThresholds",
        "skhdkde.regimes.expected_participation",
        "skhdkde.regimes.extreme_spread",
        "skhdkde.regimes.gaussian_thresholds",
        "skhdkde.regimes.sphere_thresholds",
        "skhdkde.select_bandwidth",
    }
    assert set(METHODS) >= {
        "skhdkde.BandwidthDisplay.plot",
        "skhdkde.Diagnosis.shares",
        "skhdkde.RegimeDisplay.from_estimator",
        "skhdkde.regimes.GaussianThresholds.kl",
        *(
            f"{name}.{method}"
            for name in (
                "skhdkde.HighDimKernelDensity",
                "skhdkde.dask.DaskHighDimKernelDensity",
            )
            for method in (
                "fit",
                "score_samples",
                "score",
                "diagnose",
                "sample",
                "log_density_gradient",
            )
        ),
    }
    for name, found in DOCUMENTED.items():
        kinds = inspect.isclass, inspect.isfunction, inspect.ismodule
        assert any(kind(found) for kind in kinds), f"{name}: has it a docstring?"


def test_exceptions_are_checks_of_numpydoc():
    assert {*ANYWHERE, *IN_METHODS_AND_MODULES, *IN_DATACLASSES} <= set(ERROR_MSGS)


@pytest.mark.parametrize("name", [*DOCUMENTED, *METHODS])
def test_numpydoc_finds_nothing_missing(name):
    found = METHODS[name] if name in METHODS else DOCUMENTED[name]
    accepted = set(ANYWHERE)
    if name in METHODS or inspect.ismodule(found):
        accepted |= set(IN_METHODS_AND_MODULES)
    if name in CLASSES and dataclasses.is_dataclass(found):
        accepted |= set(IN_DATACLASSES)
    errors = validate(get_doc_object(found))["errors"]
    assert [error for error in errors if error[0] not in accepted] == []


@pytest.mark.parametrize(
    "name", [n for n, v in DOCUMENTED.items() if not inspect.ismodule(v)]
)
def test_example_and_see_also(name):
    """There is an example, which is run as a doctest, and what to see also exists."""
    doc = get_doc_object(DOCUMENTED[name])
    assert any(line.startswith(">>> ") for line in doc["Examples"])
    module = name.rpartition(".")[0]
    targets = [target for items, _ in doc["See Also"] for target, _ in items]
    for target in targets:
        assert pydoc.locate(f"{module}.{target}") or pydoc.locate(target), target


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_are_described(name):
    cls = CLASSES[name]
    # without what numpydoc adds by itself
    doc = get_doc_object(cls, config={"show_class_members": False})
    described = {}
    for names, kind, text in doc["Attributes"]:
        assert kind, names
        assert text, names
        described |= dict.fromkeys(names.split(", "))
    if dataclasses.is_dataclass(cls):
        fields = {f.name for f in dataclasses.fields(cls) if not f.name.startswith("_")}
        properties = (property, functools.cached_property)
        own = {k for k, found in vars(cls).items() if isinstance(found, properties)}
        assert set(described) == fields | own
