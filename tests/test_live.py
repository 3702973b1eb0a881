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


def output(figure: live.LiveFigure | None = None) -> str:
    return (figure or live.change_of_variables())._repr_mimebundle_()["text/html"]


FIGURES = pytest.mark.parametrize("make", [live.change_of_variables, live.kl])


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

    def curve(self) -> None:
        self.frame.get_by_label("a rising curve").check()
        self.settle()


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
        figure.settle()
        assert figure.page.evaluate("document.documentElement.scrollWidth") == width
        inner = figure.frame.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight,"
            " innerWidth, innerHeight]"
        )
        assert inner[:2] == inner[2:]
        heights.add(inner[1])
        smallest = figure.frame.evaluate(
            "Math.min(...[...document.querySelectorAll('figure *')]"
            ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 11
    if width >= 390:
        assert len(heights) == 1
    assert max(heights) <= live.kl().height


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_kl_figure(show_kl, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    figure = show_kl(theme=theme)
    figure.frame.wait_for_function("document.getElementById('said').textContent")
    for where in (figure.frame, figure.page):
        where.evaluate(axe.axe_script)
    found = figure.page.evaluate("axe.run({resultTypes: ['violations', 'passes']})")
    inside = [node for v in found["passes"] for node in v["nodes"] if len(node["target"]) > 1]
    assert len(inside) > 20  # it did look into the frame
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


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
