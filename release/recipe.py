"""Write the recipe for conda-forge of what was built.

    python release/recipe.py dist/skhdkde-0.1.0.tar.gz recipes/skhdkde --maintainer NAME

The folder is what is added to conda-forge/staged-recipes, once. NAME is a GitHub account.
"""

import argparse
import hashlib
import pathlib
import shutil

RECIPE = pathlib.Path(__file__).parent / "recipe"


def filled(text, sdist, maintainer):
    """Return the recipe with version, sum and maintainer in their places."""
    values = {
        '"0.0.0"': f'"{sdist.name.removesuffix(".tar.gz").rpartition("-")[2]}"',
        f'"{"0" * 64}"': hashlib.sha256(sdist.read_bytes()).hexdigest(),
        "MAINTAINER": maintainer,
    }
    for place, value in values.items():
        if text.count(place) != 1:
            raise ValueError(f"The recipe should have {place} once.")
        text = text.replace(place, value)
    return text


def write(sdist, folder, maintainer):
    """Write the recipe into a folder."""
    shutil.copytree(RECIPE, folder, dirs_exist_ok=True)
    text = (RECIPE / "recipe.yaml").read_text(encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(filled(text, sdist, maintainer), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--maintainer", required=True)
    options = parser.parse_args()
    write(options.sdist, options.folder, options.maintainer)
