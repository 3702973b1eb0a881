"""The live figures: their output in pure Python, and their life in a real browser, alone in a page."""

from __future__ import annotations

import base64
import html
import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from minflow import Affine, Autoregressive, live
from minflow.autoregressive import Incremental
from minflow.nets import MaskedMLP, hidden_degrees

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


def output(figure: live.LiveFigure | None = None) -> str:
    return (figure or live.change_of_variables())._repr_mimebundle_()["text/html"]


FIGURES = pytest.mark.parametrize(
    "make",
    [
        live.change_of_variables,
        live.kl,
        live.planar,
        live.coupling,
        live.spline,
        live.autoregressive,
    ],
)


# ---- the output, in pure Python ------------------------------------------------------------


@FIGURES
def test_the_output_is_one_well_formed_div_with_the_whole_figure(make):
    text = output(make())
    parsed = Balance(text)
    assert parsed.found[0] == ("div", {"class": "minflow-live"})
    assert text.startswith("<div")
    assert text.endswith("</div>")
    frame = parsed.only("iframe")
    assert frame["srcdoc"] == make().page()
    assert frame["title"]
    Balance(frame["srcdoc"])


@FIGURES
def test_the_output_is_small_and_the_same_each_time(make):
    assert output(make()) == output(make())
    assert len(output(make()).encode()) < 60_000


@FIGURES
def test_the_figure_names_no_other_place_and_nothing_is_left_to_fill_in(make):
    page = make().page()
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

    def click(self, name: str) -> None:
        self.frame.get_by_role("button", name=name).click()
        self.settle()

    def pull(self, label: str, dx: float, dy: float, touch: bool) -> None:
        """Drag a handle by so many pixels, dy upwards, by mouse or by finger."""
        self.handle(label).scroll_into_view_if_needed()
        self.settle()
        box = self.handle(label).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        way = [(x + dx * k / 8, y - dy * k / 8) for k in range(9)]
        if touch:
            send = self.page.context.new_cdp_session(self.page).send
            for k, (px, py) in enumerate(way):
                at = {
                    "type": "touchMove" if k else "touchStart",
                    "touchPoints": [{"x": px, "y": py}],
                }
                send("Input.dispatchTouchEvent", at)
            send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            for at in way:
                self.page.mouse.move(*at)
            self.page.mouse.up()
            self.page.mouse.move(x, y)  # the button is up: nothing follows any more
        self.settle()

    def draws(self, label: str) -> int:
        """How often it draws while a pointer that drags a handle moves sixty times in one frame."""
        self.handle(label).scroll_into_view_if_needed()
        self.settle()
        box, start = self.handle(label).bounding_box(), self.frame.evaluate("figure.state")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.settle()
        frames = self.frame.evaluate("figure.frames")
        self.frame.evaluate(
            """() => {
              const sliders = [...document.querySelectorAll("[role=slider]")];
              const el = sliders.find((slider) => slider.hasPointerCapture(1));
              const { left, top, width, height } = el.getBoundingClientRect();
              for (let k = 1; k <= 60; k++) el.dispatchEvent(new PointerEvent("pointermove", {
                bubbles: true, pointerId: 1,
                clientX: left + width / 2 + k / 3, clientY: top + height / 2 - k / 3 }));
            }"""
        )
        self.settle()
        last, drawn = self.frame.evaluate(f"[figure.state, figure.frames - {frames}]")
        self.page.mouse.move(x + 20, y - 20)  # where the last of the sixty was
        self.settle()
        assert self.frame.evaluate("figure.state") == last != start
        self.page.mouse.up()
        return drawn

    def curve(self) -> None:
        self.frame.get_by_label("a rising curve").check()
        self.settle()

    def height_where_all_fits(self, width: int) -> float:
        """The height of the frame, which holds its content in full, in letters to be read."""
        self.settle()
        assert self.page.evaluate("document.documentElement.scrollWidth") == width
        inner = self.frame.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight,"
            " innerWidth, innerHeight]"
        )
        assert inner[:2] == inner[2:]
        smallest = self.frame.evaluate(
            "Math.min(...[...document.querySelectorAll('figure *')]"
            ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 11
        return inner[1]

    def violations(self) -> list[Any]:
        """What axe finds in the page and in the frame."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        self.frame.wait_for_function("document.getElementById('said').textContent")
        for where in (self.frame, self.page):
            where.evaluate(axe.axe_script)
        found = self.page.evaluate("axe.run({resultTypes: ['violations', 'passes']})")
        inside = [node for v in found["passes"] for node in v["nodes"] if len(node["target"]) > 1]
        assert len(inside) > 20  # it did look into the frame
        return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]]


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    contexts = []

    def open_page(
        theme: str = "light", width: int = 760, shown: str = "", depth: int = 2, **options: Any
    ) -> Shown:
        """Show an output; depth counts the frames that it makes, the page's own among them."""
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


def opening(make: Any) -> Any:
    """A fixture that shows a figure, made with the start that it is called with."""

    @pytest.fixture
    def shown(show: Any) -> Any:
        def open_figure(start: dict[str, Any] | None = None, **options: Any) -> Shown:
            return show(shown=output(make(**start or {})), **options)

        return open_figure

    return shown


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
        figure.height_where_all_fits(width)


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
    figure = show(shown=outer, depth=3, color_scheme="dark")
    assert figure.frame.parent_frame.parent_frame is not None
    assert figure.frame.evaluate("document.documentElement.dataset.theme") == "dark"
    figure.press("Slope a", "ArrowUp")
    assert figure.numbers()["slope"] == 2.05
    size = figure.frame.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert size[0] <= size[1]  # the height set in CSS is enough


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("curve", [False, True])
def test_axe_finds_nothing(show, theme, curve):
    figure = show(theme=theme)
    if curve:
        figure.curve()
    assert figure.violations() == []


def test_many_moves_of_a_pointer_are_drawn_once(show):
    figure = show()
    figure.curve()
    assert figure.draws("Knot 3 of 6") == 1


# ---- the two directions of the KL divergence -----------------------------------------------


@pytest.fixture
def show_kl(show: Any) -> Any:
    return lambda **options: show(shown=output(live.kl()), **options)


def target() -> MixtureSameFamily:
    """The figure's target, from the numbers that the page is given."""
    start = live.kl().start
    weights, means = torch.tensor(
        [[start["weight"], 1 - start["weight"]], [start["left"], start["right"]]],
        dtype=torch.float64,
    )
    return MixtureSameFamily(
        Categorical(weights), Normal(means, torch.full_like(means, start["std"]))
    )


GRID = torch.linspace(-60, 60, 240_001, dtype=torch.float64)


def normal(m: float, s: float) -> Normal:
    return Normal(*torch.tensor([m, s], dtype=torch.float64))


def mean_under(density: Any, values: Tensor) -> float:
    return torch.trapezoid(density.log_prob(GRID).exp() * values, GRID).item()


def gap(one: Any, two: Any) -> float:
    """KL(one || two) in nats."""
    return mean_under(one, one.log_prob(GRID) - two.log_prob(GRID))


PLACES = [(m, s) for m in (-3, -2, -0.8, 0, 0.5, 2, 3) for s in (0.5, 0.6, 1, 1.95, 3)]


def test_both_kls_agree_with_torch_everywhere_on_the_axes(show_kl):
    p = target()
    found = show_kl().frame.evaluate(
        "places => places.map(([m, s]) => figure.compute({ m, s }))", PLACES
    )
    for (m, s), n in zip(PLACES, found, strict=True):
        q = normal(m, s)
        assert n["forward"] == pytest.approx(gap(p, q), rel=1e-7), (m, s)
        assert n["reverse"] == pytest.approx(gap(q, p), rel=1e-7), (m, s)
        # and the forward KL by its closed form, -H(p) + E_p[-log q]
        mean, var = p.mean.item(), p.variance.item()
        cross = math.log(s * math.sqrt(2 * math.pi)) + (var + (mean - m) ** 2) / (2 * s**2)
        assert n["forward"] == pytest.approx(mean_under(p, p.log_prob(GRID)) + cross, rel=1e-7)


def test_what_each_x_adds_is_the_weighted_difference_and_its_peak_is_named(show_kl):
    frame, p = show_kl().frame, target()
    xs = torch.arange(-140, 141, dtype=torch.float64) / 20
    for m, s in PLACES[::4]:
        q = normal(m, s)
        n = frame.evaluate("([m, s]) => figure.compute({ m, s })", [m, s])
        for kind, most, one, two in [
            ("forward", "mostForward", p, q),
            ("reverse", "mostReverse", q, p),
        ]:
            found = frame.evaluate(
                "([kind, xs, s]) => xs.map(x => figure.adds(kind, x, s))",
                [kind, xs.tolist(), {"m": m, "s": s}],
            )
            adds = one.log_prob(xs).exp() * (one.log_prob(xs) - two.log_prob(xs))
            assert found == pytest.approx(adds.tolist(), abs=1e-12)
            here = round((n[most] + 7) * 20)
            assert adds[here] == pytest.approx(adds.max().item(), abs=1e-12)


def test_best_for_forward_matches_the_moments_and_nothing_near_is_better(show_kl):
    figure, p = show_kl(reduced_motion="reduce"), target()
    figure.frame.get_by_role("button", name="Best for forward").click()
    n = figure.numbers()
    assert n["m"] == pytest.approx(p.mean.item(), abs=1e-9)
    assert n["s"] == pytest.approx(p.stddev.item(), abs=1e-9)
    for dm, ds in itertools.product((-0.01, 0, 0.01), repeat=2):
        if dm or ds:
            assert gap(p, normal(n["m"] + dm, n["s"] + ds)) > n["forward"]
    body = figure.frame.locator("body").inner_text()
    assert "the mean −0.80 and the standard deviation 1.93 of p" in body
    assert figure.frame.locator("#now-forward").inner_text() == f"{n['forward']:.3f}"
    assert figure.frame.locator("#least-forward").inner_text() == f"{n['forward']:.3f}"


@pytest.mark.parametrize(("start", "bump", "said"), [(-1.0, -2, "The lower"), (2.5, 2, "A local")])
def test_best_for_reverse_falls_into_the_bump_of_its_valley(show_kl, start, bump, said):
    figure, p = show_kl(reduced_motion="reduce"), target()
    moved = round((start - figure.value("Centre m")) / 0.5)
    figure.press("Centre m", *["Shift+ArrowRight" if moved > 0 else "Shift+ArrowLeft"] * abs(moved))
    assert figure.value("Centre m") == start
    figure.frame.get_by_role("button", name="Best for reverse").click()
    n = figure.numbers()
    assert n["m"] == pytest.approx(bump, abs=0.01)
    assert n["s"] == pytest.approx(live.kl().start["std"], abs=0.01)
    # A minimum by torch's own gradient, on a grid, and not above the bound log(1/weight).
    m, s = (torch.tensor(n[k], dtype=torch.float64, requires_grad=True) for k in "ms")
    q = Normal(m, s)
    log_q = q.log_prob(GRID)
    value = torch.trapezoid(log_q.exp() * (log_q - p.log_prob(GRID)), GRID)
    slopes = torch.autograd.grad(value, [m, s])
    assert max(abs(slope.item()) for slope in slopes) < 1e-4
    for dm, ds in itertools.product((-0.01, 0, 0.01), repeat=2):
        if dm or ds:
            assert gap(normal(n["m"] + dm, n["s"] + ds), p) > n["reverse"]
    weight = p.mixture_distribution.probs[int(bump > 0)].item()
    assert n["reverse"] <= -math.log(weight)
    assert n["reverse"] == pytest.approx(-math.log(weight), abs=0.005)
    assert said in figure.frame.locator("#hint").inner_text()
    least = figure.frame.locator("#least-reverse").inner_text().split(" or ")
    assert least[int(bump > 0)] == f"{n['reverse']:.3f}"


def test_the_reverse_kl_has_two_minima_and_every_path_descends_into_one(show_kl):
    """With weights nearer to one half there is a third minimum, wide, between the bumps."""
    starts = [[m, s] for m in (-3, -2, -1, -0.8, -0.3, 0, 0.4, 1, 2, 3) for s in (0.5, 1, 1.95, 3)]
    frame = show_kl().frame
    bests = frame.evaluate("figure.bests")
    assert [round(b["m"]) for b in bests] == [-2, 2]
    reached = set()
    for start in starts:
        steps = frame.evaluate("([m, s]) => figure.descend(m, s).map(figure.compute)", start)
        values = [n["reverse"] for n in steps]
        assert all(one > two for one, two in itertools.pairwise(values)), start
        assert all(-3 <= n["m"] <= 3 and 0.49 <= n["s"] <= 3 for n in steps), start
        end = [
            k
            for k, b in enumerate(bests)
            if steps[-1]["m"] == pytest.approx(b["m"], abs=1e-4)
            and steps[-1]["s"] == pytest.approx(b["s"], abs=1e-4)
        ]
        assert len(end) == 1, (start, steps[-1])
        reached.update(end)
    assert reached == {0, 1}


def test_the_way_to_the_best_is_shown_unless_motion_is_unwelcome(show_kl):
    for motion, moving in (("no-preference", True), ("reduce", False)):
        frame = show_kl(reduced_motion=motion).frame
        at_once = frame.evaluate(
            "() => { document.getElementById('reverse').click(); return figure.travelling; }"
        )
        assert at_once is moving
        frame.wait_for_function("!figure.travelling")
        end, bests = frame.evaluate("[figure.state, figure.bests]")
        assert min(abs(end["m"] - b["m"]) for b in bests) < 1e-4


def test_a_hand_on_the_model_stops_its_journey(show_kl):
    figure = show_kl()
    stopped = figure.frame.evaluate(
        """() => {
          document.getElementById("forward").click();
          const key = new KeyboardEvent("keydown", { key: "End" });
          document.querySelector("[role=slider]").dispatchEvent(key);
          return figure.travelling;
        }"""
    )
    assert stopped is False
    assert figure.numbers()["m"] == 3
    assert "Drag" in figure.frame.locator("#hint").inner_text()


@pytest.mark.parametrize("label", ["Centre m", "Width s"])
def test_the_model_answers_to_the_keyboard_and_stays_in_its_range(show_kl, label):
    figure = show_kl()
    handle, before = figure.handle(label), figure.value(label)
    text = figure.frame.locator("body").inner_text()
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    figure.press(label, "ArrowUp")
    assert figure.value(label) == pytest.approx(before + 0.05)
    assert figure.frame.locator("body").inner_text() != text
    for key, end in (("End", "aria-valuemax"), ("Home", "aria-valuemin")):
        figure.press(label, key, "Shift+ArrowUp" if key == "End" else "Shift+ArrowDown")
        assert figure.value(label) == float(handle.get_attribute(end))
        n = figure.numbers()
        assert figure.frame.locator("#now-forward").inner_text() == f"{n['forward']:.3f}"
        assert figure.frame.locator("#now-reverse").inner_text() == f"{n['reverse']:.3f}"
    figure.frame.get_by_role("button", name="Reset").click()
    assert figure.value(label) == pytest.approx(before)


def test_mouse_and_touch_drag_the_model(show_kl):
    for touch in (False, True):
        figure = show_kl(width=390, has_touch=touch, is_mobile=touch)
        send = figure.page.context.new_cdp_session(figure.page).send
        for label in ("Centre m", "Width s"):
            before, box = figure.value(label), figure.handle(label).bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            steps = [x + 5 * k for k in range(7)]
            if touch:
                for kind, at in [("touchStart", x), *(("touchMove", at) for at in steps)]:
                    points = [{"x": at, "y": y}]
                    send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
                send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            else:
                figure.page.mouse.move(x, y)
                figure.page.mouse.down()
                for at in steps:
                    figure.page.mouse.move(at, y)
                figure.page.mouse.up()
            plot = figure.frame.evaluate("document.getElementById('stage').clientWidth") - 45
            assert figure.value(label) == pytest.approx(before + 30 * 14 / plot, abs=0.06)


def test_the_area_that_the_axis_leaves_out_is_said(show_kl):
    figure, p = show_kl(), target()
    assert "beyond" not in figure.frame.locator("#stage svg").text_content()
    figure.press("Centre m", "End")
    figure.press("Width s", "End")
    q, outside = normal(3, 3), GRID.abs() > 7
    left_out = mean_under(q, (q.log_prob(GRID) - p.log_prob(GRID)) * outside)
    assert left_out > 1
    text = figure.frame.locator("#stage svg").text_content()
    assert text.count("beyond the axis") == 1  # p has died down there, q has not
    found = float(re.search(r"beyond the axis: ([\d.]+)", text)[1])
    assert found == pytest.approx(left_out, abs=0.01)


def test_the_kl_figure_says_its_numbers_once_it_rests(show_kl):
    figure = show_kl()
    figure.press("Width s", "ArrowUp")
    n = figure.numbers()
    words = f"Centre 0.50, width 1.05. Forward KL {n['forward']:.3f} nats, "
    words += f"reverse KL {n['reverse']:.3f} nats."
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('1.05')")
    assert words in figure.frame.get_by_role("status").inner_text()


def test_a_bar_is_as_long_as_its_kl_and_one_too_long_has_an_arrow_head(show_kl):
    figure = show_kl(reduced_motion="reduce")
    figure.frame.get_by_role("button", name="Best for forward").click()
    n = figure.numbers()
    for kind in ("forward", "reverse"):
        bar, fill, over = (
            figure.frame.locator(f"#bar-{kind}{part}") for part in ("", " .fill", " .over")
        )
        one, whole = fill.bounding_box(), bar.bounding_box()
        assert one["x"] == pytest.approx(whole["x"], abs=0.5)
        assert one["width"] / whole["width"] == pytest.approx(n[kind] / 4, abs=0.01)
        assert not over.is_visible()
    figure.frame.get_by_role("button", name="Best for reverse").click()
    assert figure.numbers()["forward"] > 4
    assert figure.frame.locator("#bar-forward .over").is_visible()


@pytest.mark.parametrize("width", [800, 390, 320])
def test_the_kl_figure_fits_its_frame_and_keeps_its_height(show_kl, width):
    figure = show_kl(width=width, reduced_motion="reduce")
    heights = set()
    for button in ("Reset", "Best for forward", "Best for reverse"):
        figure.frame.get_by_role("button", name=button).click()
        heights.add(figure.height_where_all_fits(width))
    if width >= 390:
        assert len(heights) == 1
    assert max(heights) <= live.kl().height


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_kl_figure(show_kl, theme):
    assert show_kl(theme=theme).violations() == []


def test_the_words_and_the_still_picture_of_the_kl_figure_are_true():
    figure, p = live.kl(), target()
    best = normal(p.mean.item(), p.stddev.item())
    words = figure.words.replace("\u2212", "-")
    assert f"mean {best.mean:.2f} and standard deviation {best.stddev:.2f}" in words
    assert f"where it is {gap(p, best):.3f} nats" in words
    bumps = [normal(figure.start[side], figure.start["std"]) for side in ("left", "right")]
    assert "about {:.2f} and {:.2f} nats".format(*(gap(bump, p) for bump in bumps)) in words
    drawn = ET.fromstring(figure.still)
    lines = [d for path in drawn.iter(f"{SVG}path") if "L" in (d := path.get("d") or "")]
    assert len(lines) == 5  # the target's filling and line; three models
    for line, density in zip(lines, [p, p, best, *bumps], strict=True):
        for x, y in (map(float, point.split()) for point in line.strip("M").split("L")):
            height = density.log_prob(torch.tensor((x - 330) / 48, dtype=torch.float64)).exp()
            assert (260 - y) / 270 == pytest.approx(height.item(), abs=1e-3)


# ---- a planar and a radial layer -----------------------------------------------------------


show_planar = opening(live.planar)


def planar_state(w: tuple, u: tuple, b: float) -> dict[str, Any]:
    return {"kind": "planar", "w": w, "u": u, "b": b}


def radial_state(z0: tuple, alpha: float, beta: float) -> dict[str, Any]:
    return {"kind": "radial", "z0": z0, "alpha": alpha, "beta": beta}


ALLOWED = [
    planar_state((1.5, 0.5), (1.2, 0.4), 0.5),  # expands
    planar_state((2.5, -2.5), (2.5, -2.5), -3),
    planar_state((1, 1), (-0.25, -0.25), 1),  # contracts
    planar_state((1.5, -0.5), (-0.2, 1.1), 0),  # to 0.15 on the hyperplane
    planar_state((1, 2), (2, -1), 0.3),  # shears
    planar_state((0, 0), (1, -2), 0.7),  # shifts
    planar_state((1, 2), (0, 0), 0.3),  # does nothing
    radial_state((0.5, -0.5), 1, 2),
    radial_state((-1, 2), 0.2, 4),
    radial_state((0, 0), 2, -1.6),
    radial_state((0.3, 0), 0.5, -0.25),
    radial_state((0.3, 0), 0.5, 0),
]
FOLDED = [
    planar_state((1.5, 0.5), (-1.4, 0.6), 0.5),
    planar_state((1, 2), (-2.5, -2), -1),
    radial_state((0.5, -0.5), 1, -2),
    radial_state((0, 1), 0.2, -0.3),
]


def layer(state: dict[str, Any], z: Tensor) -> Tensor:
    """The state's map in torch, on points of shape (..., 2)."""
    given = {key: z.new_tensor(v) for key, v in state.items() if key != "kind"}
    if state["kind"] == "planar":
        a = (z * given["w"]).sum(-1, keepdim=True) + given["b"]
        return z + given["u"] * a.tanh()
    d = z - given["z0"]
    return z + given["beta"] * d / (given["alpha"] + d.norm(dim=-1, keepdim=True))


def determinants(state: dict[str, Any], z: Tensor) -> Tensor:
    return torch.linalg.det(torch.func.vmap(torch.func.jacrev(lambda p: layer(state, p)))(z))


DOUBLE: Any = {"dtype": torch.float64}
POINTS = 2 * torch.randn(40, 2, generator=torch.manual_seed(0), **DOUBLE)


def test_the_layer_and_its_determinant_agree_with_torch(show_planar):
    frame = show_planar().frame
    for state in ALLOWED + FOLDED:
        x, det = frame.evaluate(
            "([s, zs]) => [zs.map(z => figure.forward(s, z)), zs.map(z => figure.det(s, z))]",
            [state, POINTS.tolist()],
        )
        expected = determinants(state, POINTS)
        torch.testing.assert_close(torch.tensor(x, **DOUBLE), layer(state, POINTS))
        torch.testing.assert_close(torch.tensor(det, **DOUBLE), expected)
        # The two numbers said are the least and the largest: on a ray from the middle, out to far.
        n = frame.evaluate("s => figure.compute(s)", state)
        w = torch.tensor(state.get("w", (1, 0)), **DOUBLE)
        middle = torch.tensor(state.get("z0", (0, 0)), **DOUBLE)
        middle = middle - state.get("b", 0) * w / w.square().sum().clamp(min=1e-9)
        steps = torch.cat([torch.linspace(1e-4, 6, 6001, **DOUBLE), torch.tensor([1e4], **DOUBLE)])
        ray = determinants(state, middle + steps[:, None] * w)
        assert n["smallest"] == pytest.approx(ray.min().item(), abs=2e-3), state
        assert n["largest"] == pytest.approx(ray.max().item(), rel=2e-3), state
        assert n["smallest"] - 1e-9 <= min(ray.min(), expected.min()), state
        assert n["largest"] + 1e-9 >= max(ray.max(), expected.max()), state
        assert n["invertible"] is (state in ALLOWED)


def test_the_inverse_and_the_density_agree_with_torch(show_planar):
    frame = show_planar().frame
    base = Normal(*torch.tensor([0, 1], **DOUBLE)).log_prob(POINTS).sum(-1).exp()
    for state in ALLOWED:
        z, q = frame.evaluate(
            "([s, xs]) => [xs.map(x => figure.inverse(s, x)), xs.map(x => figure.density(s, x))]",
            [state, layer(state, POINTS).tolist()],
        )
        torch.testing.assert_close(torch.tensor(z, **DOUBLE), POINTS, rtol=1e-9, atol=1e-9)
        expected = base / determinants(state, POINTS)
        torch.testing.assert_close(torch.tensor(q, **DOUBLE), expected)
        mass = frame.evaluate(
            """s => {
              let sum = 0;
              for (let i = -300; i < 300; i++) for (let j = -300; j < 300; j++)
                sum += figure.density(s, [(i + 0.5) / 30, (j + 0.5) / 30]);
              return sum / 900;
            }""",
            state,
        )
        assert mass == pytest.approx(1, abs=2e-3), state


def test_the_inverse_holds_out_next_to_the_fold_and_far_away(show_planar):
    frame = show_planar().frame
    xs = [[s * 10.0**k, 1] for k in range(-9, 4) for s in (-1, 1)] + [[0, 0]]
    for p in (-0.999, -0.9, 0.5, 12.5):
        state = planar_state((1, 0), (p, 0), 0)
        zs = frame.evaluate("([s, xs]) => xs.map(x => figure.inverse(s, x))", [state, xs])
        back = layer(state, torch.tensor(zs, **DOUBLE))
        torch.testing.assert_close(back, torch.tensor(xs, **DOUBLE), rtol=1e-12, atol=1e-14)


def test_what_is_shown_of_a_fold_is_the_fold(show_planar):
    """Counted on the way across it: where the determinant is below 0, and how many z have one x."""
    frame = show_planar().frame
    t = torch.linspace(-20, 20, 400_002, **DOUBLE)
    for state in FOLDED:
        n, lost = frame.evaluate(
            "s => [figure.compute(s), [figure.inverse(s, [0, 0]), figure.density(s, [0, 0])]]",
            state,
        )
        assert lost == [None, None]
        if state["kind"] == "planar":  # t is wᵀz + b
            s, det = t + n["product"] * t.tanh(), 1 + n["product"] * (1 - t.tanh() ** 2)
            shown = t.abs() < n["fold"]
        else:  # t is the place on a line through z₀
            centre = torch.tensor(state["z0"], **DOUBLE)
            line = torch.stack([t, torch.zeros_like(t)], -1)
            s, det = layer(state | {"z0": (0, 0)}, line)[:, 0], determinants(state, centre + line)
            shown = (n["fold"][0] < t.abs()) & (t.abs() < n["fold"][1])
        assert ((det < 0) == shown).float().mean() > 0.9999
        for near, origins in ((0.99, 3), (1.01, 1)):
            above = s > near * n["threefold"]
            assert (above[1:] != above[:-1]).sum() == origins, state


def test_the_figure_refuses_at_minus_one_and_says_the_number(show_planar):
    figure = show_planar({"w": (2, 0), "u": (-0.45, 0.3), "b": 0})
    shade, verdict = figure.frame.locator("canvas").nth(1), figure.frame.locator("#verdict")
    mend = figure.frame.get_by_role("button", name="Mend u")
    assert figure.numbers()["invertible"]
    assert "wᵀu = −0.90: contracts" in verdict.inner_text()
    assert "= 0.10: areas ÷\u00a010.00, the density ×\u00a010.00" in verdict.inner_text()
    assert shade.is_visible()
    assert mend.get_attribute("aria-disabled") == "true"
    figure.press("u, first", "ArrowLeft")
    n = figure.numbers()
    assert (n["product"], n["invertible"], n["smallest"]) == (-1, False, 0)
    assert "wᵀu = −1.00: refused" in verdict.inner_text()
    assert "1 + wᵀu = 0.00" in verdict.inner_text()
    assert not shade.is_visible()
    figure.press("u, first", *["ArrowLeft"] * 4)
    assert "wᵀu = −1.40: not invertible" in verdict.inner_text()
    assert "det J = 1 + wᵀu = −0.40 < 0" in verdict.inner_text()
    assert "three origins" in verdict.inner_text()
    assert "det J from −0.40 to 1.00" in figure.frame.locator("#values").inner_text()
    assert figure.frame.locator("#stage svg").get_by_text("no density").is_visible()
    assert figure.frame.locator(".folded").nth(1).get_attribute("d").startswith("M")
    assert "not invertible" in figure.handle("u, first").get_attribute("aria-valuetext")
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('1.40')")
    said = figure.frame.get_by_role("status").inner_text()
    assert "wᵀu = −1.40: not invertible. On the hyperplane det J = 1 + wᵀu = −0.40" in said
    assert "*" not in said


def test_a_number_next_to_minus_one_is_not_said_to_be_it(show_planar):
    figure = show_planar({"w": (0.05, 2), "u": (0.05, -0.5), "b": 0})
    values = figure.frame.locator("#values")
    assert "wᵀu = −0.9975" in values.inner_text()
    assert "det J from 0.0025 to 1.00" in values.inner_text()
    figure.press("u, first", *["ArrowLeft"] * 2)
    assert "wᵀu = −1.0025" in values.inner_text()
    assert figure.numbers()["invertible"] is False


def test_mending_keeps_what_the_rule_keeps(show_planar):
    frame = show_planar().frame
    for state in FOLDED + ALLOWED:
        after = frame.evaluate("s => figure.mend(s)", state)
        before, n = (frame.evaluate("s => figure.compute(s)", s) for s in (state, after))
        p = before["product"]
        expected = p if p >= 0 else 0.999 * math.expm1(p / 0.999)
        assert n["product"] == pytest.approx(expected, abs=1e-9)
        assert n["invertible"]
        if state["kind"] == "planar":
            across = [state["w"][0] * v[1] - state["w"][1] * v[0] for v in (state["u"], after["u"])]
            assert across[0] == pytest.approx(across[1], abs=1e-9)
        changed = {key for key, v in after.items() if v != pytest.approx(state[key])}
        assert changed <= {"u", "beta"}
        assert bool(changed) is (p < 0)


def test_the_button_mends_and_reset_restores(show_planar):
    figure = show_planar()
    mend = figure.frame.get_by_role("button", name="Mend")
    figure.press("u, first", *["PageDown"] * 5, *["ArrowRight"] * 2)
    before = figure.numbers()["product"]
    assert before == pytest.approx(1.5 * -1.2 + 0.5 * 0.4)
    mend.focus()
    figure.page.keyboard.press("Enter")
    after = figure.numbers()
    assert after["product"] == pytest.approx(0.999 * math.expm1(before / 0.999))
    assert figure.frame.locator("canvas").nth(1).is_visible()
    hint = figure.frame.locator("#hint").inner_text()
    assert f"was −{-before:.2f} and is −{-after['product']:.2f} now" in hint
    assert figure.frame.evaluate("document.activeElement.id") == "mend"  # it keeps the focus
    state = figure.frame.evaluate("figure.state")
    mend.click(force=True)  # nothing to mend: nothing moves
    assert figure.frame.evaluate("figure.state") == state
    figure.frame.get_by_role("button", name="Reset").click()
    assert figure.numbers()["product"] == 2
    assert "Drag" in figure.frame.locator("#hint").inner_text()


def test_the_radial_layer_answers_and_refuses_too(show_planar):
    figure = show_planar()
    figure.frame.get_by_label("radial", exact=True).check()
    verdict = figure.frame.locator("#verdict")
    assert figure.numbers()["largest"] == 9
    assert "expands about z₀" in verdict.inner_text()
    beta = figure.frame.get_by_role("slider", name="Strength β")
    beta.fill("-0.5")
    assert figure.numbers()["smallest"] == 0.25
    assert "areas ÷\u00a04.00, the density ×\u00a04.00" in verdict.inner_text()
    beta.fill("-1")
    assert figure.numbers()["invertible"] is False
    assert "β = −α = −1.00: refused" in verdict.inner_text()
    beta.focus()
    for _ in range(8):
        figure.page.keyboard.press("ArrowLeft")
    assert figure.numbers()["product"] == pytest.approx(-1.4)
    assert "β = −1.40 < −α = −1.00: not invertible" in verdict.inner_text()
    assert beta.get_attribute("aria-valuetext") == "−1.40, not invertible"
    assert not figure.frame.locator("canvas").nth(1).is_visible()
    figure.frame.get_by_role("button", name="Mend β").click()
    assert figure.numbers()["product"] == pytest.approx(0.999 * math.expm1(-1.4 / 0.999))
    figure.press("z₀, first", "ArrowRight", "ArrowUp")
    assert figure.frame.evaluate("figure.state.z0") == [0.55, -0.45]
    figure.frame.get_by_role("button", name="Reset").click()
    figure.settle()
    assert figure.frame.evaluate("figure.state.kind") == "radial"
    assert figure.frame.evaluate("figure.state.beta") == 2


@pytest.mark.parametrize(
    "label", ["w, first", "w, second", "u, first", "u, second", "Offset b", "z₀, first"]
)
def test_every_number_of_the_layer_answers_to_the_keyboard(show_planar, label):
    figure = show_planar()
    if label.startswith("z₀"):
        figure.frame.get_by_label("radial", exact=True).check()
    up, down = ("Up", "Down") if "second" in label else ("Right", "Left")
    handle, before = figure.handle(label), figure.value(label)
    text = figure.frame.locator("body").inner_text()
    words = handle.get_attribute("aria-valuetext")
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    figure.press(label, f"Arrow{up}")
    assert figure.value(label) == pytest.approx(before + 0.05)
    assert handle.get_attribute("aria-valuetext") != words
    assert figure.frame.locator("body").inner_text() != text
    figure.press(label, f"Shift+Arrow{down}", "PageUp", f"Arrow{down}")
    assert figure.value(label) == pytest.approx(before)
    for key, end in (("End", "aria-valuemax"), ("Home", "aria-valuemin")):
        figure.press(label, key, f"Arrow{up}" if key == "End" else f"Arrow{down}")
        assert figure.value(label) == float(handle.get_attribute(end))
    figure.frame.get_by_role("button", name="Reset").click()
    assert figure.value(label) == pytest.approx(before)


def test_an_arrow_key_moves_the_tip_its_own_way_and_tab_meets_every_number(show_planar):
    figure = show_planar()
    figure.press("w, first", "ArrowUp", "ArrowRight", "Shift+ArrowDown")
    assert figure.frame.evaluate("figure.state.w") == [1.55, 0.05]
    focus = "document.activeElement.getAttribute('aria-label')"
    assert figure.frame.evaluate(focus) == "w, second component"
    figure.handle("w, first").focus()
    met = [figure.frame.evaluate(focus)]
    for _ in range(4):
        figure.page.keyboard.press("Tab")
        met.append(figure.frame.evaluate(focus))
    assert [m.split(" ")[0] for m in met] == ["w,", "w,", "Offset", "u,", "u,"]


@pytest.mark.parametrize("touch", [False, True])
def test_mouse_and_touch_drag_the_tips_and_the_hyperplane(show_planar, touch):
    figure = show_planar(width=390, has_touch=touch, is_mobile=touch)
    send = figure.page.context.new_cdp_session(figure.page).send
    unit = figure.frame.evaluate("document.querySelector('canvas').clientWidth") / 9

    def pull(label: str, dx: float, dy: float) -> None:
        """Drag by so many units of the plane, dy upwards."""
        figure.handle(label).scroll_into_view_if_needed()
        figure.settle()
        box = figure.handle(label).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        way = [(x + dx * unit * k / 8, y - dy * unit * k / 8) for k in range(9)]
        if touch:
            for k, (px, py) in enumerate(way):
                kind = "touchMove" if k else "touchStart"
                send(
                    "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": px, "y": py}]}
                )
            send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            figure.page.mouse.move(x, y)
            figure.page.mouse.down()
            for px, py in way:
                figure.page.mouse.move(px, py)
            figure.page.mouse.up()
            figure.page.mouse.move(x, y)  # the button is up: nothing follows any more
        figure.settle()

    pull("w, first", 0.5, 1)
    assert figure.frame.evaluate("figure.state.w") == pytest.approx([2, 1.5], abs=0.06)
    pull("w, first", -0.5, -1)
    pull("Offset b", 0.6, 0.2)  # along w: b falls by w times the way
    assert figure.value("Offset b") == pytest.approx(0.5 - 1, abs=0.11)
    pull("u, first", -2.5, 0.2)
    assert figure.frame.evaluate("figure.state.u") == pytest.approx([-1.3, 0.6], abs=0.06)
    assert figure.numbers()["invertible"] is False
    pull("u, first", 6, 0)  # no further than its longest
    assert figure.value("u, first") == 2.5


def test_the_shades_are_the_density_and_follow_the_theme(show_planar):
    figure = show_planar({"w": (1, -1), "u": (0.5, 1.2), "b": 1})
    read = """k => {  // by a copy: the figure itself never reads its canvas
      const c = document.querySelectorAll("canvas")[k], n = c.width;
      const copy = new OffscreenCanvas(n, n).getContext("2d", { willReadFrequently: true });
      copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, n, n).data];
    }"""
    n = figure.frame.evaluate("document.querySelector('canvas').width")
    same = planar_state((0, 0), (0, 0), 0)  # the base is what the identity makes of it
    for k, state in enumerate((same, figure.frame.evaluate("figure.state"))):
        pixels = figure.frame.evaluate(read, k)
        for i, j in ((n // 2, n // 2), (n // 3, n // 2), (n // 2, n // 4), (n // 3, 3 * n // 5)):
            at = [(j + 0.5) / n * 9 - 4.5, 4.5 - (i + 0.5) / n * 9]
            q = figure.frame.evaluate("([s, x]) => figure.density(s, x)", [state, at])
            alpha = 190 * (1 - math.exp(-q / 0.12))
            assert pixels[4 * (i * n + j) + 3] == pytest.approx(alpha, abs=1)
    middle = 4 * (n // 2 * n + n // 2)
    light = [figure.frame.evaluate(read, k)[middle : middle + 3] for k in (0, 1)]
    figure.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    figure.frame.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    figure.settle()
    dark = [figure.frame.evaluate(read, k)[middle : middle + 3] for k in (0, 1)]
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_a_layer_without_a_hyperplane_is_a_shift(show_planar):
    figure = show_planar({"w": (0.05, 0), "u": (1, 0), "b": 0.5})
    assert figure.handle("Offset b").is_visible()
    figure.press("w, first", "ArrowLeft")
    assert "w = 0: a shift" in figure.frame.locator("#verdict").inner_text()
    assert figure.handle("Offset b").count() == 0
    assert figure.numbers() | {"product": 0, "smallest": 1, "largest": 1} == figure.numbers()


def test_many_moves_of_the_layer_are_drawn_once(show_planar):
    assert show_planar().draws("u, first") == 1


@pytest.mark.parametrize("width", [760, 390, 320])
def test_the_layers_fit_their_frame_and_a_drag_does_not_move_the_page(show_planar, width):
    figure = show_planar(width=width)
    heights = {figure.height_where_all_fits(width)}
    tops = figure.frame.evaluate("[...document.querySelectorAll('canvas')].map(c => c.offsetTop)")
    assert (tops[0] == tops[1]) is (width == 760)
    figure.press("u, first", *["PageDown"] * 5)
    heights.add(figure.height_where_all_fits(width))
    figure.frame.get_by_role("button", name="Mend").click()
    heights.add(figure.height_where_all_fits(width))
    if width >= 390:
        assert len(heights) == 1
    figure.frame.get_by_label("radial", exact=True).check()
    figure.frame.get_by_role("slider", name="Strength β").fill("-1.8")
    heights.add(figure.height_where_all_fits(width))
    if width == 760:
        assert max(heights) <= live.planar().height


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_axe_finds_nothing_in_the_layers(show_planar, theme, kind):
    figure = show_planar(theme=theme)
    figure.frame.get_by_label(kind, exact=True).check()
    assert figure.violations() == []
    if kind == "planar":
        figure.press("u, first", *["PageDown"] * 5)
    else:
        figure.frame.get_by_role("slider", name="Strength β").fill("-1.8")
    assert figure.numbers()["invertible"] is False
    assert figure.violations() == []


@pytest.mark.parametrize(
    "start", [{}, {"w": (-1, 0.5), "u": (0.3, 0), "b": -1}, {"u": (-0.5, 1.5)}]
)
def test_the_words_and_the_still_picture_of_the_layer_are_true(start):
    figure = live.planar(**start)
    start = {"w": (1.5, 0.5), "u": (1.2, 0.4), "b": 0.5} | start
    state, (w, u) = planar_state(**start), (start["w"], start["u"])
    product = w[0] * u[0] + w[1] * u[1]
    words = figure.words.replace("−", "-")
    assert f"1 + wᵀu = {1 + product:.4g}, " in words
    assert ("expands" if product > 0 else "contracts" if product else "only shears") in words
    assert "hold 39% and 86% of the mass" in words
    drawn = ET.fromstring(figure.still)
    paths = [p.get("d") or "" for p in drawn.iter(f"{SVG}path")]

    def read(d: str) -> list[Tensor]:
        return [
            torch.tensor(
                [list(map(float, p.split())) for p in part.split("L")], dtype=torch.float64
            )
            for part in d.split("M")[1:]
        ]

    def plane(points: Tensor, middle: int) -> Tensor:
        return (points - torch.tensor([middle, 178])) / torch.tensor([30, -30])

    (discs_z, discs_x), grids = map(read, paths[2:4]), read(paths[5])
    for r, z, x in zip((1, 2), discs_z, discs_x, strict=True):
        torch.testing.assert_close(
            plane(z, 165).norm(dim=-1), torch.full((len(z),), float(r)).double(), rtol=0, atol=4e-3
        )
        torch.testing.assert_close(layer(state, plane(z, 165)), plane(x, 480), rtol=0, atol=1.5e-2)
    assert len(grids) == len(read(paths[4])) == 26
    (line_z, line_x), (arrow_w, arrow_u) = read(paths[6]), read(paths[7])
    for line, middle in ((line_z, 165), (line_x, 480)):
        assert plane(line, middle) @ torch.tensor(w).double() + start["b"] == pytest.approx(
            [0, 0], abs=1e-2
        )
    assert plane(arrow_w, 165)[1].tolist() == pytest.approx(w, abs=2e-3)
    assert plane(arrow_u, 480)[1].tolist() == pytest.approx(u, abs=2e-3)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"w": (2, 0), "u": (-0.5, 1)}, "wᵀu=-1"),
        ({"w": (0, 0)}, "w not 0"),
        ({"w": (2.6, 0)}, r"w=\(2.6, 0\)"),
        ({"u": (0, float("nan"))}, "wᵀu=nan"),
        ({"b": 3.5}, "b=3.5"),
    ],
)
def test_a_layer_outside_the_figure_is_an_error(start, message):
    with pytest.raises(ValueError, match=message):
        live.planar(**start)


# ---- an affine coupling layer --------------------------------------------------------------


show_coupling = opening(live.coupling)


def smooth(values: Any) -> Any:
    """The function through the five knots: torch's own slopes there, and each cubic solved for."""
    v = torch.tensor(values, **DOUBLE)
    slopes = torch.gradient(v, spacing=1.5, edge_order=2)[0]
    pieces = []
    for k in range(4):
        rows = [[(end * 1.5) ** p for p in range(4)] for end in (0, 1)]
        rows += [[p * (end * 1.5) ** max(p - 1, 0) for p in range(4)] for end in (0, 1)]
        ends = torch.stack([v[k], v[k + 1], slopes[k], slopes[k + 1]])
        pieces.append(torch.linalg.solve(torch.tensor(rows, **DOUBLE), ends))

    def at(z: Tensor) -> Tensor:
        z = z.clamp(-3, 3)
        k = ((z + 3) / 1.5).floor().long().clamp(0, 3)
        r = z + 3 - 1.5 * k
        return (torch.stack(pieces)[k] * r[..., None] ** torch.arange(4)).sum(-1)

    return at


def couple(state: dict[str, Any], z: Tensor) -> Tensor:
    s, t = smooth(state["s"]), smooth(state["t"])
    return torch.stack([z[..., 0], z[..., 1] * s(z[..., 0]).exp() + t(z[..., 0])], -1)


COUPLINGS = [
    {"s": s, "t": t, "z1": 0.7}
    for s, t in [
        ((-0.8, 0.4, -0.4, 0.6, 0.2), (1.0, -0.8, -0.4, 0.9, -0.3)),
        ((0, 0, 0, 0, 0), (2.6, -0.1, -1, -0.1, 2.6)),
        ((-1.5, -0.75, 0, 0.75, 1.5), (0, 0, 0, 0, 0)),
        ((1.5, -1.5, 1.5, 1.5, -1.5), (3, 3, -3, 2, -3)),
    ]
]


def test_the_coupling_and_its_log_det_agree_with_torch(show_coupling):
    frame = show_coupling().frame
    base = Normal(*torch.tensor([0, 1], **DOUBLE)).log_prob(POINTS).sum(-1).exp()
    for state in COUPLINGS:
        x, back, at, q = frame.evaluate(
            """([s, zs]) => {
              const xs = zs.map(z => figure.forward(s, z));
              return [xs, xs.map(x => figure.inverse(s, x)), zs.map(z => figure.at(s, z[0])),
                xs.map(x => figure.density(s, x))];
            }""",
            [state, POINTS.tolist()],
        )
        torch.testing.assert_close(torch.tensor(x, **DOUBLE), couple(state, POINTS))
        torch.testing.assert_close(torch.tensor(back, **DOUBLE), POINTS)
        z = POINTS.clone().requires_grad_()
        rows = [torch.autograd.grad(couple(state, z)[:, i].sum(), z)[0] for i in (0, 1)]
        jacobian = torch.stack(rows, -2)
        log_det = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(torch.tensor([n["s"] for n in at], **DOUBLE), log_det)
        torch.testing.assert_close(torch.tensor(q, **DOUBLE), base / log_det.exp())
        assert (jacobian[:, 0] == torch.tensor([1, 0])).all()  # a vertical line stays one
        n = frame.evaluate("s => figure.compute(s)", state)
        s, t = (smooth(state[key])(torch.tensor(0.7, **DOUBLE)).item() for key in "st")
        assert (n["s"], n["t"], n["logDet"]) == pytest.approx((s, t, s))
        assert n["scale"] == pytest.approx(math.exp(s))
        mass = frame.evaluate(
            """s => {
              let sum = 0;
              for (let i = -90; i < 90; i++) for (let j = -600; j < 600; j++)
                sum += figure.density(s, [(i + 0.5) / 20, (j + 0.5) / 20]);
              return sum / 400;
            }""",
            state,
        )
        assert mass == pytest.approx(1, abs=2e-3), state


def test_the_log_scale_stays_within_the_bound_that_is_said(show_coupling):
    top = show_coupling().frame.evaluate(
        """() => {
          let top = 0;
          for (let n = 0; n < 243; n++) {
            const s = [0, 1, 2, 3, 4].map(k => 1.5 * (Math.floor(n / 3 ** k) % 3 - 1));
            for (let z = -3; z <= 3; z += 0.0625) top = Math.max(top, figure.at({ s, t: s }, z).s);
          }
          return top;
        }"""
    )
    assert top == pytest.approx(1.875)


@pytest.mark.parametrize("label", ["s at z₁ = 0.0", "t at z₁ = −3.0", "t at z₁ = 3.0", "Ruler"])
def test_the_coupling_answers_to_the_keyboard_and_stays_in_its_range(show_coupling, label):
    figure = show_coupling()
    handle, before = figure.handle(label), figure.value(label)
    text = figure.frame.locator("body").inner_text()
    words = handle.get_attribute("aria-valuetext")
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    figure.press(label, "ArrowUp")
    assert figure.value(label) == pytest.approx(before + 0.05)
    assert handle.get_attribute("aria-valuetext") != words
    assert figure.frame.locator("body").inner_text() != text
    figure.press(label, "Shift+ArrowDown", "PageUp", "ArrowLeft")
    assert figure.value(label) == pytest.approx(before)
    limit = 1.5 if label.startswith("s") else 3
    for key, end in (("End", limit), ("Home", -limit)):
        figure.press(label, key, "ArrowUp" if key == "End" else "ArrowDown")
        assert figure.value(label) == end
    figure.click("Reset")
    assert figure.value(label) == pytest.approx(before)


def test_tab_meets_every_knot_and_the_ruler(show_coupling):
    figure = show_coupling()
    figure.handle("s at z₁ = −3.0").focus()
    met = []
    for _ in range(11):
        label = figure.frame.evaluate("document.activeElement.getAttribute('aria-label')")
        met.append(label.split(" ")[0])
        figure.page.keyboard.press("Tab")
    assert met == ["s"] * 5 + ["t"] * 5 + ["Ruler"]


@pytest.mark.parametrize("touch", [False, True])
def test_mouse_and_touch_shape_the_coupling(show_coupling, touch):
    figure = show_coupling(width=390, has_touch=touch, is_mobile=touch)
    figure.pull("s at z₁ = 1.5", 5, 18, touch)  # the panel is 72 pixels high, from -2 to 2
    assert figure.value("s at z₁ = 1.5") == pytest.approx(0.6 + 18 * 4 / 72 - 0.1, abs=0.06)
    figure.pull("t at z₁ = −1.5", 0, -10, touch)  # from -3.6 to 3.6
    assert figure.value("t at z₁ = −1.5") == pytest.approx(-0.8 - 10 * 7.2 / 72, abs=0.06)
    unit = figure.frame.evaluate("document.querySelector('canvas').clientWidth") / 6.8
    figure.pull("Ruler", -2 * unit, 0, touch)
    assert figure.value("Ruler") == pytest.approx(-1, abs=0.06)
    n = figure.numbers()
    text = figure.frame.locator("#values").inner_text().replace("−", "-")
    assert f"s = {n['s']:.2f}" in text
    assert f"t = {n['t']:.2f}" in text
    assert f"= {math.exp(n['s']):.2f}" in text
    assert f"log-det = s = {n['s']:.2f}" in text


def test_the_examples_are_what_their_notes_say(show_coupling):
    figure = show_coupling()
    at = "[-2.6, -1, 0, 0.4, 2].map(z => figure.at(figure.state, z)).flatMap(v => [v.s, v.t])"

    def found() -> dict[str, list[float]]:
        values = figure.frame.evaluate(at)
        return {"s": values[::2], "t": values[1::2]}

    zs, hint, verdict = (
        [-2.6, -1, 0, 0.4, 2],
        *(figure.frame.locator(i) for i in ("#hint", "#verdict")),
    )
    start = figure.frame.evaluate("figure.state")
    figure.click("Identity")
    assert found() == {"s": [0] * 5, "t": [0] * 5}
    assert "same length, not shifted" in verdict.inner_text()
    figure.click("Shift only")
    assert found()["s"] == [0] * 5
    assert "here and everywhere" in verdict.inner_text()
    assert figure.numbers()["volumeKept"]
    figure.click("Banana")
    assert found()["t"] == pytest.approx([0.4 * z * z - 1 for z in zs])
    assert "t = 0.4 z₁² − 1" in hint.inner_text()
    figure.frame.get_by_role("button", name="Funnel").focus()
    figure.page.keyboard.press("Enter")
    figure.settle()
    assert found()["s"] == pytest.approx([z / 2 for z in zs])
    assert found()["t"] == [0] * 5
    assert "everywhere" not in verdict.inner_text()
    figure.press("Ruler", "End")
    assert f"length ×\u00a0{math.exp(1.5):.2f}, not shifted" in verdict.inner_text()
    assert "Drag" in hint.inner_text()
    figure.click("Reset")
    assert figure.frame.evaluate("figure.state") == start


def test_the_ruler_is_drawn_shifted_and_stretched(show_coupling):
    figure = show_coupling({"s": (0, 0, 1, 0, 0), "t": (0, 0, -0.5, 0, 0), "z1": 0})
    unit = figure.frame.evaluate("document.querySelector('canvas').clientHeight") / 8
    whole = figure.frame.locator("canvas").nth(1).bounding_box()
    ends = []
    for ruler in figure.frame.locator(".ruler").all():
        found = re.match(r"M[\d.]+ ([-\d.]+)V([-\d.]+)", ruler.get_attribute("d"))
        ends.append([float(y) / unit for y in found.groups()])
    bottom, top = ends[0]
    assert bottom - top == pytest.approx(4)
    shifted, stretched = [(top + bottom) / 2 + 0.5 - k * 2 * math.e for k in (-1, 1)]
    assert ends[1] == pytest.approx([shifted, stretched], abs=0.02)
    middle = figure.frame.locator("#stage .value").nth(3).bounding_box()
    assert middle["y"] + middle["height"] / 2 == pytest.approx(whole["y"] + 4.5 * unit, abs=1)


def test_the_coupling_says_its_numbers_once_it_rests(show_coupling):
    figure = show_coupling()
    figure.press("s at z₁ = 0.0", "ArrowUp")
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('s(0.0)')")
    said, n = figure.frame.get_by_role("status").inner_text(), figure.numbers()
    assert said.startswith("s(0.0) = −0.35. Line z₁ = 1.00: length ×")
    assert f"log-det = s = {n['logDet']:.2f}." in said
    assert "*" not in said
    assert "s(0.0) = −0.35" in figure.frame.locator("#stage svg").text_content()


def test_the_shades_of_the_coupling_are_the_density(show_coupling):
    """On planes that are higher than wide."""
    figure = show_coupling()
    read = """k => {
      const c = document.querySelectorAll("canvas")[k], n = c.width;
      const copy = new OffscreenCanvas(n, n).getContext("2d", { willReadFrequently: true });
      copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, n, n).data];
    }"""
    n = figure.frame.evaluate("document.querySelector('canvas').width")
    none = {"s": [0] * 5, "t": [0] * 5, "z1": 0}
    for k, state in enumerate((none, figure.frame.evaluate("figure.state"))):
        pixels = figure.frame.evaluate(read, k)
        for i, j in ((n // 2, n // 2), (n // 3, n // 2), (n // 2, n // 4), (n // 3, 3 * n // 5)):
            at = [(j + 0.5) / n * 6.8 - 3.4, 4 - (i + 0.5) / n * 8]
            q = figure.frame.evaluate("([s, x]) => figure.density(s, x)", [state, at])
            assert pixels[4 * (i * n + j) + 3] == pytest.approx(
                190 * (1 - math.exp(-q / 0.12)), abs=1
            )


def test_many_moves_of_the_coupling_are_drawn_once(show_coupling):
    assert show_coupling().draws("t at z₁ = 0.0") == 1


@pytest.mark.parametrize("width", [1280, 760, 390, 320])
def test_the_coupling_fits_its_frame_and_keeps_its_height(show_coupling, width):
    figure = show_coupling(width=width)
    heights = {figure.height_where_all_fits(width)}
    for button in ("Identity", "Shift only", "Banana", "Funnel"):
        figure.click(button)
        heights.add(figure.height_where_all_fits(width))
    figure.press("s at z₁ = −3.0", "PageUp")
    figure.press("Ruler", "Home")
    heights.add(figure.height_where_all_fits(width))
    if width >= 390:
        assert len(heights) == 1
    assert max(heights) <= live.coupling().height


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_coupling(show_coupling, theme):
    assert show_coupling(theme=theme).violations() == []


def strokes(d: str) -> list[Tensor]:
    """The lines of a path of straight lines."""
    return [
        torch.tensor([list(map(float, p.split())) for p in part.split("L")], **DOUBLE)
        for part in d.split("M")[1:]
    ]


def test_the_words_and_the_still_picture_of_the_coupling_are_true():
    start = {"s": (0.5, -0.5, 1, 0.2, -1), "t": (1, 0, -2, 1.5, 3), "z1": -0.8}
    figure = live.coupling(**start)
    s, t = (smooth(start[key])(torch.tensor(-0.8, **DOUBLE)).item() for key in "st")
    words = figure.words.replace("−", "-")
    assert f"at z₁ = -0.8, s = {s:.2f} and t = {t:.2f}" in words
    assert f"x₂ = {math.exp(s):.2f} z₂ - {-t:.2f}, with log-det s = {s:.2f}" in words
    assert f"z₂ = (x₂ + {-t:.2f}) / {math.exp(s):.2f}" in words
    paths = [p.get("d") or "" for p in ET.fromstring(figure.still).iter(f"{SVG}path")]

    def plane(points: Tensor, middle: float) -> Tensor:
        return (points - torch.tensor([middle, 266])) / torch.tensor([39, -39])

    for d, key, middle, unit in ((paths[2], "s", 162.5, 14), (paths[3], "t", 477.5, 28 / 3.6)):
        ((curve),) = strokes(d)
        expected = smooth(start[key])((curve[:, 0] - middle) / 39)
        torch.testing.assert_close((54 - curve[:, 1]) / unit, expected, rtol=0, atol=0.02)
    for before, after in zip(strokes(paths[4]), strokes(paths[5]), strict=True):  # the discs
        moved = couple(start, plane(before, 162.5))
        torch.testing.assert_close(moved, plane(after, 477.5), rtol=0, atol=0.03)
    assert len(strokes(paths[6])) == len(strokes(paths[7])) == 26
    (one, *_), (two, *_) = strokes(paths[8]), strokes(paths[9])
    moved = couple(start, plane(one, 162.5))
    torch.testing.assert_close(moved, plane(two, 477.5), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"s": (0, 0, 0, 0)}, r"got s=\(0, 0, 0, 0\)"),
        ({"s": (0, 0, 1.6, 0, 0)}, "five values of s from -1.5 to 1.5"),
        ({"t": (0, 0, float("nan"), 0, 0)}, "nan"),
        ({"z1": 3.1}, "z1=3.1"),
    ],
)
def test_a_coupling_outside_the_figure_is_an_error(start, message):
    with pytest.raises(ValueError, match=message):
        live.coupling(**start)


# ---- a monotone spline ---------------------------------------------------------------------


show_spline = opening(live.spline)


def spline_state(z: Any, x: Any, slope: Any, probe: float = 0.3) -> dict[str, Any]:
    return {"z": z, "x": x, "slope": slope, "probe": probe, "chosen": 0}


SPLINES = [
    spline_state((-0.8, 0, 0.9), (-1.7, -0.2, 1.3), (0.7, 4, 0.7)),
    spline_state((0,), (0,), (1,)),
    spline_state((2.9,), (-2.9,), (10,)),
    spline_state((-1, -0.9, 0.5), (-1, 1.9, 2), (0.1, 10, 0.1)),
    spline_state(
        (-2, -1.5, -1, 0, 1, 1.1, 2.9), (-2.9, -2.8, 0, 0.1, 1, 2, 2.1), (1, 5, 0.2, 1, 1, 9, 0.1)
    ),
]


def rational(state: dict[str, Any], x: Tensor) -> Tensor:
    """z by Gregory and Delbourgo's own form of the rational quadratic, P/Q, and not the figure's."""
    xs, zs, d = (
        torch.tensor([end, *values, -end * sign], **DOUBLE)
        for end, values, sign in [
            (-3, state["x"], 1),
            (-3, state["z"], 1),
            (1, [1 / v for v in state["slope"]], -1),
        ]
    )
    k = (torch.searchsorted(xs, x.detach().contiguous(), right=True) - 1).clamp(0, len(xs) - 2)
    w = xs[k + 1] - xs[k]
    r, rate = (x - xs[k]) / w, (zs[k + 1] - zs[k]) / w
    low, high = zs[k] * (1 - r) ** 2, zs[k + 1] * r**2
    over = high + (zs[k] * d[k + 1] + zs[k + 1] * d[k]) / rate * r * (1 - r) + low
    z = over / (r**2 + (d[k + 1] + d[k]) / rate * r * (1 - r) + (1 - r) ** 2)
    return torch.where(x.abs() < 3, z, x)


def test_the_spline_and_its_density_agree_with_torch(show_spline):
    frame = show_spline().frame
    for state in SPLINES:
        x = torch.linspace(-4, 4, 1601, **DOUBLE).requires_grad_()
        z = rational(state, x)
        (rate,) = torch.autograd.grad(z.sum(), x)
        found = frame.evaluate(
            "([s, xs]) => xs.map(x => figure.at(s, x)).map(v => [v.z, v.dzdx, v.density])",
            [state, x.tolist()],
        )
        z, x = z.detach(), x.detach()
        density = Normal(*torch.tensor([0, 1], **DOUBLE)).log_prob(z).exp() * rate
        torch.testing.assert_close(
            torch.tensor(found, **DOUBLE), torch.stack([z, rate, density], -1), rtol=1e-7, atol=1e-9
        )
        assert (z.diff() > 0).all()
        assert (rate > 0).all()
        # at the knots it is what the handles say
        knots = frame.evaluate("s => s.x.map(x => figure.at(s, x))", state)
        assert [n["z"] for n in knots] == pytest.approx(state["z"])
        assert [1 / n["dzdx"] for n in knots] == pytest.approx(state["slope"])
        # and at the probe
        n = frame.evaluate("s => figure.compute(s)", state)
        at = torch.tensor(0.3, **DOUBLE).requires_grad_()
        z = rational(state, at)
        (rate,) = torch.autograd.grad(z, at)
        assert n["z"] == pytest.approx(z.item())
        assert n["slope"] == pytest.approx(1 / rate.item())
        assert n["logDet"] == pytest.approx(rate.log().item())
        log_prob = Normal(0.0, 1.0).log_prob(z.detach()) + rate.log()
        assert n["logProb"] == pytest.approx(log_prob.item(), abs=1e-6)
        assert n["bins"] == len(state["x"]) + 1


def test_the_density_of_the_spline_integrates_to_one(show_spline):
    frame = show_spline().frame
    for state in SPLINES:
        mass = frame.evaluate(
            """s => {
              let sum = 0;
              for (let k = -80000; k < 80000; k++) sum += figure.at(s, (k + 0.5) / 16000).density;
              return sum / 16000;
            }""",
            state,
        )
        assert mass == pytest.approx(NormalDist().cdf(5) * 2 - 1, abs=1e-6), state


def test_outside_its_box_the_spline_is_the_identity(show_spline):
    figure = show_spline()
    figure.press("Point x", "End")
    n = figure.numbers()
    assert (n["x"], n["z"], n["slope"], n["logDet"]) == (4, 4, 1, 0)
    cells = [c.inner_text().replace("−", "-") for c in figure.frame.locator("#sum td").all()]
    assert cells == ["4.00", "4.00", "1.00", "-8.92", "0.00", "-8.92"]


@pytest.mark.parametrize("label", ["Knot 1, z", "Knot 2, x", "Knot 2, log", "Point x"])
def test_the_spline_answers_to_the_keyboard_and_stays_in_its_range(show_spline, label):
    figure = show_spline()
    up, down = ("Right", "Left") if label.endswith("z") else ("Up", "Down")
    handle, before = figure.handle(label), figure.value(label)
    words = handle.get_attribute("aria-valuetext")
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    text = figure.frame.locator("body").inner_text()
    figure.press(label, f"Arrow{up}")
    assert figure.value(label) == pytest.approx(
        before + 0.05, abs=0.026
    )  # to the next of its steps
    assert handle.get_attribute("aria-valuetext") != words
    assert figure.frame.locator("body").inner_text() != text
    for key, end in (("End", "aria-valuemax"), ("Home", "aria-valuemin")):
        figure.press(label, key, f"Arrow{up}" if key == "End" else f"Arrow{down}")
        assert figure.value(label) == float(handle.get_attribute(end))
        state = figure.frame.evaluate("figure.state")
        for knots in (state["z"], state["x"]):
            ends = [-3, *knots, 3]
            assert all(b - a > 0.1 - 1e-9 for a, b in itertools.pairwise(ends))
        assert all(0.1 - 1e-9 <= slope <= 10 + 1e-9 for slope in state["slope"])
    figure.click("Reset")
    assert figure.value(label) == pytest.approx(before, abs=1e-3)


def test_tab_goes_from_a_knot_to_its_slope_and_on(show_spline):
    figure = show_spline()
    figure.handle("Knot 1, z").focus()
    met = []
    for _ in range(10):
        figure.settle()
        label = figure.frame.evaluate("document.activeElement.getAttribute('aria-label')")
        met.append(label.replace("Knot ", "").replace(", ", "")[:2])
        figure.page.keyboard.press("Tab")
    assert met == ["1z", "1x", "1l", "2z", "2x", "2l", "3z", "3x", "3l", "Po"]
    assert figure.frame.evaluate("figure.state.chosen") == 2
    figure.press("Knot 1, z", "ArrowUp")  # an arrow key moves the knot its own way
    assert figure.frame.evaluate("figure.state.x[0]") == -1.65
    assert figure.frame.evaluate("figure.state.z[0]") == -0.8
    assert "Knot 1 of 3" in figure.frame.locator("#verdict").inner_text()


@pytest.mark.parametrize("touch", [False, True])
def test_mouse_and_touch_drag_the_knots_their_slopes_and_the_point(show_spline, touch):
    figure = show_spline(width=390, has_touch=touch, is_mobile=touch)
    box = figure.frame.locator(".box").bounding_box()
    unit = box["width"] / 6
    figure.pull("Knot 1, z", -0.7 * unit, 0.5 * unit, touch)
    state = figure.frame.evaluate("figure.state")
    assert (state["z"][0], state["x"][0]) == pytest.approx((-1.5, -1.2), abs=0.06)
    assert state["chosen"] == 0
    figure.pull("Knot 1, z", 6 * unit, 6 * unit, touch)  # no further than the next knot
    state = figure.frame.evaluate("figure.state")
    assert (state["z"][0], state["x"][0]) == pytest.approx((-0.1, -0.3))
    figure.pull("Knot 1, z", -1.4 * unit, -0.9 * unit, touch)
    # turn the slope: 0.7 to about 2, by the square's way round the knot
    arm = [30 / math.hypot(1, s) * v for s, k in ((0.7, -1), (2, 1)) for v in (k, k * s)]
    figure.pull("Knot 1, log", arm[0] + arm[2], arm[1] + arm[3], touch)
    assert figure.frame.evaluate("figure.state.slope[0]") == pytest.approx(2, rel=0.1)
    figure.pull("Point x", 0, -2 * unit, touch)
    assert figure.numbers()["x"] == pytest.approx(-0.5, abs=0.06)


@pytest.mark.parametrize("touch", [False, True])
def test_of_two_knots_that_overlap_the_nearer_one_is_dragged(show_spline, touch):
    figure = show_spline(
        {"z": (-0.1, 0, 0.1), "x": (-0.1, 0, 0.1), "slope": (1, 1, 1)},
        has_touch=touch,
    )
    for k, step in ((2, 30), (0, -30), (1, 20)):
        before = figure.frame.evaluate("figure.state")
        figure.pull(f"Knot {k + 1}, z", step, step, touch)
        after = figure.frame.evaluate("figure.state")
        assert after["chosen"] == k
        assert [j for j in range(3) if after["x"][j] != before["x"][j]] == [k]


def test_knots_come_and_go_between_two_bins_and_eight(show_spline):
    figure = show_spline()
    add, remove = (figure.frame.locator(f"#{name}") for name in ("add", "remove"))
    for bins in (5, 6, 7, 8):
        before = figure.frame.evaluate("figure.state")
        add.click()
        n, state = figure.numbers(), figure.frame.evaluate("figure.state")
        k = state["chosen"]
        assert n["bins"] == bins
        at = figure.frame.evaluate("([s, x]) => figure.at(s, x)", [before, state["x"][k]])
        assert state["z"][k] == pytest.approx(at["z"], abs=1e-3)  # on the curve, with its slope
        assert state["slope"][k] == pytest.approx(1 / at["dzdx"], abs=1e-3)
        assert f"Knot {k + 1} added" in figure.frame.locator("#hint").inner_text()
        xs = [-3 + 0.05 * j for j in range(121)]
        old, new = (
            figure.frame.evaluate("([s, xs]) => xs.map(x => figure.at(s, x).z)", [s, xs])
            for s in (before, state)
        )
        assert max(abs(a - b) for a, b in zip(old, new, strict=True)) < 0.1
    figure.settle()
    assert add.get_attribute("aria-disabled") == "true"
    add.click(force=True)
    assert figure.numbers()["bins"] == 8
    assert figure.frame.get_by_role("slider", name=re.compile("Knot ., z")).count() == 7
    figure.handle("Knot 3, z").focus()
    figure.settle()
    state = figure.frame.evaluate("figure.state")
    figure.click("Remove knot 3")
    assert figure.frame.evaluate("figure.state.x") == state["x"][:2] + state["x"][3:]
    for _ in range(5):
        remove.click()
        figure.settle()
    assert remove.get_attribute("aria-disabled") == "true"
    remove.click(force=True)
    assert figure.numbers()["bins"] == 2
    figure.click("Identity")
    assert figure.numbers()["slope"] == pytest.approx(1)
    assert figure.numbers()["z"] == pytest.approx(figure.numbers()["x"])
    figure.click("Reset")
    assert figure.numbers()["bins"] == 4


def test_no_knot_is_added_where_no_bin_has_room(show_spline):
    frame = show_spline().frame
    stairs = spline_state(
        (-2.9, -1.1, -1, 0.8, 0.9, 2.9), (-1.6, -1.5, 0.3, 0.4, 2.8, 2.9), (1,) * 6
    )
    assert frame.evaluate("s => figure.added(s)", stairs) is None


def test_the_spline_says_its_numbers_once_it_rests(show_spline):
    figure = show_spline()
    figure.press("Knot 2, log", "ArrowUp")
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('4.26')")
    said, n = figure.frame.get_by_role("status").inner_text(), figure.numbers()
    assert "Knot 2 of 3: z = 0.00, x = −0.20, slope 4.26." in said
    words = f"At x = 1.50: z = {n['z']:.2f}, slope {n['slope']:.2f}, log p(x) = "
    assert words in said
    assert said.replace("−", "-").endswith(f" = {n['logProb']:.2f}.")


def test_many_moves_of_the_spline_are_drawn_once(show_spline):
    assert show_spline().draws("Knot 2, z") == 1


@pytest.mark.parametrize("width", [1280, 760, 390, 320])
def test_the_spline_fits_its_frame_and_keeps_its_height(show_spline, width):
    figure = show_spline(width=width)
    heights = {figure.height_where_all_fits(width)}
    figure.press("Knot 2, log", "Home")
    figure.press("Point x", "Home")
    heights.add(figure.height_where_all_fits(width))
    for button in ("Add a knot", "Add a knot", "Remove", "Identity"):
        figure.click(button)
        heights.add(figure.height_where_all_fits(width))
    if width >= 390:
        assert len(heights) == 1
    assert max(heights) <= live.spline().height


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_spline(show_spline, theme):
    assert show_spline(theme=theme).violations() == []


def test_the_words_and_the_still_picture_of_the_spline_are_true():
    start = {"z": (-1.5, 0.5), "x": (-0.5, 1.5), "slope": (2, 0.25), "probe": 1.0}
    figure, state = live.spline(**start), spline_state(**start)
    x = torch.tensor(1.0, **DOUBLE).requires_grad_()
    z = rational(state, x)
    (rate,) = torch.autograd.grad(z, x)
    logs = Normal(0.0, 1.0).log_prob(z.detach()).item(), rate.log().item()
    words = figure.words.replace("−", "-")
    assert "rational-quadratic spline of 3 bins from -3 to 3" in words
    assert "(-1.5, -0.5), (0.5, 1.5) with slopes 2, 0.25" in words
    assert f"At x = 1: z = {z.item():.2f} and dx/dz = {1 / rate.item():.2f}" in words
    sign = "-" if logs[1] < 0 else "+"
    assert f"{logs[0]:.2f} {sign} {abs(logs[1]):.2f} = {sum(logs):.2f}" in words
    paths = [p.get("d") or "" for p in ET.fromstring(figure.still).iter(f"{SVG}path")]
    (curve,), (base,), (data,) = (strokes(paths[k]) for k in (2, 5, 6))
    place = (curve - torch.tensor([200, 190])) / torch.tensor([40, -40])
    torch.testing.assert_close(rational(state, place[:, 1]), place[:, 0], rtol=0, atol=0.02)
    assert area(paths[5]) / (40 * 130) == pytest.approx(1, rel=2e-3)
    x = ((190 - data[:, 1]) / 40).requires_grad_()
    z = rational(state, x)
    (rate,) = torch.autograd.grad(z.sum(), x)
    density = Normal(0.0, 1.0).log_prob(z.detach()).exp() * rate
    wide = 210 / density.max()
    torch.testing.assert_close((data[:, 0] - 380) / wide, density, rtol=0, atol=0.02)
    assert len(base) == 161


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"z": (0, 0.05, 1)}, r"z=\(0, 0.05, 1\)"),
        ({"x": (0, -1, 1)}, "at least 0.1 apart"),
        ({"z": (), "x": (), "slope": ()}, "1 to 7 knots"),
        ({"slope": (1, 1)}, r"slope=\(1, 1\)"),
        ({"slope": (1, 11, 1)}, "slopes from 0.1 to 10"),
        ({"x": (-1, float("nan"), 1)}, "nan"),
        ({"probe": 5}, "probe=5"),
    ],
)
def test_a_spline_outside_the_figure_is_an_error(start, message):
    with pytest.raises(ValueError, match=message):
        live.spline(**start)


# ---- a masked network ----------------------------------------------------------------------


show_network = opening(live.autoregressive)

NETWORKS = [
    {"order": order, "seed": seed}
    for order in ((0, 1), (1, 0), (2, 0, 1), (0, 1, 2, 3), (2, 0, 3, 1), (4, 1, 0, 3, 2))
    for seed in (None, 1, 5, 8)
]


def network(order: Any, seed: int | None) -> MaskedMLP:
    """The library's network, in double precision, with every weight 1 and no biases."""
    net = MaskedMLP(len(order), 1, (6, 6), order=order, seed=seed).double()
    for name, values in net.named_parameters():
        torch.nn.init.constant_(values, float("weight" in name))
    return net


def layers_of(net: MaskedMLP) -> list[Tensor]:
    """What stands in the units of each layer at x = (1, ..., 1), for autograd to follow."""
    values = [torch.ones(net.dim, **DOUBLE, requires_grad=True)]
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, made: values.append(made))
        for layer in net.layers
    ]
    net(values[0])
    for hook in hooks:
        hook.remove()
    return values


def slopes(values: list[Tensor], later: int, earlier: int) -> Tensor:
    """How each unit of a later layer changes with each of an earlier one: paths, as weights are 1."""
    rows = [torch.autograd.grad(v, values[earlier], retain_graph=True)[0] for v in values[later]]
    return torch.stack(rows)


def network_state(start: dict[str, Any], unit: Any = (0, 0), step: int = 0) -> dict[str, Any]:
    opened = live.autoregressive(**start).start
    return {**opened, "unit": list(unit), "step": step, "byOrder": False}


@pytest.mark.parametrize("start", NETWORKS, ids=str)
def test_the_start_has_the_degrees_of_the_library_and_leaves_the_generator_alone(start):
    before = torch.get_rng_state()
    degrees = live.autoregressive(**start).start["degrees"]
    assert torch.equal(torch.get_rng_state(), before)
    sizes = MaskedMLP(len(start["order"]), 1, (6, 6), **start).sizes
    expected = [[m for m, many in enumerate(layer) for _ in range(many)] for layer in sizes[1:3]]
    assert degrees == expected


def test_the_networks_of_these_tests_have_units_that_see_less_than_they_may():
    """Else the tests below would not meet a cell, or a sentence, of that kind."""
    hidden = [live.autoregressive(**start).start["degrees"] for start in NETWORKS]
    assert any(first[0] > 1 for first, _ in hidden)
    assert any(first[0] == 1 and second[0] > 1 for first, second in hidden)
    assert any("but paths come from" in live.autoregressive(**s, unit=u).words for s, u in BLIND)
    assert any("but no path comes" in live.autoregressive(**s, unit=u).words for s, u in BLIND)


BLIND = [
    (start, (layer, k))
    for start in NETWORKS
    for layer, units in ((2, 6), (3, len(start["order"])))
    for k in range(units)
]


def test_the_masks_and_the_paths_are_those_of_the_library(show_network):
    states = [network_state(start) for start in NETWORKS]
    found = show_network().frame.evaluate("states => states.map(figure.compute)", states)
    for start, n in zip(NETWORKS, found, strict=True):
        net = network(**start)
        masks = [layer.mask.long() for layer in net.layers]
        assert n["masks"] == [mask.tolist() for mask in masks]
        assert n["kept"] == sum(mask.sum().item() for mask in masks)
        assert n["weights"] == sum(mask.numel() for mask in masks)
        paths = masks[2] @ masks[1] @ masks[0]
        assert n["paths"] == paths.tolist() == slopes(layers_of(net), 3, 0).tolist()
        assert n["reached"] == (paths > 0).sum()
        assert n["cells"] == net.dim * (net.dim - 1) / 2
        in_order = paths[list(start["order"])][:, list(start["order"])]
        assert torch.equal(in_order, in_order.tril(-1))


@pytest.mark.parametrize("start", NETWORKS[2::5], ids=str)
def test_the_pattern_is_that_of_the_jacobian_of_a_layer(show_network, start):
    layer = Autoregressive(len(start["order"]), Affine(), hidden=(6, 6), **start).double()
    for weight in layer.net.parameters():
        torch.nn.init.constant_(weight, 0.1)
    x = torch.ones(layer.dim, **DOUBLE)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.inverse(x)[0], x)
    n = show_network(start).numbers()
    expected = torch.tensor(n["paths"]) + torch.eye(layer.dim)
    assert torch.equal(jacobian != 0, expected > 0)


@pytest.mark.parametrize("start", NETWORKS[3::4], ids=str)
def test_what_a_unit_lights_is_what_autograd_finds(show_network, start):
    frame, values = show_network().frame, layers_of(network(**start))
    between = {(i, j): slopes(values, i, j) for j, i in itertools.combinations(range(4), 2)}
    units = [(i, k) for i, value in enumerate(values) for k in range(len(value))]
    states = [network_state(start, unit) for unit in units]
    found = frame.evaluate("states => states.map(figure.compute)", states)
    eye = torch.eye(len(start["order"]), **DOUBLE)
    for (layer, k), n in zip(units, found, strict=True):
        expected = [["" for _ in value] for value in values]
        expected[layer][k] = "touched"
        for i in range(4):
            for u in range(len(values[i])):
                if i < layer and between[layer, i][k, u]:
                    expected[i][u] = "before"
                if i > layer and between[i, layer][u, k]:
                    expected[i][u] = "after"
        assert n["touched"] == expected
        into = between[layer, 0][k] if layer else eye[k]
        out = between[3, layer][:, k] if layer < 3 else eye[k]
        assert n["lit"] == (torch.outer(out, into) > 0).tolist()
        assert n["sees"] == ([d for d in range(len(eye)) if into[d]] if layer else [])
        assert n["makes"] == ([d for d in range(len(eye)) if out[d]] if layer < 3 else [])


def test_the_rules_for_degrees_and_orders_are_those_of_the_library(show_network):
    frame = show_network().frame
    cases = [
        (w, least, most) for w in (1, 5, 6, 8) for most in range(5) for least in range(most + 1)
    ]
    found = frame.evaluate("cases => cases.map(c => figure.even(...c))", cases)
    assert found == [hidden_degrees(*case, None) for case in cases]
    draws = [0.1, 0.99, 0.5, 0.0, 0.74]
    drawn = frame.evaluate("draws => figure.drawn(6, 1, 4, () => draws.shift())", draws)
    assert drawn == [1, 1, 3, 3, 4, 4]
    assert frame.evaluate("figure.drawn(4, 1, 3, () => 0)") == [1, 1, 1, 3]  # the largest is there
    half = "figure.hidden(4, (...limits) => figure.drawn(...limits, () => 0.5))"
    assert frame.evaluate(half) == [[2, 2, 2, 2, 2, 3], [3] * 6]  # the second starts at 2
    for order in ([0, 1], [1, 2, 0], [0, 1, 2, 3, 4]):
        orders = frame.evaluate("o => Array.from({ length: 99 }, () => figure.mixed(o))", order)
        assert order not in orders
        assert all(sorted(found) == sorted(order) for found in orders)
        assert len(set(map(tuple, orders))) > (1 if len(order) > 2 else 0)


@pytest.mark.parametrize("start", NETWORKS[0::5], ids=str)
def test_a_step_of_sampling_is_that_of_the_library(show_network, monkeypatch, start):
    """The products of each step, counted as the library makes them; and which units are computed."""
    net, dim = network(**start), len(start["order"])
    made, plain = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda b, w, x: made.append(w.numel()) or plain(b, w, x))
    walk = Incremental(net, torch.zeros(1, dim, **DOUBLE), torch.ones(dim, 1, **DOUBLE), None)
    frame, computed, used = show_network(start).frame, set(), 0
    for step in range(1, dim + 1):
        made.clear()
        walk.outputs()
        walk.learn([torch.ones(1, **DOUBLE)])
        n = frame.evaluate("figure.compute", network_state(start, step=step))
        used += sum(made)
        assert (n["now"], n["used"]) == (sum(made), used)
        now = {(i, k) for i in range(1, 4) for k, v in enumerate(n["touched"][i]) if v == "now"}
        assert len(now) == sum(net.sizes[i][step - 1] for i in range(1, 4))
        assert not now & computed
        computed |= now
        d = start["order"][step - 1]
        assert n["touched"][0][d] == "found"
        assert n["touched"][0].count("known") == step - 1
        assert n["touched"][3][d] == "now"
        assert n["lit"] == [[i == d and v > 0 for v in row] for i, row in enumerate(n["paths"])]
    assert used == n["kept"] == sum(int(layer.mask.sum()) for layer in net.layers)
    assert len(computed) == 12 + dim


def at_unit(figure: Shown) -> str:
    """The name of the unit that has the focus, which is the one that is chosen."""
    figure.settle()
    name = figure.frame.evaluate("document.activeElement.getAttribute('aria-label')")
    (checked,) = figure.frame.locator("[role=radio][aria-checked=true]").all()
    assert checked.get_attribute("aria-label") == name
    return name


def test_the_arrow_keys_walk_over_the_units_and_tab_passes_them_by(show_network):
    figure = show_network({"order": (2, 0, 3, 1), "seed": 1})
    degrees = figure.numbers()["degrees"]
    figure.frame.get_by_role("button", name="mix").focus()
    met = []
    while "Hidden unit" not in (met or [""])[-1]:
        figure.page.keyboard.press("Tab")
        met.append(figure.frame.evaluate("document.activeElement.getAttribute('aria-label')") or "")
    assert at_unit(figure) == f"Hidden unit 3 of layer 1, degree {degrees[1][2]}"
    for key, expected in [
        ("ArrowDown", f"Hidden unit 4 of layer 1, degree {degrees[1][3]}"),
        ("ArrowRight", f"Hidden unit 4 of layer 2, degree {degrees[2][3]}"),
        ("ArrowRight", "Made for x₃, degree 0"),
        ("ArrowRight", "Made for x₃, degree 0"),
        ("ArrowDown", "Made for x₄, degree 2"),
        ("ArrowDown", "Made for x₄, degree 2"),
        ("Home", "Made for x₁, degree 1"),
        ("ArrowUp", "Made for x₁, degree 1"),
        ("ArrowLeft", f"Hidden unit 2 of layer 2, degree {degrees[2][1]}"),
        ("End", f"Hidden unit 6 of layer 2, degree {degrees[2][5]}"),
        ("ArrowLeft", f"Hidden unit 6 of layer 1, degree {degrees[1][5]}"),
        ("ArrowLeft", "Input x₄, degree 3"),
        ("ArrowLeft", "Input x₄, degree 3"),
    ]:
        figure.page.keyboard.press(key)
        assert at_unit(figure) == expected
    figure.frame.get_by_label("order", exact=True).check()
    figure.frame.locator("[role=radio][tabindex='0']").focus()
    figure.page.keyboard.press("Home")  # the units now stand in the order
    assert at_unit(figure) == "Input x₃, degree 1"
    figure.page.keyboard.press("Tab")
    label = figure.frame.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == "Sampling step"


def verdict(figure: Shown) -> str:
    figure.settle()
    return " ".join(figure.frame.locator("#verdict").inner_text().split())


FIRST = (
    "Hidden unit 3 of layer 1 has degree 2 "
    "It sees x₁ and x₂, and helps to make the numbers for x₃ and x₄."
)


def test_a_mouse_lights_a_unit_while_it_points_and_keeps_it_with_a_click(show_network):
    figure = show_network()
    unit = figure.frame.get_by_role("radio", name="Hidden unit 6 of layer 2")
    assert verdict(figure) == FIRST
    unit.hover()
    assert verdict(figure).startswith("Hidden unit 6 of layer 2 has degree 3 It sees x₁, x₂ and x₃")
    assert figure.numbers()["touched"][2][5] == "touched"
    figure.page.mouse.move(2, 2)
    assert verdict(figure) == FIRST
    unit.click()
    figure.page.mouse.move(2, 2)
    assert verdict(figure).startswith("Hidden unit 6 of layer 2")
    assert at_unit(figure) == "Hidden unit 6 of layer 2, degree 3"


def test_a_finger_taps_a_unit_and_leaves_the_sampling(show_network):
    figure = show_network(width=390, has_touch=True, is_mobile=True)
    unit = figure.frame.get_by_role("radio", name="Made for x₂")
    for _ in range(2):  # once without the focus, and once with it
        unit.tap()
        title, said = "What is made for x₂ has degree 1", "What is made for it sees x₁."
        assert verdict(figure) == f"{title} x₂ stands second in the order. {said}"
        figure.pull("Sampling step", 90, 0, True)
        assert verdict(figure).startswith("Sampling, step 2 of 4: x₂")
    assert not figure.frame.locator("[role=radio][aria-checked=true]").count()


@pytest.mark.parametrize("touch", [False, True])
def test_mouse_and_touch_drag_the_sampling_step(show_network, touch):
    figure = show_network(width=390, has_touch=touch, is_mobile=touch)
    figure.pull("Sampling step", 42 * 3, 0, touch)
    assert figure.value("Sampling step") == 3
    figure.pull("Sampling step", 42 * 9, 0, touch)
    assert figure.value("Sampling step") == 4
    figure.pull("Sampling step", -26, 0, touch)  # a short way is enough for the next stop
    assert figure.value("Sampling step") == 3


def test_the_sampling_step_answers_to_the_keyboard_and_says_what_is_computed(show_network):
    figure = show_network({"order": (2, 0, 1, 3)})
    figure.press("Sampling step", "ArrowRight")
    said = "Sampling, step 1 of 4: x₃ What is made for x₃ is learned numbers alone: no unit has degree 0."
    assert verdict(figure).startswith(said)
    figure.press("Sampling step", "ArrowRight", "ArrowRight")
    assert verdict(figure) == (
        "Sampling, step 3 of 4: x₂ The units of degree 2 are computed: 2 in layer 1, 2 in layer 2, and "
        "what is made for x₂. Then x₂ = g(z₂; θ₂) is known. 16 products in this step, 24 of 48 so far."
    )
    assert figure.frame.locator(".node.now").count() == 5
    figure.press("Sampling step", "End")
    assert figure.value("Sampling step") == 4
    assert figure.frame.locator(".node.later").count() == 0
    assert "24 products in this step, 48 of 48 so far" in verdict(figure)
    values = figure.frame.locator("#values")
    assert "4 full passes: 4 × 84 = 336 products" in values.inner_text()
    figure.press("Sampling step", "Home")
    assert verdict(figure).startswith("Hidden unit 3 of layer 1")
    assert "passes" not in values.inner_text()


def test_the_buttons_do_what_they_say(show_network):
    figure = show_network()
    frame, start = figure.frame, figure.frame.evaluate("figure.state")

    def state() -> dict[str, Any]:
        figure.settle()
        return frame.evaluate("figure.state")

    figure.click("reverse")
    assert state()["order"] == [3, 2, 1, 0]
    assert "order x₄, x₃, x₂, x₁" in frame.locator("#values").inner_text()
    figure.click("mix")
    assert sorted(mixed := state()["order"]) == [0, 1, 2, 3]
    assert mixed != [3, 2, 1, 0]
    figure.click("as they stand")
    assert state()["order"] == [0, 1, 2, 3]
    drawn = set()
    figure.click("at random")
    for _ in range(12):
        first, second = state()["degrees"]
        assert first == sorted(first) and second == sorted(second)
        assert len(first) == len(second) == 6
        assert first[-1] == second[-1] == 3
        assert second[0] >= first[0] >= 1
        drawn.add((*first, *second))
        figure.click("draw again")
    assert len(drawn) > 3
    figure.click("even")
    assert state()["degrees"] == start["degrees"]
    assert frame.get_by_role("button", name="at random").is_visible()
    figure.click("reverse")
    for dim, order in ((5, [3, 2, 1, 0, 4]), (2, [1, 0]), (3, [1, 0, 2])):
        frame.get_by_role("radio", name=str(dim), exact=True).check()
        assert state()["order"] == order
        even = [hidden_degrees(6, 1, dim - 1, None)] * 2
        assert state()["degrees"] == even
        assert frame.locator(".unit").count() == 12 + 2 * dim
    frame.get_by_role("radio", name="Input x₃").click()
    figure.press("Sampling step", "End")
    frame.get_by_role("radio", name="2", exact=True).check()
    assert state()["unit"] == [0, 1]
    assert state()["step"] == 2
    figure.click("Reset")
    assert state() == start
    assert frame.locator(".unit").count() == 20


def test_the_matrix_is_drawn_by_number_and_by_order(show_network):
    figure = show_network({"order": (2, 0, 3, 1), "seed": 1, "unit": (2, 1)})
    n, order = figure.numbers(), [2, 0, 3, 1]

    def drawn() -> tuple[list[list[str]], list[list[bool]]]:
        """The words in the cells, and whether a cell is lit, row by row, as they lie on the page."""
        texts = figure.frame.evaluate(
            "[...document.querySelectorAll('.cell')].map(e => [e.nextSibling.textContent, "
            "e.classList.contains('lit'), +e.getAttribute('y'), +e.getAttribute('x')])"
        )
        assert len(texts) == 16
        rows = sorted(texts, key=lambda cell: (cell[2], cell[3]))
        return [[[cell[k] for cell in rows[4 * i : 4 * i + 4]] for i in range(4)] for k in (0, 1)]

    for shown in (range(4), order):
        paths = [["g" if i == j else str(n["paths"][i][j]) for j in shown] for i in shown]
        lit = [[n["lit"][i][j] for j in shown] for i in shown]
        assert sum(map(sum, lit)) > 1
        assert drawn() == [paths, lit]
        figure.frame.get_by_label("order", exact=True).check()
        figure.settle()
    words, _ = drawn()
    assert all(words[i][j] == "0" for i in range(4) for j in range(i + 1, 4))


def test_the_lines_are_the_weights_that_the_masks_keep(show_network):
    figure = show_network({"order": (2, 0, 3, 1), "seed": 1, "unit": (2, 1)})
    n = figure.numbers()

    def lines(kind: str) -> int:
        d = figure.frame.locator(f"[class='edge {kind}']").get_attribute("d")
        return d.count("M")

    into = sum(n["masks"][1][1])  # into the unit, and from there back to the inputs
    into += sum(sum(n["masks"][0][k]) for k, keep in enumerate(n["masks"][1][1]) if keep)
    out = sum(row[1] for row in n["masks"][2])
    assert (lines("before"), lines("after"), lines("now")) == (into, out, 0)
    assert lines("") == n["kept"] - into - out > 0
    for unit in ("Input x₁", "Made for x₄"):
        figure.frame.get_by_role("radio", name=unit).focus()
        figure.settle()
        assert (lines("before") > 0, lines("after") > 0) == ("Made" in unit, "Input" in unit)
    figure.press("Sampling step", "End")
    n = figure.numbers()
    assert lines("now") == n["now"] > 0
    assert lines("") == n["kept"] - n["now"]


def test_the_network_says_its_words_once_it_rests(show_network):
    figure = show_network()
    figure.click("reverse")
    figure.frame.wait_for_function("document.getElementById('said').textContent.includes('Order')")
    said = figure.frame.get_by_role("status").inner_text()
    assert said.startswith(
        "Order x₄, x₃, x₂, x₁. Hidden unit 3 of layer 1 has degree 2. It sees x₄ and x₃"
    )
    assert said.endswith("masks keep 48 of 84 weights; 6 of 6 cells below the diagonal reached.")
    assert "*" not in said
    figure.frame.get_by_role("radio", name="5", exact=True).check()
    figure.frame.wait_for_function(
        "document.getElementById('said').textContent.includes('Degrees')"
    )
    said = figure.frame.get_by_role("status").inner_text()
    assert said.startswith("Degrees 1 2 2 3 4 4 in layer 1, 1 2 2 3 4 4 in layer 2. Hidden unit 3")


@pytest.mark.parametrize("width", [1280, 760, 390, 320])
def test_the_network_fits_its_frame_and_keeps_its_height(show_network, width):
    figure = show_network({"order": (3, 1, 2, 0, 4), "seed": 4, "unit": (3, 0)}, width=width)
    heights = {figure.height_where_all_fits(width)}
    for _ in range(5):
        figure.press("Sampling step", "ArrowRight")
        heights.add(figure.height_where_all_fits(width))
    for dim in "2345":
        figure.frame.get_by_role("radio", name=dim, exact=True).check()
        figure.frame.get_by_role("radio", name="Input x₂").focus()
        heights.add(figure.height_where_all_fits(width))
    figure.frame.get_by_role("radio", name="Hidden unit 6 of layer 1").focus()
    for button in ("even", "mix"):
        figure.click(button)
        heights.add(figure.height_where_all_fits(width))
    if width >= 390:
        assert len(heights) == 1
    assert max(heights) <= live.autoregressive().height


def test_units_do_not_lie_over_each_other_and_a_finger_finds_them(show_network):
    figure = show_network({"order": (0, 1, 2, 3, 4)}, width=320)
    boxes = [unit.bounding_box() for unit in figure.frame.locator(".unit").all()]
    assert len(boxes) == 22
    for one, two in itertools.combinations(boxes, 2):
        apart = math.hypot(one["x"] - two["x"], one["y"] - two["y"])
        assert apart >= min(one["width"], one["height"]) == 32


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_network(show_network, theme):
    figure = show_network(theme=theme)
    assert figure.violations() == []
    figure.press("Sampling step", "End")
    assert figure.violations() == []


@pytest.mark.parametrize("start", NETWORKS[3::4], ids=str)
def test_the_words_of_the_network_are_those_of_the_figure(show_network, start):
    """For every unit: what Python says of the start is what the page says, and both are true."""
    figure, values = show_network(start), layers_of(network(**start))
    for layer, value in enumerate(values):
        for k in range(len(value)):
            kind = {0: "Input x", 3: "Made for x"}.get(layer, "")
            name = f"{kind}{chr(0x2081 + k)}" if kind else f"Hidden unit {k + 1} of layer {layer},"
            figure.frame.get_by_role("radio", name=name).focus()
            figure.settle()
            title, sentence = (
                figure.frame.locator(f"#verdict > {tag}").inner_text() for tag in ("b", "span")
            )
            words = live.autoregressive(**start, unit=(layer, k)).words
            assert f"{title}. {sentence} The masks keep" in words
            assert "undefined" not in words and "  " not in words
            if layer and (seen := slopes(values, layer, 0)[k]).any():
                names = [f"x{chr(0x2081 + d)}" for d in start["order"] if seen[d]]
                told = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
                assert f"sees {told}" in words or f"but paths come from {told} alone" in words
            if layer < 3 and (made := slopes(values, 3, layer)[:, k]).any():
                names = [f"x{chr(0x2081 + d)}" for d in start["order"] if made[d]]
                told = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
                assert f"helps to make the numbers for {told}" in words.replace("It helps", "helps")
    net = network(**start)
    kept = sum(int(layer.mask.sum()) for layer in net.layers)
    assert f"The masks keep {kept} of {sum(m.mask.numel() for m in net.layers)} weights" in words


def test_the_still_picture_of_the_network_is_true():
    start, unit = {"order": (2, 0, 3, 1), "seed": 1}, (2, 1)
    values = layers_of(network(**start))
    still = ET.fromstring(live.autoregressive(**start, unit=unit).still)
    masks = [layer.mask for layer in network(**start).layers]
    seen = [slopes(values, 2, i)[1] > 0 for i in (0, 1)]
    made = slopes(values, 3, 2)[:, 1] > 0
    plain, before, after = (strokes(p.get("d") or "") for p in list(still.iter(f"{SVG}path"))[:3])
    assert len(before) == masks[0][seen[1]].sum() + masks[1][1].sum()
    assert len(after) == made.sum()
    assert len(plain) + len(before) + len(after) == sum(mask.sum() for mask in masks)
    circles = list(still.iter(f"{SVG}circle"))
    assert len(circles) == 20
    places = {(float(c.get("cx")), float(c.get("cy"))) for c in circles}
    for line in (*plain, *before, *after):
        assert {tuple(end) for end in line.tolist()} <= places
    colours = [c.get("stroke") for c in circles]
    kinds = {"#D55E00": sum(map(sum, seen)), "#1f2328": 1, "#0072B2": made.sum()}
    assert {colour: colours.count(colour) for colour in kinds} == kinds
    cells = list(still.iter(f"{SVG}path"))[3:]
    assert len(cells) == 16
    paths = slopes(values, 3, 0)
    lit = torch.outer(made, seen[0])
    for k, cell in enumerate(cells):
        i, j = divmod(k, 4)
        fill = "#1f2328" if lit[i, j] else "#eceff2" if paths[i, j] or i == j else "#fff"
        assert cell.get("fill") == fill
        assert (cell.get("d") or "").startswith(f"M{436 + 50 * j} {60 + 50 * i}h50")
    numbers = [
        t.text for t in still.iter(f"{SVG}text") if (t.text or "").isdigit() or t.text == "g"
    ]
    expected = ["g" if i == j else f"{int(paths[i, j])}" for i in range(4) for j in range(4)]
    assert numbers[-16:] == expected


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"order": (0,)}, r"2 to 5 coordinates, got order=\(0,\)"),
        ({"order": range(6)}, "2 to 5 coordinates"),
        ({"order": (0, 0, 1)}, "order must hold each of 0, …, 2 once"),
        ({"order": (1, 2, 3)}, "order must hold each of 0, …, 2 once"),
        ({"unit": (4, 0)}, r"got unit=\(4, 0\)"),
        ({"unit": (1, 6)}, r"within the \(4, 6, 6, 4\) units"),
        ({"unit": (0, -1)}, r"got unit=\(0, -1\)"),
        ({"unit": (1,)}, r"got unit=\(1,\)"),
    ],
)
def test_a_network_outside_the_figure_is_an_error(start, message):
    with pytest.raises(ValueError, match=message):
        live.autoregressive(**start)
