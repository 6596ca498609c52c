"""A comparison as one HTML file: a slider between any two pictures, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

from PIL import Image

from lib_latent_upscale.comparison.sheet import Panel

__all__ = ["make_page"]

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #16181d; --soft: #5b6270; --line: #d9dde3; --accent: #0b7a75; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --ink: #eceff4; --soft: #9aa3b2; --line: #2c313a; --accent: #37c2b8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 1400px; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .9rem; }
.choice { display: flex; flex-wrap: wrap; gap: .8rem; margin-bottom: .8rem; align-items: end; }
.choice label { display: grid; gap: .2rem; color: var(--soft); font-size: .85rem; flex: 1 1 12rem; }
.choice label:nth-child(2) { text-align: right; }
select, button { font: inherit; padding: .45rem .6rem; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: .4rem; }
.window { overflow: auto; max-height: 85vh; border-radius: .4rem; }
.stage { position: relative; margin: auto; touch-action: pan-y; user-select: none; cursor: ew-resize; }
.stage img { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.stage img:last-of-type { clip-path: inset(0 0 0 var(--cut)); }
.stage i { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 0 1px rgb(0 0 0 / 45%); pointer-events: none; }
.stage i::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; translate: -50% -50%; width: 2.2rem;
  height: 2.2rem; display: grid; place-items: center; border-radius: 50%; background: #fff; color: #16181d;
  font-style: normal; box-shadow: 0 1px 5px rgb(0 0 0 / 50%); }
input[type=range] { width: 100%; margin: .7rem 0; accent-color: var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .4rem .7rem .4rem 0; border-top: 1px solid var(--line); vertical-align: top; }
td { color: var(--soft); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1rem; }
"""

_SCRIPT = """
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const stage = document.querySelector(".stage"), range = document.querySelector("input");
const [before, after] = stage.querySelectorAll("img"), [left, right] = document.querySelectorAll("select");
const zoom = document.querySelector("button");
let actual = false;
const place = (cut) => { range.value = cut; stage.style.setProperty("--cut", cut + "%"); };
const show = () => {
  for (const [image, select] of [[before, left], [after, right]]) {
    image.src = pictures[select.value].data;
    image.alt = pictures[select.value].name;
  }
};
const size = () => {
  stage.style.aspectRatio = stage.dataset.width + "/" + stage.dataset.height;
  stage.style.width = actual ? stage.dataset.width / devicePixelRatio + "px" :
    "min(100%, " + 80 * stage.dataset.width / stage.dataset.height + "vh)";
  zoom.textContent = actual ? "Fit to window" : "Actual pixels";
};
const follow = (event) => {
  const box = stage.getBoundingClientRect();
  place(Math.min(Math.max((event.clientX - box.left) / box.width * 100, 0), 100));
};
stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
stage.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
range.addEventListener("input", () => place(range.value));
for (const select of [left, right]) select.addEventListener("change", show);
zoom.addEventListener("click", () => { actual = !actual; size(); });
show(); size(); place(50);
"""


def _data_address(image: Image.Image) -> str:
    """The picture as a data: address, JPEG of the highest quality with full colour resolution."""
    flat = image.convert("RGBA")
    paper = Image.new("RGBA", flat.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(paper, flat).convert("RGB").save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _options(panels: Sequence[Panel], chosen: int) -> str:
    return "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{html.escape(panel.name)}</option>'
        for index, panel in enumerate(panels)
    )


def _row(panel: Panel) -> str:
    return (
        f"<tr><th>{html.escape(panel.name)}</th><td>{'<br>'.join(html.escape(note) for note in panel.notes)}</td></tr>"
    )


def make_page(
    panels: Sequence[Panel], *, title: str = "", footer: str = "", chosen: tuple[int, int] | None = None
) -> str:
    """The page's text.

    Args:
        panels: the pictures; all show the same, at any size.
        title, footer: lines above and below.
        chosen: the panels shown at first, left and right; otherwise the last two.
    """
    left, right = chosen or (max(len(panels) - 2, 0), len(panels) - 1)
    width, height = max((panel.picture.size for panel in panels), key=lambda size: size[0] * size[1])
    pictures = [{"name": panel.name, "data": _data_address(panel.picture)} for panel in panels]
    # "</" would end the element that holds the JSON.
    data = json.dumps(pictures).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title or "Comparison")}</title>
<style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
<div class="choice">
<label>Left<select>{_options(panels, left)}</select></label>
<label>Right<select>{_options(panels, right)}</select></label>
<button type="button"></button>
</div>
<div class="window"><div class="stage" data-width="{width}" data-height="{height}">
<img alt=""><img alt=""><i></i></div></div>
<input type="range" min="0" max="100" step="0.5" aria-label="Where the left picture ends">
<table>{"".join(_row(panel) for panel in panels)}</table>
<footer>{html.escape(footer)}</footer>
<script type="application/json" id="pictures">{data}</script>
<script>{_SCRIPT}</script>
</html>
"""
