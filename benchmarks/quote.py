"""Numbers on pages that are quoted from benchmarks/results, and rewritten from there.

A page quotes one cell of a table. In reStructuredText (pages, docstrings, examples)

    :measured:`0.22 <neighbors; 20 at 1; hnsw; neighbors, us/query; /1000>`

shows 0.22 (roles cannot be inside bold text). In Markdown the same is

    0.22<!-- measured: neighbors; 20 at 1; hnsw; neighbors, us/query; /1000 -->

After the number, separated by semicolons:

- the file, without ``.md``. Where several of its tables have such a row and column,
  ``neighbors#2`` is the second table of the file;
- cells of the row, as many as tell it from the others. Each is a whole cell, in another
  column than the one that is quoted. ``d=32`` is the cell 32 in the column d;
- the header of the column. Where a table has it twice, ``found#2`` is the second one;
- a factor, if there is one: ``/1000``, ``*100``, ``*-1``.

Backticks in tables do not count. The first number of the cell is quoted: 0.863 of
"0.863 (0.01)", 37 of "37 times". It is rounded, half up, to as many places as the page
has: "0.22" has two, "2,000" none and keeps its comma, "5e-5" one digit and an exponent.
A plus sign is kept. The two ends of a range are two quotes.

``python benchmarks/quote.py`` rewrites the numbers of all pages, ``--check`` only says
which differ, and ``--bare`` lists numbers with a unit that are not quoted. No match, or
more than one, is an error that names what could have been meant.
"""

import argparse
import dataclasses
import decimal
import difflib
import functools
import pathlib
import re
import sys

__all__ = [
    "bare_numbers",
    "describe",
    "file_name",
    "find_quotes",
    "pages",
    "rewrite",
    "shown",
]

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [
    "README.md",
    "benchmarks/README.md",
    "doc/*.rst",
    "skhdkde/**/*.py",
    "examples/**/*.py",
]
NUMBER = re.compile(r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")
RST = re.compile(r":measured:`(?P<text>[^`<]*)(?:<(?P<source>[^`]*)>)?`?")
MARKDOWN = re.compile(
    r"(?P<text>[^\s|(*<>]*)\**<!--\s*measured:(?P<source>.*?)-->", flags=re.DOTALL
)
FACTOR = re.compile(r"([*/])\s*(-?[\d.]+(?:e[+-]?\d+)?)")
UNITS = "ns|us|µs|ms|s|MiB|GiB|MB|GB|nats|times|seconds|minutes|hours|percent|per cent|%"
BARE = re.compile(rf"(?<![\w.,-])[+-]?\d[\d,.]*(?:e-?\d+)?\s+(?:{UNITS})(?!\w)")


@dataclasses.dataclass(frozen=True)
class Quote:
    """A number as a page has it, and the cell that it says it is."""

    text: str
    source: str
    start: int
    line: int


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a results file: its headers, and the cells of each row."""

    name: str
    columns: tuple
    rows: tuple


def pages(root=ROOT):
    """Return the files whose numbers are quoted, in order."""
    return [path for pattern in PAGES for path in sorted(root.glob(pattern))]


def find_quotes(page, *, markdown):
    """Return the quotes in the text of a page."""
    return [
        Quote(
            match["text"].strip(),
            " ".join((match["source"] or "").split()),
            match.start("text"),
            page.count("\n", 0, match.start("text")) + 1,
        )
        for match in (MARKDOWN if markdown else RST).finditer(page)
    ]


def rewrite(page, *, markdown, results=RESULTS):
    """Return the text of a page with the numbers of today, and what was wrong before.

    Returns
    -------
    page : str
    differences : list of (int, str)
        Line and message of each number that differs; ``page`` has the right one.
    errors : list of (int, str)
        The same of each quote that names no single number; these stay as they are.
    """
    differences, errors, pieces, end = [], [], [], 0
    for quote in find_quotes(page, markdown=markdown):
        try:
            if not markdown and page[quote.start - len(":measured:`*") :][:1] == "*":
                raise ValueError("A role inside ** ** is not shown: leave the stars out.")
            right = shown(quote.text, quote.source, results)
        except ValueError as error:
            errors.append((quote.line, str(error)))
            continue
        if right != quote.text:
            message = f"{quote.text} should be {right}, by <{quote.source}>"
            differences.append((quote.line, message))
            pieces += [page[end : quote.start], right]
            end = quote.start + len(quote.text)
    return "".join([*pieces, page[end:]]), differences, errors


def shown(text, source, results=RESULTS):
    """Return the number that ``source`` names, rounded and written as ``text`` is.

    Raises ValueError if ``text`` is no number, or ``source`` names none or several.
    """
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number; the unit goes behind the quote.")
    file, cells, column, (sign, factor) = split_source(source)
    cell = find_cell(read_tables(results / file_name(source)), file, cells, column)
    number = NUMBER.search(cell)
    if number is None:
        raise ValueError(f"<{source}> is {cell!r}, which has no number.")
    value = decimal.Decimal(number[0].replace(",", ""))
    return written(value * factor if sign == "*" else value / factor, text)


def describe(source):
    """Return where a number is from, in words for a tooltip."""
    _, cells, column, (sign, factor) = split_source(source)
    scaled = "" if factor == 1 else f" ({sign}{factor})"
    row = ", ".join(cells)
    return f"benchmarks/results/{file_name(source)}: {row}: {column}{scaled}"


def file_name(source):
    """Return the file of results that a quote is from."""
    return re.split("[;#]", source)[0].strip() + ".md"


def split_source(source):
    """Split ``file; cell; ...; column; factor``."""
    parts = [part.strip() for part in source.split(";")]
    factor = FACTOR.fullmatch(parts[-1])
    if factor:
        del parts[-1]
    if len(parts) < 2 or not all(parts):
        raise ValueError(
            f"<{source}> should be <file; cells of the row; column; factor>."
        )
    sign, number = factor.groups() if factor else ("*", "1")
    return parts[0], parts[1:-1], parts[-1], (sign, decimal.Decimal(number))


def written(value, text):
    """Return a decimal number rounded to the digits of ``text``, in its style."""
    mantissa, exponent, _ = text.partition("e")
    style = "+" if text.startswith("+") else "-"
    style += "z," if "," in text else "z"
    style += f".{len(mantissa.partition('.')[2])}{'e' if exponent else 'f'}"
    with decimal.localcontext() as context:
        context.rounding = decimal.ROUND_HALF_UP
        return format(value, style)


@functools.cache
def read_tables(path):
    """Return the tables of a file of results."""
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in path.parent.glob("*.md")))
        raise ValueError(
            f"There is no {path.name} in benchmarks/results; it has {names}."
        )
    blocks, before = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                blocks.append([])
            blocks[-1].append(tuple(map(normal, line.strip().strip("|").split("|"))))
        before = line
    return tuple(
        Table(f"{path.stem}#{number}", columns, tuple(rows))
        for number, (columns, _, *rows) in enumerate(blocks, start=1)
    )


def normal(cell):
    """Return a cell as quotes write it: without backticks, one blank between words."""
    return " ".join(cell.replace("`", "").split())


def find_cell(tables, file, cells, column):
    """Return the one cell that is meant, or raise a ValueError that lists candidates."""
    name, _, number = column.partition("#")
    found = []
    for table in tables:
        if "#" in file and table.name != file:
            continue
        places = [i for i, header in enumerate(table.columns) if header == name]
        for nth, place in enumerate(places, start=1):
            if number and str(nth) != number:
                continue
            title = f"{name}#{nth}" if len(places) > 1 else name
            found += [
                (row[place], f"<{table.name}; {'; '.join(row)}; {title}>")
                for row in table.rows
                if set(cells) <= names_of_cells(table.columns, row, place)
            ]
    if len(found) == 1:
        return found[0][0]
    asked = f"<{'; '.join([file, *cells, column])}>"
    if found:
        which = "\n  ".join(candidate for _, candidate in found)
        raise ValueError(f"{asked} may be any of {len(found)}:\n  {which}")
    raise ValueError(f"{asked} is in no table. {missing_words(tables, [*cells, name])}")


def names_of_cells(columns, row, place):
    """Return what quotes may call the cells of a row but for the one at ``place``."""
    return {
        name
        for i, (header, cell) in enumerate(zip(columns, row, strict=False))
        if i != place
        for name in (cell, f"{header}={cell}")
    }


def missing_words(tables, words):
    """Say which of the words of a quote a file does not have, and what is like them."""
    known = {
        cell for table in tables for row in (table.columns, *table.rows) for cell in row
    }
    said = []
    for word in words:
        if word not in known:
            close = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
            said.append(f"No cell or header is {word!r}; like it: {close}.")
    names = ", ".join(table.name for table in tables)
    return (
        " ".join(said)
        or f"No row of {names} has all of them, in a table with that column."
    )


def bare_numbers(page):
    """Return line and text of numbers with a unit in prose that are not quoted.

    An aid for the eye: code, literals and included tables are left out, as far as that
    can be told from single lines.
    """
    found, code, fence, indent = [], False, False, 0
    for number, line in enumerate(page.splitlines(), start=1):
        fence ^= line.startswith("```")
        depth = len(line) - len(line.lstrip())
        code = code and (not line.strip() or depth > indent)
        if not (code or fence or line.lstrip().startswith(("|", ">>>", "..."))):
            prose = re.sub(r":\w+:`[^`]*`|``[^`]*``|`[^`]*`|<!--.*?-->", " ", line)
            found += [(number, match[0]) for match in BARE.finditer(prose)]
        starts = line.rstrip().endswith("::") or line.lstrip().startswith(".. code")
        if starts and not code:
            code, indent = True, depth
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change no page")
    parser.add_argument(
        "--bare", action="store_true", help="list numbers without a quote"
    )
    options = parser.parse_args()
    failed = False
    for path in pages():
        page, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        if options.bare and path.suffix != ".py":
            print(
                *(f"{name}:{line}: {text}" for line, text in bare_numbers(page)), sep="\n"
            )
        new, differences, errors = rewrite(page, markdown=path.suffix == ".md")
        for line, message in sorted(differences + errors):
            print(f"{name}:{line}: {message}", file=sys.stderr)
        failed |= bool(errors or (options.check and differences))
        if new != page and not options.check:
            path.write_text(new, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
