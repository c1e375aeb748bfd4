"""Numbers on pages are those of benchmarks/results; a number that is not is found."""

import importlib.util
import pathlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("quote", ROOT / "benchmarks" / "quote.py")
quote = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quote)

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
RST, MARKDOWN = ":measured:`{} <{}>`", "{}<!-- measured: {} -->"
SPEED = """- command: `python speed.py`

Speed

| estimator | d | seconds | ratio | rank | rank |
| --- | --- | --- | --- | --- | --- |
| ours, `"kl"` | 2 | 0.034 | 1.00 | 1.5 | 2.5 |
| theirs | 2 | 1,182 | 37 times | -0.25 | |
| theirs | 37 | 2.7 (0.1) | 96 % | 4.8e-05 | 3 |

Slow

| estimator | seconds |
| --- | --- |
| ours, `"kl"` | 7 |
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "speed.md").write_text(SPEED, encoding="utf-8")
    return folder


def test_every_number_on_the_pages_is_that_of_its_results_file():
    wrong = []
    for path in quote.pages():
        page = path.read_text(encoding="utf-8")
        _, *found = quote.rewrite(page, markdown=path.suffix == ".md")
        name = path.relative_to(ROOT)
        wrong += [f"{name}:{line}: {text}" for part in found for line, text in part]
    assert not wrong, "Run python benchmarks/quote.py:\n" + "\n".join(wrong)


def test_pages_quote_numbers():
    """The test above has numbers to look at, and sees all of them."""
    page = (ROOT / "doc" / "benchmarks.rst").read_text(encoding="utf-8")
    found = quote.find_quotes(page, markdown=False)
    assert len(found) == page.count(":measured:") > 20


def test_results_say_when_and_by_what_they_were_made():
    for path in RESULTS:
        start = path.read_text(encoding="utf-8").splitlines()[:4]
        heads = [
            "- command: `python benchmarks/",
            "- date: 20",
            "- machine: ",
            "- versions: ",
        ]
        for line, head in zip(start, heads, strict=True):
            assert line.startswith(head), path.name
        assert f"results/{path.name}" in (ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize("form", [RST, MARKDOWN])
@pytest.mark.parametrize(
    "text, source",
    [
        ("0.034", 'speed#1; ours, "kl"; seconds'),
        ("34", 'speed#1; ours, "kl"; seconds; *1000'),
        ("0.03", 'speed#1; ours, "kl"; 2; seconds'),
        ("7", 'speed#2; ours, "kl"; seconds'),
        ("1,182", "speed; theirs; 2; seconds"),
        ("1182.0", "speed; 2; theirs; seconds"),
        ("1.18", "speed; theirs; 2; seconds; /1000"),
        ("2.7", "speed; theirs; 37; seconds"),  # not the row whose ratio is 37
        ("37", "speed; theirs; 2; ratio"),
        ("2.7", "speed; d=37; seconds"),
        ("0.96", "speed; theirs; 37; ratio; /100"),
        ("1.5", 'speed; ours, "kl"; rank#1'),
        ("3", 'speed; ours, "kl"; rank#2'),  # 2.5, half up
        ("-0.25", "speed; theirs; 2; rank#1"),
        ("0.3", "speed; theirs; 2; rank#1; *-1"),
        ("0", "speed; theirs; 2; rank#1"),  # no -0
        ("+3.00", "speed; theirs; 37; rank#2"),
        ("4.8e-5", "speed; theirs; 37; rank#1"),
        ("5e-5", "speed; theirs; 37; rank#1"),
    ],
)
def test_right_numbers_stay_and_wrong_ones_are_put_right(results, form, text, source):
    markdown = form is MARKDOWN
    right = f"It took\n({form.format(text, source)} s)."
    assert quote.rewrite(right, markdown=markdown, results=results) == (right, [], [])
    wrong = re.sub(r"\d(?=\D*$)", lambda digit: str(9 - int(digit[0])), text)
    assert wrong != text
    page, differences, errors = quote.rewrite(
        right.replace(text, wrong, 1), markdown=markdown, results=results
    )
    assert page == right
    assert not errors
    ((line, message),) = differences
    assert line == 2
    assert wrong in message
    assert text in message


@pytest.mark.parametrize("form", [RST, MARKDOWN])
@pytest.mark.parametrize(
    "text, source, names",
    [
        ("0.03", 'speed; ours, "kl"; seconds', ["speed#1", "speed#2", "any of 2"]),
        ("0.03", "speed; theirs; seconds", ["1,182", "2.7 (0.1)"]),
        ("1.5", 'speed; ours, "kl"; rank', ["rank#1", "rank#2"]),
        ("1.5", 'speed; ours, "kl"; rank#3', ["no table"]),
        ("1.5", "speed; theirs; d=3; ratio", ["'d=3'"]),
        ("1.5", "speed; thiers; 2; ratio", ["'thiers'", "'theirs'"]),
        ("1.5", "speed; theirs; 2; second", ["'second'", "'seconds'"]),
        ("1.5", "speed#2; theirs; seconds", ["no table"]),
        ("1.5", "speed; theirs; 1.00; ratio", ["No row"]),
        ("1.5", "sped; theirs; 2; seconds", ["sped.md", "speed"]),
        ("1.5", "speed; theirs; 2; rank#2", ["no number"]),
        ("1.5", "speed", ["file; cells"]),
        ("1.5", "speed; ; seconds", ["file; cells"]),
        ("fast", "speed; theirs; 2; seconds", ["'fast' is no number"]),
        ("1,182s", "speed; theirs; 2; seconds", ["is no number"]),
        ("", "speed; theirs; 2; seconds", ["is no number"]),
    ],
)
def test_a_quote_of_no_single_number_is_an_error(results, form, text, source, names):
    page = f"\n\n{form.format(text, source)}"
    new, differences, errors = quote.rewrite(
        page, markdown=form is MARKDOWN, results=results
    )
    assert new == page
    assert not differences
    ((line, message),) = errors
    assert line == 3
    for name in names:
        assert name in message


def test_a_role_without_a_source_is_an_error(results):
    _, _, errors = quote.rewrite("\n:measured:`0.3`", markdown=False, results=results)
    assert [line for line, _ in errors] == [2]


def test_a_role_in_bold_text_is_an_error(results):
    page = "**:measured:`37 <speed; theirs; 2; ratio>` times**"
    new, _, errors = quote.rewrite(page, markdown=False, results=results)
    assert new == page
    assert [line for line, _ in errors] == [1]


def test_a_quote_may_go_over_lines(results):
    role = ":measured:`38 <speed; theirs;\n   2; ratio>` and 38"
    new, _, _ = quote.rewrite(role, markdown=False, results=results)
    assert new == role.replace("38 <", "37 <")
    bold = "| **38**<!-- measured: speed;\ntheirs; 2; ratio --> times |"
    new, _, _ = quote.rewrite(bold, markdown=True, results=results)
    assert new == bold.replace("38", "37")


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.decimals(min_value=-10_000, max_value=10_000, places=4),
    st.integers(0, 4),
    st.booleans(),
)
def test_rounding_is_within_half_a_unit_of_the_last_place(value, places, comma):
    text = f"{'1,000' if comma else '1'}{'.' * (places > 0)}{'0' * places}"
    shown = quote.written(value, text)
    assert len(shown.partition(".")[2]) == places
    assert ("," in shown) == (comma and abs(float(shown.replace(",", ""))) >= 1000)
    assert 2 * abs(quote.decimal.Decimal(shown.replace(",", "")) - value) <= 10**-places


def test_bare_numbers_are_those_in_prose():
    page = """It took 3 ms, :measured:`4 <a; b>` ms and ``5 s``.

.. code-block:: sh

   sleep 6 s

Then 20,000 points in 7.5 seconds::

    wait 8 s

>>> 9  # 9 s
"""
    assert quote.bare_numbers(page) == [(1, "3 ms"), (7, "7.5 seconds")]
