"""Open every page of the built documentation in a headless browser.

    python doc/check_pages.py doc/_build/html

In a wide and a narrow window: nothing sticks out to the side, images have loaded,
formulas are typeset, code can be copied, names in the contents of a page stay whole, and
no page asks for anything from elsewhere. In light and in dark colours text stands out
from what is behind it. Then the search is used. What is wrong is printed, and makes the
exit status 1. ``--screenshots FOLDER`` keeps pictures of the pages; ``--browser PATH``
names a Chromium, where playwright has not installed one.
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
THEMES = ("light", "dark")
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
    const lines = element => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
    };
    const names = [...document.querySelectorAll(".page-toc code .pre")];
    return {
        "sticks out": wide.slice(-3).map(e => e.outerHTML.slice(0, 100)),
        "images missing": images.filter(image => !image.naturalWidth).map(i => i.src),
        "formulas not typeset": formulas
            - document.querySelectorAll(".math > mjx-container").length,
        "blocks of code without a button that copies":
            document.querySelectorAll("div.highlight pre").length
            - document.querySelectorAll("div.highlight button.copybtn").length,
        "names that break": names.filter(e => lines(e) > 1).map(e => e.textContent),
        "formulas with errors": document.querySelectorAll(
            "mjx-merror, mjx-mtext[style*='color: red']").length,
    };
}"""

# Text whose contrast with its background is below what WCAG 2 asks for (level AA).
CONTRAST = """theme => {
    document.documentElement.dataset.theme = theme;
    const canvas = document.createElement("canvas").getContext(
        "2d", {willReadFrequently: true});
    const over = (colors) => {  // painted one over the other
        for (const color of colors) {
            canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1);
        }
        return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    };
    const luminance = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(
            v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => element
        ? [...behind(element.parentElement), getComputedStyle(element).backgroundColor]
        : ["white"];
    const known = new Map();
    const contrast = element => {
        const colors = [...behind(element), getComputedStyle(element).color];
        const key = colors.join();
        if (!known.has(key)) {
            const two = [over(colors), over(colors.slice(0, -1))].map(luminance).sort();
            known.set(key, (two[1] + 0.05) / (two[0] + 0.05));
        }
        return known.get(key);
    };
    const faint = element => {
        const {fontSize, fontWeight} = getComputedStyle(element);
        const large = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24);
        return contrast(element) < (large ? 3 : 4.5);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = new Set();
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const seen = texts.currentNode.data.trim()
            && element.checkVisibility({visibilityProperty: true})
            && element.getBoundingClientRect().width > 0;
        if (seen && faint(element)) {
            const ratio = contrast(element).toFixed(1);
            found.add(`${element.outerHTML.slice(0, 100)} (${ratio} : 1)`);
        }
    }
    return [...found].slice(0, 3);
}"""
# Colours do not fade from one theme to the other.
AT_ONCE = "* { transition: none !important }"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def faults_of(browser, address, window, picture):
    """Return what is wrong with a page, as texts; ``picture`` takes a theme to a path."""
    width, height = WINDOWS[window]
    page = browser.new_page(viewport={"width": width, "height": height})
    faults = []
    page.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("request", lambda request: faults.extend(_elsewhere(request.url, address)))
    page.goto(address, wait_until="load")
    faults += [f"{name}: {found}" for name, found in page.evaluate(LOOK).items() if found]
    page.add_style_tag(content=AT_ONCE)
    for theme in THEMES:
        faults += [f"faint, {theme}: {text}" for text in page.evaluate(CONTRAST, theme)]
        if picture:
            page.screenshot(path=picture(theme), full_page=True)
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
            name = f"{page.with_suffix('')}-{window}".replace("/", "_")
            picture = screenshots and functools.partial(_picture, screenshots, name)
            for fault in faults_of(browser, f"{root}/{page}", window, picture):
                yield f"{page}, {window}: {fault}"
    yield from search_faults(browser, root)


def _picture(folder, name, theme):
    return folder / f"{name}-{theme}.png"


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
