"""Sphinx configuration; ``sphinx-build -W --keep-going -b html doc doc/_build/html``."""

import dataclasses
import inspect
import os
import pathlib
import pydoc
import sys

from sphinx_gallery.sorting import ExplicitOrder

import skhdkde

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_ext"))

project = "skhdkde"
author = "The skhdkde developers"
copyright = author
version = release = skhdkde.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # pages with formulas load nothing from elsewhere
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",  # for the tables of benchmarks/results
    "measured",  # numbers from there: benchmarks/quote.py explains
]
source_suffix = {".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"  # the class is the page

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("skhdkde",),
    "subsection_order": [
        f"../examples/{name}" for name in ("questions", "further", "regimes")
    ],
    # what a newcomer asks first comes first; an example not named here comes last
    "within_subsection_order": ExplicitOrder(
        "plot_quickstart.py plot_overview.py plot_outliers.py plot_embeddings.py "
        "plot_kernel_density.py plot_stack.py plot_anomalies.py plot_two_samples.py "
        "plot_regions.py plot_classifier.py plot_conditional.py plot_table.py "
        "plot_memorisation.py plot_subsampling.py plot_scaling.py plot_error_bars.py "
        "plot_digits_regimes.py plot_kl_bandwidth.py plot_phase_diagram.py "
        "plot_covariance_spectrum.py plot_three_laws.py *".split()
    ),
    "remove_config_comments": True,
    "capture_repr": (),
    "show_memory": False,
    "thumbnail_size": (480, 336),
    "write_computation_times": False,
    "abort_on_example_error": True,
}

plot_include_source = True
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 120)]
plot_rcparams = {"savefig.bbox": "tight"}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = f"skhdkde {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_show_sourcelink = False
html_theme_options = {
    "logo": {
        "text": project,
        "image_light": "_static/logo-light.svg",
        "image_dark": "_static/logo-dark.svg",
    },
    "navbar_start": ["navbar-logo", "version"],
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["version"],
}
html_sidebars = {page: [] for page in ("index", "benchmarks", "developers", "changelog")}

# The workflow that publishes knows where it runs: links to the source.
if "GITHUB_REPOSITORY" in os.environ:
    repository = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format(**os.environ)
    icon = {"name": "Repository", "url": repository, "icon": "fa-brands fa-github"}
    html_theme_options["icon_links"] = [icon]
    extensions.append("sphinx.ext.linkcode")


def linkcode_resolve(domain, info):
    """Return where the source of an object is shown."""
    found = pydoc.locate(f"{info['module']}.{info['fullname']}")
    if isinstance(found, property):
        found = found.fget
    try:
        file = inspect.getsourcefile(inspect.unwrap(found))
        lines, first = inspect.getsourcelines(found)
    except TypeError:  # data
        return None
    root = pathlib.Path(skhdkde.__file__).parent.parent
    path = pathlib.Path(file)
    if not path.is_relative_to(root / "skhdkde"):  # inherited from scikit-learn
        return None
    place = f"{path.relative_to(root).as_posix()}#L{first}-L{first + len(lines) - 1}"
    return f"{repository}/blob/{os.environ['GITHUB_SHA']}/{place}"


def setup(app):
    app.connect("autodoc-process-signature", _without_constructor)


def _without_constructor(app, what, name, obj, options, signature, annotation):
    """No signature for results, which users are given and do not construct."""
    return ("", None) if dataclasses.is_dataclass(obj) else None
