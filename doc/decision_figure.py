"""Draw the figure of doc/choosing.rst: questions, and what to take if the answer is yes.

    python doc/decision_figure.py > doc/_static/choosing.svg

The drawing is part of the page, not an image beside it. So its colours are those of the
theme, light or dark, and its answers are links.
"""

import pathlib
from html import escape

# Question, answer in code, the page that explains it, and what leads to the next one.
CLASSES = [
    ("Are the rows private?", "PrivateKernelDensity", "private", "no"),
    ("Do you look for odd rows?", "DensityOutlierDetector", "decisions", "no"),
    ("Do rows have classes?", "DensityClassifier", "decisions", "no"),
    ("Only fill in what is missing?", "DensityImputer", "missing", "no"),
    ("Compare two samples?", "two_sample_test", "information", "no"),
    ("More rows than memory?", "DaskHighDimKernelDensity", "cluster", "no"),
]
OPTIONS = [
    (
        "A good density in seconds?",
        'covariance_type="full"\nkernel="student"\npreserve_variance=True',
        "structures",
        "or",
    ),
    ("A better one in a minute?", 'covariance_type="auto"', "structures", "or"),
    ("The best one there is?", 'covariance_type="stack"', "structures", "and"),
    ("Skewed or bounded columns?", 'feature_maps="auto"', "structures", "and"),
    ("Counts, booleans, rounded values?", 'discrete_features="auto"', "tables", "and"),
    ("Rows of length 1 (embeddings)?", 'support="sphere"', "embeddings", "and"),
    ("50,000 rows or more?", 'algorithm="neighbors"', "large", ""),
]
WIDTH, QUESTION, ANSWER = 344, 128, 182  # units are pixels on a phone
BETWEEN = WIDTH - QUESTION - ANSWER - 3
LINE, GAP, CHARACTERS = 16, 22, 18
STYLE = """
  .choosing { display: block; overflow: auto;
    width: 100%; max-width: 27rem; margin: 1rem 0; }
  .choosing rect { fill: var(--pst-color-surface, #f3f4f5);
    stroke: var(--pst-color-border, #888); }
  .choosing .answer rect { stroke: var(--pst-color-primary, #0a7d91); stroke-width: 1.5; }
  .choosing text { font: 13px sans-serif; fill: var(--pst-color-text-base, #222); }
  .choosing .answer text { font: 11.5px monospace; fill: var(--pst-color-link, #06c); }
  .choosing .head { font-weight: bold; font-size: 15px; }
  .choosing path { fill: none; stroke: var(--pst-color-text-muted, #666);
    stroke-width: 1.5; }
  .choosing .tip { fill: var(--pst-color-text-muted, #666); stroke: none; }
"""


def wrapped(text, most=CHARACTERS):
    """Return the lines of a text."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def box(x, y, width, height, lines, kind):
    """Return a box with centred lines of text."""
    top = y + height / 2 - LINE * (len(lines) - 1) / 2 + 4.5
    texts = "".join(
        f'<text x="{x + width / 2:g}" y="{top + LINE * k:g}" text-anchor="middle">'
        f"{escape(line)}</text>"
        for k, line in enumerate(lines)
    )
    rect = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"/>'
    return f'<g class="{kind}">{rect}{texts}</g>'


def arrow(x, y, dx, dy):
    """Return an arrow to the right or down."""
    tip = f"M{x + dx:g} {y + dy:g}"
    tip += "l-7 -4v8z" if dx else "l-4 -7h8z"
    return f'<path d="M{x:g} {y:g}l{dx:g} {dy:g}"/><path class="tip" d="{tip}"/>'


def label(x, y, text, kind=""):
    """Return a line of text that starts at a point."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def rows(y, questions):
    """Return questions and answers from ``y`` on, and where they end."""
    drawn = []
    for question, answer, page, below in questions:
        asked, given = wrapped(question), answer.split("\n")
        height = LINE * max(len(asked), len(given)) + 12
        drawn.append(box(1, y, QUESTION, height, asked, "question"))
        drawn.append(label(QUESTION + 4, y + height / 2 - 5, "yes"))
        drawn.append(arrow(QUESTION + 1, y + height / 2, BETWEEN, 0))
        link = box(WIDTH - ANSWER - 1, y, ANSWER, height, given, "answer")
        drawn.append(f'<a href="{page}.html">{link}</a>')
        drawn.append(arrow(1 + QUESTION / 2, y + height, 0, GAP))
        drawn.append(label(QUESTION / 2 + 8, y + height + 15, below))
        y += height + GAP
    return drawn, y


def figure():
    """Return the drawing."""
    page = pathlib.Path(__file__).parent
    for *_, name, _ in CLASSES + OPTIONS:
        if not (page / f"{name}.rst").exists():
            raise FileNotFoundError(f"{name}.rst, which the figure links to.")
    first, y = rows(30, CLASSES)
    own = box(1, y, WIDTH - 2, 34, ["HighDimKernelDensity"], "answer")
    head = label(1, y + 68, "Which options?", "head")
    second, end = rows(y + 82, OPTIONS)
    second = second[:-2]  # nothing comes after
    return "\n".join(
        [
            f'<svg class="choosing" viewBox="0 0 {WIDTH} {end - GAP + 2:g}" '
            'xmlns="http://www.w3.org/2000/svg" aria-labelledby="choosing-title">',
            '<title id="choosing-title">Questions, and what to take if the answer '
            "is yes; the table below has the same.</title>",
            f"<style>{STYLE}</style>",
            label(1, 16, "Which class?", "head"),
            *first,
            f'<a href="api.html">{own}</a>',
            head,
            *second,
            "</svg>",
        ]
    )


if __name__ == "__main__":
    print(figure())
