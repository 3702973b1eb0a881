// What every live figure shares: the page's theme, the frame's height, sliders, words, a shaded plane.

export const clamp = (v, lo, hi) => Math.min(hi, Math.max(lo, v));
export const fixed = (v, digits = 2) => {
  const s = v.toFixed(digits);
  return (Number(s) === 0 ? s.replace("-", "") : s).replace("-", "\u2212");
};

export const toStep = (v, step) => Number((Math.round(v / step) * step).toFixed(6));
export const grid = (lo, hi, n) => Array.from({ length: n + 1 }, (_, i) => lo + (hi - lo) * i / n);

// The host page, where it is of the same origin as this frame; null elsewhere.
const hostFrame = () => { try { return window.frameElement; } catch { return null; } };

// Follow the light or dark theme of the host page, else of the system.
function followTheme() {
  const frame = hostFrame();
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const light = (colour) => {  // luminance 0..1 of an opaque CSS colour, else null
    const c = (colour.match(/[\d.]+/g) || []).map(Number);
    if (!colour.startsWith("rgb") || c.length < 3 || (c.length > 3 && c[3] < 1)) return null;
    return (0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]) / 255;
  };
  const isDark = () => {
    if (!frame) return system.matches;
    const { documentElement: html, body } = frame.ownerDocument;
    const named = html.dataset.theme || html.getAttribute("theme");                // the book; Colab
    if (named === "dark" || named === "light") return named === "dark";
    if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";   // JupyterLab
    if (body.dataset.vscodeThemeKind) return !body.dataset.vscodeThemeKind.endsWith("light");
    const text = light(getComputedStyle(frame.parentElement).color);               // any other page
    return text !== null && text > 0.5;
  };
  const apply = () => {
    const dark = isDark();
    root.dataset.theme = dark ? "dark" : "light";
    let paper = "";
    for (let el = frame && frame.parentElement; el && !paper; el = el.parentElement) {
      const colour = getComputedStyle(el).backgroundColor;
      const l = light(colour);
      if (l !== null) { if ((l < 0.25) === dark && (l > 0.75) === !dark) paper = colour; else break; }
    }
    if (paper) root.style.setProperty("--paper", paper); else root.style.removeProperty("--paper");
  };
  apply();
  system.addEventListener("change", apply);
  if (frame) {
    const watch = new MutationObserver(() => { apply(); setTimeout(apply, 300); });
    const options = { attributes: true, attributeFilter: ["data-theme", "theme", "class", "data-jp-theme-light", "data-vscode-theme-kind"] };
    watch.observe(frame.ownerDocument.documentElement, options);
    watch.observe(frame.ownerDocument.body, options);
  }
}

// Make the frame as tall as its content. In a frame of another origin the height set by CSS stays.
function fitHeight(content) {
  const frame = hostFrame();
  if (!frame) return;
  document.documentElement.style.overflow = "hidden";
  new ResizeObserver(() => {
    frame.style.height = `${Math.ceil(content.getBoundingClientRect().bottom)}px`;
  }).observe(content);
}

// Begin a figure: lay it out for the stage's width, draw it, and do so anew when the width changes;
// draw it anew in another theme too, since a canvas holds colours of its own.
export function begin(stage, layout, draw) {
  followTheme();
  new MutationObserver(oncePerFrame(draw)).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  let width = 0;
  new ResizeObserver(() => {
    if (!stage.clientWidth || stage.clientWidth === width) return;
    width = stage.clientWidth;
    layout(); draw();
  }).observe(stage);
  fitHeight(document.querySelector("figure"));
}

// Call draw at most once a frame.
export function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}

// Say a sentence to screen readers once things have come to rest.
export function announcer(region) {
  let timer = 0;
  return (sentence) => { clearTimeout(timer); timer = setTimeout(() => { region.textContent = sentence; }, 500); };
}

export function svg(parent, name, attributes = {}, text = "") {
  const el = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) el.setAttribute(key, attributes[key]);
  el.textContent = text;
  parent.append(el);
  return el;
}

// In these words *p* stands for p in italics: bare, as elements of HTML, and as a text of SVG.
export const plain = (text) => text.replaceAll("*", "");
export const rich = (text) => text.split("*").map((t, i) => {
  const el = document.createElement(i % 2 ? "i" : "span");
  el.textContent = t;
  return el;
});
// Fill an element with such words: parts are [name of an element, its text].
export const tell = (parent, ...parts) => parent.replaceChildren(...parts.map(([name, text]) => {
  const el = document.createElement(name);
  el.append(...rich(text));
  return el;
}));
export function label(parent, attributes, text) {
  const el = svg(parent, "text", attributes);
  text.split("*").forEach((t, i) => svg(el, "tspan", i % 2 ? { class: "m" } : {}, t));
  return el;
}

// Shade a plane, x from -X to X and y from -Y to Y, by a density: the darker the denser, on one scale.
export function paint(canvas, density, colour, X, Y = X) {
  const n = canvas.width, brush = canvas.getContext("2d"), image = brush.createImageData(n, n);
  const rgb = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const q = density([(j + 0.5) / n * 2 * X - X, Y - (i + 0.5) / n * 2 * Y]);
      image.data.set([...rgb, 190 * (1 - Math.exp(-q / 0.12))], 4 * (i * n + j));
    }
  }
  brush.putImageData(image, 0, 0);
}

export const path = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");

// Let a pointer drag el: begin(event) returns what to call with each later event.
export function drag(el, begin) {
  let go = null;  // null when not dragging
  el.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    el.focus({ preventScroll: true, focusVisible: false });
    el.setPointerCapture(event.pointerId);
    go = begin(event);
  });
  el.addEventListener("pointermove", (event) => { if (go) go(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) el.addEventListener(end, () => { go = null; });
}

// A handle on the stage that is a slider for mouse, touch and keyboard.
// options: label, vertical, step, big, range() -> [min, max], get(), set(value), text(value),
// at(event) -> the value under a pointer (without it the caller drags), touch: what the browser may
// still do there (a large handle lets the page scroll by: "pan-y"). Returns {el, update}; the
// caller places el.
export function slider(stage, { label, vertical = false, touch = "none", step, big, range, get, set, text, at }) {
  const el = document.createElement("div");
  el.className = "handle";
  el.tabIndex = 0;
  el.style.touchAction = touch;
  const attributes = { role: "slider", "aria-label": label, "aria-orientation": vertical ? "vertical" : "horizontal" };
  for (const key in attributes) el.setAttribute(key, attributes[key]);
  stage.append(el);

  const change = (value) => {
    const [lo, hi] = range();
    set(clamp(toStep(value, step), lo, hi));
  };
  el.addEventListener("keydown", (event) => {
    const size = event.shiftKey ? big : step;
    const [lo, hi] = range();
    const moves = { ArrowRight: size, ArrowUp: size, ArrowLeft: -size, ArrowDown: -size, PageUp: big, PageDown: -big };
    if (event.key in moves) change(get() + moves[event.key]);
    else if (event.key === "Home") change(lo);
    else if (event.key === "End") change(hi);
    else return;
    event.preventDefault();
  });

  if (at) drag(el, (event) => {
    const offset = get() - at(event);
    return (later) => change(at(later) + offset);
  });

  return {
    el,
    update() {
      const [lo, hi] = range();
      const value = get();
      const now = { "aria-valuemin": lo, "aria-valuemax": hi, "aria-valuenow": value };
      for (const key in now) el.setAttribute(key, String(Number(now[key].toFixed(3))));
      el.setAttribute("aria-valuetext", text(value));
    },
  };
}

// A handle that moves both ways, as two sliders in one place: a pointer moves both, and an arrow key
// the one of its direction. options, beyond those of slider: labels, range(i), get() -> [a, b],
// set([a, b]), text(), under(event) -> the point under a pointer. Returns the two sliders.
export function knob(stage, { labels, step, big, range, get, set, text, under }) {
  const sliders = labels.map((label, i) => slider(stage, {
    label, vertical: i === 1, step, big, text, range: () => range(i), get: () => get()[i],
    set: (v) => set(get().map((old, j) => j === i ? v : old)),
  }));
  sliders[1].el.classList.add("second");
  sliders.forEach(({ el }, i) => el.addEventListener("keydown", (event) => {
    const other = { ArrowLeft: 0, ArrowRight: 0, ArrowUp: 1, ArrowDown: 1 }[event.key] ?? i;
    if (other === i) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    sliders[other].el.focus();
    sliders[other].el.dispatchEvent(new KeyboardEvent("keydown", event));
  }, true));
  drag(sliders[0].el, (event) => {
    const from = under(event), origin = get();
    return (later) => set(under(later).map((v, i) => clamp(toStep(v + origin[i] - from[i], step), ...range(i))));
  });
  return sliders;
}
