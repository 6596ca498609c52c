// A line in the script's panel: the size of the result and how many times larger it is, after the x4 upscaler, too.
//
// The host knows the size of the picture in its page only (`currentImg2imgSourceResolution`, which its own "Resize by"
// uses). Where it does not say so, the size alone is shown.

(function() {
    "use strict";

    if (typeof onAfterUiUpdate !== "function" || typeof gradioApp !== "function") return;

    const X4 = 4;
    const LINE = '[id$="latent_upscale_size"]';
    const find = (selector) => gradioApp().querySelector(selector);
    const number = (id) => Number(find(`#${id} input[type="number"]`)?.value) || 0;
    const seen = (element) => Boolean(element && element.offsetParent);

    function source() {
        if (typeof currentImg2imgSourceResolution !== "function") return [0, 0];
        return currentImg2imgSourceResolution(0, 0, 1).slice(0, 2).map((side) => Number(side) || 0);
    }

    function result([width, height]) {
        const scale = seen(find("#img2img_scale")) ? number("img2img_scale") : 0;
        if (!scale) return [number("img2img_width"), number("img2img_height")];
        return [width, height].map((side) => Math.floor(side * scale));
    }

    // "2 times larger"; a side each where the shape changes.
    function factor(from, to) {
        if (!from[0] || !from[1]) return "";
        const [across, down] = to.map((side, index) => Number((side / from[index]).toFixed(2)));
        return across === down ? `, ${across} times each side` : `, ${across} times as wide, ${down} times as high`;
    }

    function text() {
        const from = source();
        const to = result(from);
        if (!to[0] || !to[1]) return "";
        const last = find('[id$="latent_upscale_x4-checkbox"] input')?.checked;
        const enlarged = to.map((side) => side * X4);
        const then = last ? `; after the x4 upscaler ${enlarged.join(" x ")}${factor(from, enlarged)}` : "";
        return `Result: ${to.join(" x ")} pixels${factor(from, to)}${then}.`;
    }

    function show() {
        const line = find(LINE);
        if (!seen(line)) return;
        const told = text();
        if (line.textContent !== told) line.textContent = told;
    }

    // The page changes when a picture or a box does, and not when a number does or the panel comes into sight.
    const sight = new IntersectionObserver(show, {rootMargin: "200%"});
    onAfterUiUpdate(() => {
        const line = find(LINE);
        if (line) sight.observe(line);
        show();
    });
    addEventListener("input", () => setTimeout(show), true);
    addEventListener("change", () => setTimeout(show), true);
})();
