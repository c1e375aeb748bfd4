"""The role ``measured``: a number from benchmarks/results, and where it is from."""

import importlib.util
import pathlib

from docutils import nodes
from sphinx.util.docutils import SphinxRole

# By its path: beside it are scripts with the names of packages, such as dask.py.
SPEC = importlib.util.spec_from_file_location(
    "quote", pathlib.Path(__file__).parents[2] / "benchmarks" / "quote.py"
)
quote = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quote)


class Measured(SphinxRole):
    """Show the number only; benchmarks/quote.py explains what stands behind it."""

    def run(self):
        (found,) = quote.find_quotes(f":measured:`{self.text}`", markdown=False)
        try:
            right = quote.shown(found.text, found.source)
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [
                message
            ]
        if right != found.text:
            message = f"{found.text} should be {right}: run benchmarks/quote.py"
            return [nodes.Text(right)], [
                self.inliner.reporter.error(message, line=self.lineno)
            ]
        self.env.note_dependency(quote.RESULTS / quote.file_name(found.source))
        title = quote.describe(found.source)
        return [
            nodes.abbreviation("", right, explanation=title, classes=["measured"])
        ], []


def setup(app):
    app.add_role("measured", Measured())
    return {"parallel_read_safe": True}
