"""Open every page of the built documentation in a headless browser.

    python doc/check_pages.py doc/_build/html

In a wide and a narrow window: nothing sticks out to the side, images have loaded,
formulas are typeset, and no page asks for anything from elsewhere. Then the search is
used. What is wrong is printed, and makes the exit status 1. ``--screenshots FOLDER``
keeps pictures of the pages; ``--browser PATH`` names a Chromium, where playwright has not
installed one.
"""

import argparse
import functools
import http.server
import pathlib
import sys
import threading

from playwright.sync_api import TimeoutError as NotFound
from playwright.sync_api import sync_playwright

WINDOWS = {"wide": (1280, 900), "narrow": (390, 844)}
# Searches, and the page that must be among what is found.
SEARCHES = {
    "bandwidth": "bandwidth.html",
    "diagnose": "regimes.html",
    "dask": "cluster.html",
}
LOOK = """async () => {
    window.scrollTo(0, document.body.scrollHeight);  // images are loaded when in sight
    if (window.MathJax) await window.MathJax.startup.promise;
    const images = [...document.images];
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    window.scrollTo(0, 0);
    // What ends to the right of the page, unless it, or what it is in, can be scrolled.
    const article = document.querySelector("article") || document.body;
    const edge = Math.min(article.getBoundingClientRect().right, window.innerWidth) + 1;
    const end = element => {
        const box = element.getBoundingClientRect();
        // The width of a formula's content counts what is for screen readers only.
        return element.closest(".math")
            ? box.right : Math.max(box.right, box.left + element.scrollWidth);
    };
    const scrolls = element => element !== article && (
        ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
        || scrolls(element.parentElement));
    const wide = [...article.querySelectorAll("*")].filter(element =>
        end(element) > edge && !scrolls(element)
        && !element.closest("mjx-assistive-mml"));  // for screen readers, not shown
    const formulas = document.querySelectorAll(".math").length;
    return {
        "sticks out": wide.slice(-3).map(e => e.outerHTML.slice(0, 100)),
        "images missing": images.filter(image => !image.naturalWidth).map(i => i.src),
        "formulas not typeset": formulas
            - document.querySelectorAll(".math > mjx-container").length,
        "formulas with errors": document.querySelectorAll(
            "mjx-merror, mjx-mtext[style*='color: red']").length,
    };
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def faults_of(browser, address, window, screenshot):
    """What is wrong with a page, as texts."""
    width, height = WINDOWS[window]
    page = browser.new_page(viewport={"width": width, "height": height})
    faults = []
    page.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("request", lambda request: faults.extend(_elsewhere(request.url, address)))
    page.goto(address, wait_until="load")
    faults += [f"{name}: {found}" for name, found in page.evaluate(LOOK).items() if found]
    if screenshot:
        page.screenshot(path=screenshot, full_page=True)
    page.close()
    return faults


def _elsewhere(url, address):
    own = "/".join(address.split("/", 3)[:3])
    return [] if url.startswith((own, "data:", "blob:")) else [f"asks for {url}"]


def search_faults(browser, root):
    """Which searches do not find their page."""
    faults = []
    for word, wanted in SEARCHES.items():
        page = browser.new_page()
        page.goto(f"{root}/search.html?q={word}", wait_until="load")
        try:
            page.wait_for_selector(f'#search-results a[href*="{wanted}"]', timeout=10_000)
        except NotFound:
            faults.append(f"search for {word!r} does not find {wanted}")
        page.close()
    return faults


def all_faults(browser, root, pages, screenshots):
    """What is wrong, as texts, page by page, and then with the search."""
    for page in pages:
        for window in WINDOWS:
            name = f"{page.with_suffix('')}-{window}.png".replace("/", "_")
            picture = screenshots / name if screenshots else None
            for fault in faults_of(browser, f"{root}/{page}", window, picture):
                yield f"{page}, {window}: {fault}"
    yield from search_faults(browser, root)


def check(folder, browser_path, screenshots):
    """Print what is wrong; whether anything is."""
    pages = sorted(path.relative_to(folder) for path in folder.rglob("*.html"))
    pages = [page for page in pages if page.parts[0] != "_static"]
    if not pages:
        sys.exit(f"{folder} holds no pages; build the documentation first.")
    handler = functools.partial(_Quiet, directory=str(folder))
    n_faults = 0
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=browser_path)
        root = f"http://127.0.0.1:{server.server_port}"
        for fault in all_faults(browser, root, pages, screenshots):
            print(fault)
            n_faults += 1
        browser.close()
        server.shutdown()
    print(f"{len(pages)} pages in {len(WINDOWS)} windows, {n_faults} faults")
    return n_faults > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--browser")
    parser.add_argument("--screenshots", type=pathlib.Path)
    options = parser.parse_args()
    sys.exit(check(options.folder, options.browser, options.screenshots))
