"""What pages of the guide promise of their lines and figures."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

DOC = pathlib.Path(__file__).resolve().parent.parent / "doc"


def blocks(page, language):
    """Return the blocks of code of a page, in order."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)"
    found = re.findall(pattern, (DOC / page).read_text(), flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in found]


def write_wines():
    """Write the table of the page to data.csv, by the lines that the page has for it."""
    exec(blocks("first_density.rst", "python")[1], {})


def write_odd_columns():
    """Write a table of all kinds of columns, some of them of no use."""
    pd, rng = pytest.importorskip("pandas"), np.random.default_rng(0)
    spent = rng.gamma(2.0, 10.0, size=120)
    spent[::17] = np.nan
    columns = {
        "spent": spent,
        "visits": rng.poisson(3.0, size=120),
        "member": rng.uniform(size=120) < 0.3,
        "currency": 1.0,
        "city": rng.choice(["Oslo", "Lima"], size=120),
        "since": pd.date_range("2020-01-01", periods=120),
    }
    pd.DataFrame(columns).to_csv("data.csv", index=False)


def check_samples(n_columns):
    samples = np.loadtxt("samples.csv", delimiter=",", skiprows=1)
    assert samples.shape == (1000, n_columns)
    assert np.isfinite(samples).all()


def test_first_script_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    write_wines()
    lines = blocks("first_density.rst", "python")[0]
    assert len([line for line in lines.splitlines() if line]) <= 14
    exec(lines, {})
    assert capsys.readouterr().out == blocks("first_density.rst", "text")[0]
    check_samples(13)


def test_first_script_takes_a_table_as_it_comes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_odd_columns()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(blocks("first_density.rst", "python")[0], {})
    assert any("X has NaN" in str(warning.message) for warning in caught)
    assert any("'currency'" in str(warning.message) for warning in caught)
    assert "30 new rows" in capsys.readouterr().out
    check_samples(4)


@pytest.mark.slow
def test_first_script_takes_less_than_a_minute(tmp_path, monkeypatch):
    """Hold the script to one of the page's three minutes; the others are to install."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    write_wines()
    (tmp_path / "first.py").write_text(blocks("first_density.rst", "python")[0])
    start = time.monotonic()
    subprocess.run([sys.executable, "first.py"], check=True)
    assert time.monotonic() - start < 60.0
    check_samples(13)


def test_the_figure_of_choices_is_what_its_script_draws():
    spec = importlib.util.spec_from_file_location("figure", DOC / "decision_figure.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = (DOC / "_static" / "choosing.svg").read_text().strip()
    assert drawn == script.figure(), (
        "run: python doc/decision_figure.py > doc/_static/choosing.svg"
    )
