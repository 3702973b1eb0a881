"""The live figure: its output in pure Python, and its life in a real browser, alone in a page."""

from __future__ import annotations

import base64
import html
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from statistics import NormalDist
from typing import Any

import pytest

from minflow import live

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"img", "meta", "input", "link", "br", "hr"}


class Balance(HTMLParser):
    """Collects the elements, and what was opened and not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def only(self, tag: str) -> dict[str, str | None]:
        (found,) = [attrs for name, attrs in self.found if name == tag]
        return found


def output(**start: Any) -> str:
    return live.change_of_variables(**start)._repr_mimebundle_()["text/html"]


# ---- the output, in pure Python ------------------------------------------------------------


def test_the_output_is_one_well_formed_div_with_the_whole_figure():
    text = output()
    parsed = Balance(text)
    assert parsed.found[0] == ("div", {"class": "minflow-live"})
    assert text.startswith("<div")
    assert text.endswith("</div>")
    frame = parsed.only("iframe")
    assert frame["srcdoc"] == live.change_of_variables().page()
    assert frame["title"]
    Balance(frame["srcdoc"])


def test_the_output_is_small_and_the_same_each_time():
    assert output() == output()
    assert len(output().encode()) < 60_000


def test_the_figure_names_no_other_place_and_nothing_is_left_to_fill_in():
    page = live.change_of_variables().page()
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"]
    assert "{{" not in page
    assert not re.search(r"^\s*(export|import)\b", page, re.M)


def test_the_still_picture_and_the_words_tell_the_same_numbers():
    figure = live.change_of_variables(slope=-0.5, shift=-1, interval=(0.0, 2.0))
    bundle = figure._repr_mimebundle_()
    mass = NormalDist().cdf(2) - NormalDist().cdf(0)
    for text in (bundle["text/plain"], html.unescape(bundle["text/html"])):
        assert "x = −0.5 z − 1" in text
        assert "between x = −2 and −1" in text
        assert "width × 0.5, height ÷ 0.5" in text
        assert f"mass {mass:.3f}" in text
    image = Balance(bundle["text/html"]).only("img")
    kind, _, data = (image["src"] or "").partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert image["alt"] == figure.alt != ""
    drawn = ET.fromstring(base64.b64decode(data))
    assert "x = −0.5 z − 1" in [element.text for element in drawn.iter(f"{SVG}text")]


def area(d: str) -> float:
    """The area inside an SVG path of straight lines, by the shoelace formula."""
    points = [tuple(map(float, p.split())) for p in d.strip("MZ").split("L")]
    return abs(
        sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(points, points[1:] + points[:1], strict=True))
        / 2
    )


@pytest.mark.parametrize("slope", [2.0, -2.0, 0.5])
def test_the_masses_drawn_in_the_still_picture_are_equal(slope):
    still = ET.fromstring(live.change_of_variables(slope=slope, interval=(-1, 1)).still)
    blue, orange = [p.get("d") for p in still.iter(f"{SVG}path") if p.get("opacity") == ".4"]
    pixels = 220 * min(1, 0.95 * abs(slope))  # for a density of 1
    mass = NormalDist().cdf(1) - NormalDist().cdf(-1)
    assert area(blue) / (48 * 220) == pytest.approx(mass, rel=5e-3)
    assert area(orange) / (17 * pixels) == pytest.approx(mass, rel=5e-3)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"slope": 0}, "got slope=0, shift=1.0"),
        ({"slope": 5.1}, "slope=5.1"),
        ({"slope": float("nan")}, "slope=nan"),
        ({"shift": -4}, "shift=-4"),
        ({"interval": (1, 0)}, r"got interval=\(1, 0\)"),
        ({"interval": (0, 4)}, r"got interval=\(0, 4\)"),
    ],
)
def test_a_start_outside_the_axes_is_an_error(start, message):
    with pytest.raises(ValueError, match=message):
        live.change_of_variables(**start)


# ---- the figure in a browser ---------------------------------------------------------------

PLACE = "http://book.test/page.html"  # answered by the test itself: nothing goes out
HOST = """<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>A page</title><style>
body {{ margin: 16px; }} html[data-theme=dark] {{ background: #121212; color: #eee; }}
</style></head><body><main><h1>A page</h1>{output}<p style="height: 900px">After.</p></main>
</body></html>"""


class Shown:
    """A page that holds the figure: the page, the figure's frame, and what went wrong there."""

    def __init__(self, page: Any, frame: Any, faults: list[str]) -> None:
        self.page, self.frame, self.faults = page, frame, faults

    def numbers(self) -> dict[str, Any]:
        self.settle()
        return self.frame.evaluate("figure.numbers")

    def settle(self) -> None:
        self.frame.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def handle(self, label: str) -> Any:
        return self.frame.get_by_role("slider", name=label)

    def value(self, label: str) -> float:
        self.settle()
        return float(self.handle(label).get_attribute("aria-valuenow"))

    def press(self, label: str, *keys: str) -> None:
        self.handle(label).focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def curve(self) -> None:
        self.frame.get_by_label("a rising curve").check()
        self.settle()


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    contexts = []

    def open_page(theme: str = "light", width: int = 760, shown: str = "", **options: Any) -> Shown:
        body = HOST.format(theme=theme, output=shown or output())
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page, faults = context.new_page(), []
        page.on("console", lambda m: faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: None if ok(r.url) else faults.append(r.url))
        page.route(PLACE, lambda route: route.fulfill(body=body, content_type="text/html"))
        page.goto(PLACE)
        if options.get("java_script_enabled", True):
            depth = 3 if shown else 2  # frames, the page's own among them
            for _ in range(500):
                if len(page.frames) == depth:
                    break
                page.wait_for_timeout(20)
            frame = page.frames[-1]
            frame.wait_for_function("window.figure && figure.frames > 0")
        else:
            frame = page.main_frame
        opened.append(Shown(page, frame, faults))
        return opened[-1]

    def ok(url: str) -> bool:
        return url.startswith(("about:", "data:")) or url == PLACE

    opened: list[Shown] = []
    yield open_page
    faults = [fault for shown in opened for fault in shown.faults]
    for context in contexts:
        context.close()
    assert faults == []  # no console message, no page error, no request, in any of these tests


LINES = [
    {"mode": "line", "a": a, "b": b, "z0": z0, "z1": z1}
    for a in (-5, -1, -0.3, -0.05, 0.05, 0.5, 1, 2, 5)
    for b in (-3, 0.25)
    for z0, z1 in ((-3.5, 3.5), (-1, 1), (0, 0.1), (1.2, 3.3))
]
CURVES = [
    {"mode": "knots", "knots": knots, "z0": z0, "z1": z1}
    for knots in (
        [-5.8, -3.9, -2, 2, 3.9, 5.8],
        [-7.5, -7.4, -7.3, 7.3, 7.4, 7.5],
        [-0.25, -0.15, -0.05, 0.05, 0.15, 0.25],
        [-7.5, 0, 0.1, 0.2, 7, 7.5],
    )
    for z0, z1 in ((-3.5, 3.5), (-1, 1), (0, 0.1), (1.2, 3.3), (-3.2, -2.4))
]


def test_the_two_masses_agree_in_many_states(show):
    """The data's mass is an integral of p_x; the base's comes from the CDF, checked here too."""
    states = LINES + CURVES
    found = show().frame.evaluate("states => states.map(figure.compute)", states)
    normal = NormalDist()
    for state, n in zip(states, found, strict=True):
        mass = normal.cdf(state["z1"]) - normal.cdf(state["z0"])
        assert n["massZ"] == pytest.approx(mass, abs=1e-12), state
        assert n["massX"] == pytest.approx(mass, abs=1e-6), state
        assert n["heightX"] * abs(n["slope"]) == pytest.approx(n["heightZ"], rel=1e-9), state


def test_the_inverse_undoes_the_map_and_the_slope_is_its_derivative(show):
    frame = show().frame
    xs = [-7.9 + 0.31 * k for k in range(52)]
    script = "([s, xs]) => xs.map(x => figure.at(s, x))"
    for state in [LINES[0], LINES[-1], *CURVES[::5]]:
        step = 1e-6
        here = frame.evaluate(script, [state, xs])
        beside = frame.evaluate(script, [state, [x + step for x in xs]])
        for x, one, two in zip(xs, here, beside, strict=True):
            assert one["f"] == pytest.approx(x, abs=1e-9)
            assert one["slope"] != 0
            assert (two["z"] - one["z"]) / step == pytest.approx(1 / one["slope"], rel=1e-3)


def test_slope_zero_says_that_the_map_is_not_invertible(show):
    figure = show()
    figure.press("Slope a", *["Shift+ArrowDown"] * 4)
    assert figure.value("Slope a") == 0
    n = figure.numbers()
    assert (n["invertible"], n["widthX"], n["heightX"], n["massX"]) == (False, 0, None, 1)
    assert "Not invertible" in figure.frame.locator("#corner").inner_text()
    assert "not equal" in figure.frame.locator("table").inner_text()
    said = figure.frame.get_by_role("status")
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('no den')")
    assert "all the mass sits on the one point x = 1.00" in said.inner_text()
    figure.press("Slope a", "ArrowDown")
    n = figure.numbers()
    assert n["invertible"]
    assert n["slope"] == -0.05
    assert "Squeezed, flipped" in figure.frame.locator("#corner").inner_text()


@pytest.mark.parametrize(
    ("label", "curve"),
    [("Slope a", False), ("Shift b", False), ("Interval, lower end", False)]
    + [("Interval, upper end", False), ("Interval, both ends", False)]
    + [(f"Knot {k} of 6", True) for k in range(1, 7)],
)
def test_every_handle_answers_to_the_keyboard_and_stays_in_its_range(show, label, curve):
    figure = show()
    if curve:
        figure.curve()
    handle = figure.handle(label)
    before, text = figure.value(label), figure.frame.locator("body").inner_text()
    words = handle.get_attribute("aria-valuetext")
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    figure.press(label, "ArrowUp")
    assert figure.value(label) == pytest.approx(before + 0.05)
    assert handle.get_attribute("aria-valuetext") != words
    figure.press(label, "ArrowLeft", "Shift+ArrowRight", "PageDown", "ArrowRight", "ArrowDown")
    assert figure.value(label) == pytest.approx(before)
    for key, end in (("End", "aria-valuemax"), ("Home", "aria-valuemin")):
        figure.press(label, key, "Shift+ArrowUp" if key == "End" else "Shift+ArrowDown")
        assert figure.value(label) == float(handle.get_attribute(end)), key
        n = figure.numbers()
        assert n["z0"] < n["z1"]
        assert n["massX"] == pytest.approx(n["massZ"], abs=1e-6)
        knots = figure.frame.evaluate("figure.state.knots")
        assert all(low < high for low, high in itertools.pairwise(knots))
    if "Knot" not in label:
        assert figure.frame.locator("body").inner_text() != text
    figure.frame.get_by_role("button", name="Reset").click()
    assert figure.value(label) == pytest.approx(before)


def test_the_mouse_drags_the_slope_through_zero_and_the_interval(show):
    figure = show()
    mouse = figure.page.mouse

    def drag(label: str, dx: float, dy: float) -> None:
        box = figure.handle(label).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + dx, y + dy, steps=8)
        mouse.up()
        figure.settle()
        mouse.move(x, y)  # the button is up: nothing follows any more

    drag("Slope a", 0, 60)
    assert figure.value("Slope a") == pytest.approx(2 - 60 * 16 / 300, abs=0.06)
    drag("Shift b", 0, -30)
    assert figure.value("Shift b") == pytest.approx(1 + 30 * 16 / 300, abs=0.06)
    before = figure.numbers()
    drag("Interval, both ends", 50, 0)
    after = figure.numbers()
    assert after["z0"] > before["z0"] + 0.5
    assert after["widthZ"] == pytest.approx(before["widthZ"])


def test_touch_drags_a_handle_and_scrolls_the_page_elsewhere(show):
    figure = show(width=390, has_touch=True, is_mobile=True)
    send = figure.page.context.new_cdp_session(figure.page).send

    def swipe(x: float, y: float, dy: float) -> None:
        send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for k in range(1, 9):
            at = [{"x": x, "y": y + dy * k / 8}]
            send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": at})
        send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        figure.page.wait_for_timeout(200)

    box = figure.handle("Slope a").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    swipe(x, y, 60)
    assert figure.value("Slope a") < -1
    assert figure.page.evaluate("scrollY") == 0
    swipe(x - 60, y - 40, -120)  # bare paper of the same panel
    assert figure.page.evaluate("scrollY") > 50


def test_the_theme_follows_the_page(show):
    figure = show()

    def paper() -> str:
        return figure.frame.evaluate("getComputedStyle(document.body).backgroundColor")

    assert paper() == "rgb(255, 255, 255)"
    figure.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    figure.frame.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert paper() == "rgb(18, 18, 18)"
    figure.page.evaluate("document.documentElement.removeAttribute('data-theme')")
    figure.page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    figure.frame.wait_for_function("document.documentElement.dataset.theme === 'light'")


@pytest.mark.parametrize("width", [760, 390, 320])
def test_the_frame_fits_its_content_and_text_can_be_read(show, width):
    figure = show(width=width)
    for curve in (False, True):
        if curve:
            figure.curve()
        assert figure.page.evaluate("document.documentElement.scrollWidth") == width
        inner = figure.frame.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight,"
            " innerWidth, innerHeight]"
        )
        assert inner[0] == inner[2]
        assert inner[1] == inner[3]
        smallest = figure.frame.evaluate(
            "Math.min(...[...document.querySelectorAll('figure *')]"
            ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 11


def test_the_still_picture_is_seen_only_where_the_figure_is_not(show):
    alive = show().page
    assert alive.locator("iframe").is_visible()
    assert not alive.locator(".minflow-still").is_visible()
    alive.evaluate("document.querySelector('iframe').remove()")  # as a filter would
    assert alive.locator(".minflow-still img").is_visible()
    silent = show(java_script_enabled=False).page
    assert not silent.locator("iframe").is_visible()
    picture = silent.locator(".minflow-still img")
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 400
    assert "mass 0.242 in both" in silent.locator(".minflow-still").inner_text()


def test_it_lives_in_a_sandboxed_frame_of_another_origin(show):
    """As in a notebook service that shows outputs in a frame of its own: no way to the parent."""
    inside = html.escape(output())
    outer = f'<iframe sandbox="allow-scripts" width="700" height="800" srcdoc="{inside}"></iframe>'
    figure = show(shown=outer, color_scheme="dark")
    assert figure.frame.parent_frame.parent_frame is not None
    assert figure.frame.evaluate("document.documentElement.dataset.theme") == "dark"
    figure.press("Slope a", "ArrowUp")
    assert figure.numbers()["slope"] == 2.05
    size = figure.frame.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert size[0] <= size[1]  # the height set in CSS is enough


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("curve", [False, True])
def test_axe_finds_nothing(show, theme, curve):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    figure = show(theme=theme)
    if curve:
        figure.curve()
    figure.frame.wait_for_function("document.getElementById('said').textContent")
    for where in (figure.frame, figure.page):
        where.evaluate(axe.axe_script)
    found = figure.page.evaluate("axe.run({resultTypes: ['violations', 'passes']})")
    inside = [node for v in found["passes"] for node in v["nodes"] if len(node["target"]) > 1]
    assert len(inside) > 20  # it did look into the frame
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


def test_dragging_keeps_up(show):
    """Frames drawn in a second of dragging; 60 on an idle machine, so 20 shows a real fault."""
    figure = show()
    figure.curve()
    box = figure.handle("Knot 3 of 6").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    figure.page.mouse.move(x, y)
    figure.page.mouse.down()
    before, start = figure.frame.evaluate("[figure.frames, performance.now()]")
    for k in range(120):
        figure.page.mouse.move(x, y + 25 * (-1) ** (k // 20) * (k % 20) / 20)
    after, stop = figure.frame.evaluate("[figure.frames, performance.now()]")
    figure.page.mouse.up()
    assert (after - before) / (stop - start) * 1000 > 20
