"""The README: its example prints what it says, and it stays short."""

import contextlib
import io
import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_example_prints_what_it_says():
    text = README.read_text()
    code, printed = re.search(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S
    ).groups()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    assert out.getvalue() == printed


def test_it_can_be_read_in_a_few_minutes():
    assert len(README.read_text().splitlines()) <= 130
