"""Every page of the built book in a real browser: what a reader meets, wide and narrow, light and
dark.

`look` opens a page once and returns what is wrong with it, by kind. Each kind is a test of its own
for each page, and a page that breaks all of them at once proves that each can fail.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pages
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Frame,
    Locator,
    Page,
    Request,
    Response,
)

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}

# Every page that was built, and apart from them those that only lead to another.
BUILT, REDIRECTS = [], []
for _path in sorted(pages.HTML.rglob("*.html")):
    _name = _path.relative_to(pages.HTML).as_posix()
    if not _name.startswith("_"):
        _redirects = re.search("http-equiv=.refresh", _path.read_text("utf-8"), re.I)
        (REDIRECTS if _redirects else BUILT).append(_name)

# What axe finds in the theme itself (sphinx-book-theme 1.x), which this book does not mend: the
# rule, and a pattern that the element's selector has to match. Anything else is a failure.
THEME = [
    # The logo stands in the side bar, which the theme does not mark as a landmark.
    ("region", r"^\.(only-dark|only-light)$"),
]

# --- What is asked of a page, in its own words ---------------------------------------------------

MATHEMATICS = r"""() => {
  const found = [];
  for (const error of document.querySelectorAll("mjx-merror"))
    found.push("MathJax: " + (error.getAttribute("title") || error.textContent));
  for (const wrong of document.querySelectorAll('mjx-container [style*="red"]'))
    found.push("an unknown command: " + wrong.textContent);
  for (const formula of document.querySelectorAll(".math"))
    if (!formula.querySelector("mjx-container"))
      found.push("not typeset: " + formula.textContent.slice(0, 80));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const skip = "script, style, noscript, pre, code, textarea, mjx-container, .math";
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (!text.parentElement.closest(skip) && /\$\$|\\[([]|\$[^$]+\$/.test(text.data))
      found.push("raw: " + text.data.trim().slice(0, 80));
  }
  return found;
}"""

PICTURES = r"""async () => {
  const found = [];
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    const name = image.outerHTML.slice(0, 120);
    if (!image.naturalWidth) found.push("not loaded: " + name);
    if (image.closest("article") && (image.alt || "").trim().length < 20)
      found.push("no words for it: " + name);
  }
  return found;
}"""

TOO_WIDE = r"""() => {
  // What the theme keeps out of sight until it is asked for, or shows to no eye.
  const ASIDE = ".bd-sidebar-primary, .bd-sidebar-secondary, dialog, .visually-hidden, svg *, "
    + "mjx-assistive-mml";
  const limit = innerWidth, found = [];
  const root = document.scrollingElement;
  if (root.scrollWidth > limit) found.push(`the page is ${root.scrollWidth} px wide`);
  const scrolls = element => {
    for (let up = element.parentElement; up && up !== document.body; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)
          && up.getBoundingClientRect().right <= limit + 1) return true;
    return false;
  };
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(ASIDE)) continue;
    const box = element.getBoundingClientRect();
    if (box.width > 1 && box.height > 1 && box.right > limit + 1 && element.checkVisibility()
        && !scrolls(element))
      found.push(`reaches ${Math.round(box.right)} px: ${element.outerHTML.slice(0, 100)}`);
  }
  return found.slice(0, 5);
}"""

BOXES = r"""() => {
  const found = [];
  for (const bold of document.querySelectorAll("blockquote strong"))
    if (/^(Exercise|Note|Theorem|Definition)\b/.test(bold.textContent))
      found.push("a quotation, not a box: " + bold.textContent);
  return found;
}"""

COLOURS = r"""() => {
  const bright = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(Number);
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
  };
  const article = document.querySelector("article") || document.body;
  let behind = article, paper = "rgba(0, 0, 0, 0)";
  for (; behind && /, 0\)$|transparent/.test(paper); behind = behind.parentElement)
    paper = getComputedStyle(behind).backgroundColor;
  return [bright(paper), bright(getComputedStyle(article).color)];
}"""

AXE = """async () => {
  const result = await axe.run(document, {resultTypes: ["violations"], preload: false});
  return result.violations.flatMap(rule => rule.nodes.map(
    node => [rule.id, node.target.flat().join(" | "), node.failureSummary, node.html]));
}"""

Findings = dict[str, list[str]]
KINDS = [
    "console",
    "other hosts",
    "mathematics",
    "pictures",
    "boxes",
    "width",
    "axe, narrow and light",
    "axe, wide and dark",
    "dark",
]


def axe(page: Page) -> list[str]:
    """What axe finds in the page and in its frames, less what the theme does."""
    for frame in page.frames:
        frame.evaluate(AXE_SCRIPT)
    found = []
    for rule, target, why, html in page.evaluate(AXE):
        if not any(rule == r and re.search(pattern, target) for r, pattern in THEME):
            found.append(f"{rule}: {target}\n  {html[:200]}\n  {why}")
    return found


def set_theme(page: Page, theme: str) -> list[str]:
    """Press the theme's own button until the page has that theme."""
    button = page.locator(".theme-switch-button:visible").first
    for _ in range(4):
        if page.evaluate("document.documentElement.dataset.theme") == theme:
            page.locator(".tooltip").first.wait_for(state="detached")
            return []
        if not button.count():
            return ["no button changes the theme"]
        button.click()
        page.mouse.move(0, 0)  # away from the button, so that its tooltip goes
        page.evaluate("document.activeElement.blur()")
    return [f"the theme's button never leads to {theme}"]


def settle(page: Page) -> None:
    """Wait for MathJax, for fonts and for whatever moves."""
    page.evaluate(
        """async () => {
          if (window.MathJax?.startup) await MathJax.startup.promise;
          await document.fonts.ready;
          await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
          const finite = a => a.effect.getComputedTiming().endTime < Infinity;
          const moving = document.getAnimations().filter(finite).map(a => a.finished);
          await Promise.allSettled(moving);
        }"""
    )


def look(browser: Browser, address: str, where: str) -> Findings:
    """Open a page and return what is wrong with it, by kind."""
    found: Findings = defaultdict(list)
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            found["console"].append(message.text)

    def request(asked: Request) -> None:
        if not asked.url.startswith((address + "/", "data:", "blob:", "about:")):
            found["other hosts"].append(asked.url)

    def response(given: Response) -> None:
        if given.status >= 400:
            found["console"].append(f"{given.status} {given.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: found["console"].append(str(error)))
    page.on("request", request)
    page.on("response", response)
    page.goto(f"{address}/{where}", wait_until="load")
    settle(page)
    found["mathematics"] += page.evaluate(MATHEMATICS)
    found["pictures"] += page.evaluate(PICTURES)
    found["boxes"] += page.evaluate(BOXES)

    found["dark"] += set_theme(page, "dark")
    settle(page)
    paper, ink = page.evaluate(COLOURS)
    if paper > 0.2 or ink < 0.6:
        found["dark"].append(f"in the dark the paper has brightness {paper:.2f}, the ink {ink:.2f}")
    found["axe, wide and dark"] += axe(page)

    set_theme(page, "light")
    page.set_viewport_size(NARROW)
    page.reload()  # as on a phone: the theme looks at the width when it starts
    settle(page)
    for frame in page.frames:
        found["width"] += frame.evaluate(TOO_WIDE)
    found["axe, narrow and light"] += axe(page)
    context.close()
    return found


# --- The pages --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book() -> Iterator[str]:
    with pages.served(pages.HTML) as address:
        yield address


@pytest.fixture(scope="module")
def looked_at(browser: Browser, book: str) -> dict[str, Findings]:
    """What was found on each page so far: a page is opened once."""

    class Seen(dict):
        def __missing__(self, where: str) -> Findings:
            self[where] = look(browser, book, where)
            return self[where]

    return Seen()


def test_every_page_is_built() -> None:
    assert BUILT, "make book builds the pages"
    assert [page for page in pages.toc() if f"{page}.html" not in BUILT] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", BUILT)
def test_page(where: str, kind: str, looked_at: dict[str, Findings]) -> None:
    found = looked_at[where][kind]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_exercises_stand_in_boxes(path: Path) -> None:
    """Each exercise of the notebook is a box on its page, under its own address."""
    page = (pages.HTML / "book" / f"{path.stem}.html").read_text("utf-8")
    text = "\n\n".join(c.source for c in pages.read(path).cells if c.cell_type == "markdown")
    wanted = [f"exercise-{chapter}-{n}" for chapter, n, _ in pages.EXERCISE.findall(text)]
    boxes = re.findall(r'<div class="exercise admonition"[^>]*?id="([\w-]+)"', page)
    assert boxes == wanted


@pytest.mark.parametrize("path", pages.notebooks(), ids=lambda path: path.stem)
def test_the_set_up_cell_is_not_on_the_page(path: Path) -> None:
    page = (pages.HTML / "book" / f"{path.stem}.html").read_text("utf-8")
    assert "google.colab" not in page


@pytest.mark.parametrize("where", REDIRECTS)
def test_a_page_that_leads_on(where: str, browser: Browser, book: str) -> None:
    page = browser.new_page()
    page.goto(f"{book}/{where}")
    page.wait_for_url(re.compile("|".join(map(re.escape, BUILT))))
    page.close()


def test_the_search_finds_a_page(browser: Browser, book: str) -> None:
    page = browser.new_page()
    page.goto(f"{book}/search.html?q=jacobian")
    page.locator("#search-results li a").first.wait_for(timeout=20_000)
    page.close()


# --- Live figures -------------------------------------------------------------------------------

LIVE = [where for where in BUILT if "srcdoc=" in (pages.HTML / where).read_text("utf-8")]


def test_a_page_is_live() -> None:
    assert LIVE


def live_frames(page: Page) -> list[Frame]:
    """The live figures of a page, each once it has drawn its handles."""
    frames = [element.content_frame() for element in page.query_selector_all("iframe[srcdoc]")]
    for frame in frames:
        frame.get_by_role("slider").first.wait_for()
    return frames


def told(frame: Frame) -> str:
    """What the figure says in words and numbers."""
    return frame.evaluate("document.body.innerText")


def by_keyboard(page: Page, slider: Locator) -> None:
    slider.focus()
    page.keyboard.press("ArrowRight")


def drag(slider: Locator) -> tuple[float, float, list[tuple[float, float]]]:
    """Where a drag begins, at the middle of the handle, and where it leads.

    More across than up: as much of both would be a swipe that scrolls the page, where a
    handle lets it ("pan-y").
    """
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return x, y, [(x + step, y - step / 2) for step in (4, 10, 18, 26)]


def by_mouse(page: Page, slider: Locator) -> None:
    x, y, steps = drag(slider)
    page.mouse.move(x, y)
    page.mouse.down()
    for to in steps:
        page.mouse.move(*to)
    page.mouse.up()


def by_touch(page: Page, slider: Locator) -> None:
    x, y, steps = drag(slider)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": px, "y": py} for px, py in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x, y))
    for to in steps:
        touch("touchMove", to)
    touch("touchEnd")
    session.detach()


def dead_handles(page: Page, move: Callable[[Page, Locator], None]) -> list[str]:
    """The handles of a page's figures that change nothing of what the figure says."""
    dead, handles = [], 0
    for frame in live_frames(page):
        for slider in frame.get_by_role("slider").all():
            if slider.is_visible():
                handles += 1
                before = told(frame)
                move(page, slider)
                settle(page)
                if told(frame) == before:
                    dead.append(slider.get_attribute("aria-label") or str(slider))
    return dead if handles else ["no handle"]


@pytest.mark.parametrize("move", [by_keyboard, by_mouse, by_touch])
@pytest.mark.parametrize("where", LIVE)
def test_a_live_figure_answers(
    where: str, move: Callable[[Page, Locator], None], browser: Browser, book: str
) -> None:
    """Every handle, and the figure says so in its text."""
    context = browser.new_context(viewport=WIDE, has_touch=move is by_touch)
    page = context.new_page()
    page.goto(f"{book}/{where}")
    settle(page)
    assert dead_handles(page, move) == []
    context.close()


@pytest.mark.parametrize("where", LIVE)
def test_without_scripts_a_still_picture_stands_there(
    where: str, browser: Browser, book: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{book}/{where}")
    frames = page.locator("iframe[srcdoc]").count()
    stills = page.locator(".minflow-still:has(img):visible").count()
    assert frames == stills > 0
    context.close()


# --- Each check can fail ------------------------------------------------------------------------

SOUND = """<!doctype html><html lang="en" data-theme="light"><head><title>Sound</title>
<link rel="icon" href="data:,">
<style>html[data-theme=dark] body { background: #111; color: #eee }
pre { overflow-x: auto }</style></head>
<body><main><h1>Sound</h1><article>
<p>A line, and code with <code>$$</code> in it.</p>
<pre tabindex="0">{long}</pre>
<img src="dot.svg" alt="A dot, so small that it is hardly seen.">
<button class="theme-switch-button" onclick="const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark'">Theme</button>
</article></main></body></html>""".replace("{long}", "long " * 100)

BROKEN = """<!doctype html><html lang="en"><head><title>Broken</title></head>
<body><main><h1>Broken</h1><article>
<div style="width: 600px">wide</div>
<p style="color: #ccc; background: #fff">faint</p>
<p>$$x$$</p><p class="math">\\(x\\)</p>
<mjx-merror title="no such thing">x</mjx-merror>
<mjx-container class="math"><b style="color: red">\\nothing</b></mjx-container>
<img src="missing.png"><img src="https://elsewhere.invalid/dot.png" alt="A dot.">
<blockquote><p><strong>Exercise 1.1 (easy).</strong> Do.</p></blockquote>
<script>console.error("said"); throw new Error("thrown")</script>
</article></main></body></html>"""

DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5"></svg>'

EXPECTED = {
    "console": ["said", "thrown", "404"],
    "other hosts": ["elsewhere.invalid"],
    "mathematics": ["no such thing", "unknown command", "not typeset", "raw: $$x$$"],
    "pictures": ["not loaded", "no words"],
    "boxes": ["Exercise 1.1"],
    "width": ["px wide", "reaches"],
    "axe, narrow and light": ["color-contrast", "image-alt"],
    "axe, wide and dark": ["color-contrast", "image-alt"],
    "dark": ["no button", "brightness"],
}


@pytest.fixture(scope="module")
def small(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """What `look` finds on a sound page and on a broken one."""
    folder = tmp_path_factory.mktemp("small")
    for name, text in {"sound.html": SOUND, "broken.html": BROKEN, "dot.svg": DOT}.items():
        (folder / name).write_text(text, "utf-8")
    with pages.served(folder) as address:
        return {name: look(browser, address, f"{name}.html") for name in ("sound", "broken")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_page_is_noticed(kind: str, small: dict[str, Findings]) -> None:
    assert not small["sound"][kind], "\n".join(small["sound"][kind])
    said = "\n".join(small["broken"][kind])
    assert [part for part in EXPECTED[kind] if part not in said] == [], said


FIGURE = """<p id="told">0</p><input type="range" aria-label="good" min="0" max="9" value="4"
oninput="told.textContent = this.value"><input type="range" aria-label="dead" value="4">"""


@pytest.mark.parametrize("move", [by_keyboard, by_mouse, by_touch])
def test_a_dead_handle_is_noticed(move: Callable[[Page, Locator], None], browser: Browser) -> None:
    context = browser.new_context(has_touch=True)
    page = context.new_page()
    page.set_content(f"<iframe width='600' srcdoc='{FIGURE}'></iframe>")
    assert dead_handles(page, move) == ["dead"]
    context.close()
