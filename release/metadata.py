"""What a build adds to the metadata: project links, and the README as the description.

Links of the README are relative to the repository, and lead nowhere on PyPI. The address
of the repository is known where its workflows build: there links become absolute, and
pictures are shown. Elsewhere only the texts of such links stay.
"""

import os
import pathlib
import re
from urllib.parse import urljoin

from hatchling.metadata.plugin.interface import MetadataHookInterface

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
TEXT = r"(?:[^\[\]]|\[[^\[\]]*\])*"  # may hold one more pair of brackets
TARGET = r"(?![a-z]+:|#)[^)\s]+"  # neither absolute nor within the page
LINK = re.compile(rf"(?P<picture>!?)\[(?P<text>{TEXT})\]\((?P<target>{TARGET})\)")


class Metadata(MetadataHookInterface):
    """Set the description and the project links."""

    def update(self, metadata):
        """Set both in the ``project`` table."""
        repository = repository_of(os.environ)
        text = (pathlib.Path(self.root) / "README.md").read_text(encoding="utf-8")
        version = os.environ.get("GITHUB_SHA", "HEAD")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": description(text, repository, version),
        }
        metadata["urls"] = project_urls(repository) if repository else {}


def repository_of(environment):
    """Return the address of the repository; None outside its workflows."""
    keys = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY")
    found = [environment.get(key) for key in keys]
    return "/".join(found) if all(found) else None


def project_urls(repository):
    """Return the links that PyPI shows beside the description."""
    return {
        "Documentation": f"{repository}/deployments/github-pages",
        "Source": repository,
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.rst",
        "Issues": f"{repository}/issues",
    }


def description(text, repository, version):
    """Return the README without relative links; code stays as it is."""

    def mended(link):
        picture, target = link["picture"], link["target"]
        label = LINK.sub(mended, link["text"])
        if repository is None:
            return "" if picture else label
        kind = "raw" if picture else "blob"
        address = urljoin(f"{repository}/{kind}/{version}/README.md", target)
        return f"{picture}[{label}]({address})"

    parts = FENCED.split(text)
    parts[::2] = (LINK.sub(mended, part) for part in parts[::2])
    return "".join(parts)
