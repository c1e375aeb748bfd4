"""The gallery: titles are questions, and pages name examples and figures that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "doc/conf.py", *sorted((ROOT / "doc").glob("*.rst"))]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_title_is_a_question(example):
    opening, title, rule = example.read_text().splitlines()[:3]
    assert opening in ('"""', 'r"""')
    assert title.endswith("?")
    assert rule == "=" * len(title)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_names_examples_that_exist(page):
    text = page.read_text()
    in_folders = re.findall(r"(?:auto_)?examples/((?:\w+/)?plot_\w+)", text)
    by_name = re.findall(r"\b(plot_\w+)\.py", text)
    places = {str(path.relative_to(ROOT / "examples"))[:-3] for path in EXAMPLES}
    assert set(in_folders) <= places
    assert set(by_name) <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_shows_figures_that_are_drawn(page):
    shown = re.findall(r"(?:(\w+)/)?images/sphx_glr_(plot_\w+)_(\d{3})", page.read_text())
    for folder, name, number in shown:
        inner = "" if folder == "auto_examples" else folder
        example = ROOT / "examples" / inner / f"{name}.py"
        drawn = example.read_text().split("# sphinx_gallery_start_ignore")[0]
        assert int(number) <= len(re.findall(r"plt\.(?:subplots|figure)\(", drawn))
