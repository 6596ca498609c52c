// A slider between any two pictures of a comparison, above the results of img2img.
//
// What is compared stands in the result's generation info, which the WebUI keeps in a hidden text field; the pictures
// are those of the gallery. Where there is no comparison, or either is not where it is expected, the gallery stays as
// it is. Nothing of the host's is changed: the slider is one element of its own beside the gallery.

(function() {
    "use strict";

    const RECORD = "Latent upscale comparison";
    const COMPARABLE = ["plain resize", "variant", "difference"];
    const ZOOMS = {"Fit": 0, "100 %": 1, "200 %": 2, "400 %": 4};

    if (typeof onAfterUiUpdate !== "function" || typeof gradioApp !== "function") return;

    const element = (tag, properties = {}, ...children) => {
        const made = Object.assign(document.createElement(tag), properties);
        made.append(...children);
        return made;
    };

    const find = (selector) => gradioApp().querySelector(selector);

    function galleryImages() {
        const thumbnails = gradioApp().querySelectorAll("#img2img_gallery .thumbnails img");
        return [...(thumbnails.length ? thumbnails : gradioApp().querySelectorAll("#img2img_gallery .grid-container img"))];
    }

    function described() {
        try {
            const info = JSON.parse(find("#generation_info_img2img textarea").value);
            return info.extra_generation_params[RECORD] ?? {pictures: []};
        } catch (error) { // no result yet, or one without a comparison
            return {pictures: []};
        }
    }

    // The pictures that can be laid over each other: {name, kind, notes, src, index}.
    function comparedPictures() {
        const images = galleryImages();
        const pictures = described().pictures.map((picture, index) => ({...picture, index, src: images[index]?.src}));
        const seeds = new Set(pictures.map((picture) => picture.seed));
        const comparable = pictures.filter((picture) => picture.src && COMPARABLE.includes(picture.kind));
        return comparable.map((picture) => ({
            ...picture,
            label: seeds.size > 1 ? `${picture.name}, seed ${picture.seed}` : picture.name,
        }));
    }

    class Side {
        constructor(title, changed) {
            this.image = element("img", {draggable: false, alt: ""});
            this.select = element("select", {onchange: changed});
            this.select.setAttribute("aria-label", `${title} picture`);
            this.tag = element("span", {className: "latent-upscale-tag"});
            this.notes = element("ul");
            this.pick = element("button", {
                type: "button",
                textContent: "Select in gallery",
                title: "Select this picture in the gallery, to see its parameters or to send it on",
                onclick: () => this.selectInGallery(),
            });
            this.choice = element("label", {}, element("span", {textContent: title}), this.select);
        }

        offer(pictures, chosen) {
            this.pictures = pictures;
            const options = pictures.map((one, index) => element("option", {value: index, textContent: one.label}));
            this.select.replaceChildren(...options);
            this.select.value = chosen;
        }

        show() {
            this.picture = this.pictures[this.select.value];
            this.image.src = this.picture.src;
            this.image.alt = this.picture.label;
            this.tag.textContent = this.picture.label;
            this.notes.replaceChildren(...this.picture.notes.map((note) => element("li", {textContent: note})));
        }

        selectInGallery() {
            galleryImages()[this.picture.index]?.closest("button")?.click();
        }
    }

    class Slider {
        constructor() {
            const changed = () => this.show();
            this.left = new Side("Left", changed);
            this.right = new Side("Right", changed);
            this.handle = element("i");
            this.handle.setAttribute("aria-hidden", "true");
            this.stage = element("div", {className: "latent-upscale-stage"}, this.left.image, this.right.image, this.handle);
            this.window = element("div", {className: "latent-upscale-window"}, this.stage);
            this.range = element("input", {type: "range", min: 0, max: 100, step: 0.5, oninput: () => this.cutSeen(this.range.value)});
            this.range.setAttribute("aria-label", "Where the left picture ends");
            this.zoom = element("select", {onchange: () => this.resize(true), title: "How large the pictures are shown"});
            this.zoom.append(...Object.keys(ZOOMS).map((name) => element("option", {textContent: name})));
            this.difference = this.toggle("Difference", "Show where the two pictures differ, four times as bright");
            this.body = element("div", {className: "latent-upscale-body"}, ...this.parts());
            this.opener = element("summary", {textContent: "Compare two pictures"});
            this.root = element("details", {id: "latent_upscale_slider", open: true, hidden: true}, this.opener, this.body);
            this.left.image.addEventListener("load", () => this.resize());
            this.root.addEventListener("toggle", () => this.resize());
            this.legend = element("p", {className: "latent-upscale-legend"});
            this.body.append(this.legend);
            this.at = 50;
            this.listen();
        }

        parts() {
            const swap = element("button", {type: "button", textContent: "\u21c4", title: "Swap left and right"});
            swap.setAttribute("aria-label", swap.title);
            swap.onclick = () => this.swap();
            const head = element("div", {className: "latent-upscale-choice"}, this.left.choice, swap, this.right.choice);
            const view = element("div", {className: "latent-upscale-view"}, this.zoom, this.difference);
            const frame = element("div", {className: "latent-upscale-frame"}, this.window, this.left.tag, this.right.tag);
            const notes = [this.left, this.right].map((side) => element("div", {}, side.notes, side.pick));
            return [head, frame, this.range, view, element("div", {className: "latent-upscale-notes"}, ...notes)];
        }

        toggle(text, title) {
            const button = element("button", {type: "button", textContent: text, title});
            button.setAttribute("aria-pressed", "false");
            button.onclick = () => {
                const pressed = this.stage.classList.toggle("latent-upscale-difference");
                button.setAttribute("aria-pressed", pressed);
                this.range.disabled = pressed;
            };
            return button;
        }

        listen() {
            const follow = (event) => {
                const box = this.stage.getBoundingClientRect();
                this.cut((event.clientX - box.left) / box.width * 100);
            };
            // A finger scrolls enlarged pictures; it moves the line by the handle only.
            const moves = (event) => event.pointerType !== "touch" || !this.scale() || event.target === this.handle;
            let moving = false;
            this.stage.addEventListener("pointerdown", (event) => {
                if (event.button !== 0 || !moves(event)) return;
                moving = true;
                this.stage.setPointerCapture(event.pointerId);
                follow(event);
            });
            this.stage.addEventListener("pointermove", (event) => moving && follow(event));
            for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, () => moving = false);
            this.window.addEventListener("scroll", () => this.follow());
            new ResizeObserver(() => this.resize()).observe(this.window);
        }

        scale() {
            return ZOOMS[this.zoom.value];
        }

        cut(percent) {
            this.at = Math.min(Math.max(percent, 0), 100);
            this.stage.style.setProperty("--cut", `${this.at}%`);
            this.follow();
        }

        // Of the stage's width: where what is seen of it begins, and how much that is.
        seen() {
            const width = this.stage.offsetWidth || 1;
            return [this.window.scrollLeft / width, Math.min(this.window.clientWidth / width || 1, 1)];
        }

        // The range stands below what is seen, so that its thumb is where the line is.
        cutSeen(percent) {
            const [begin, share] = this.seen();
            this.cut(100 * begin + percent * share);
        }

        follow() {
            const [begin, share] = this.seen();
            this.range.value = (this.at - 100 * begin) / share;
        }

        resize(scroll = false) {
            const {naturalWidth: width, naturalHeight: height} = this.left.image;
            if (!width || !height) return;
            const room = Math.min(this.window.clientWidth, window.innerHeight * 0.6 * width / height);
            const shown = this.scale() ? width * this.scale() / window.devicePixelRatio : room;
            this.stage.style.width = `${shown}px`;
            this.stage.style.aspectRatio = `${width} / ${height}`;
            this.stage.classList.toggle("latent-upscale-pixels", shown * window.devicePixelRatio > width * 1.5);
            this.stage.classList.toggle("latent-upscale-enlarged", this.scale() > 0);
            this.range.style.width = `${Math.min(shown, this.window.clientWidth)}px`;
            if (scroll) this.window.scrollLeft = shown * this.at / 100 - this.window.clientWidth / 2;
            this.follow();
        }

        swap() {
            [this.left.select.value, this.right.select.value] = [this.right.select.value, this.left.select.value];
            this.show();
        }

        show() {
            this.left.show();
            this.right.show();
            this.legend.textContent = described().legend ?? "";
        }

        offer(pictures) {
            const own = pictures.findIndex((picture) => picture.role === "own");
            const variants = pictures.map((picture, index) => picture.kind === "variant" ? index : -1).filter((index) => index >= 0);
            const right = own >= 0 ? own : variants[variants.length - 1] ?? pictures.length - 1;
            this.left.offer(pictures, variants[0] !== right ? variants[0] ?? 0 : 0);
            this.right.offer(pictures, right);
            this.show();
            this.cut(50);
        }
    }

    let slider = null;
    let shown = "";

    // Called after every change of the page, its own included: it does something only when the result is another one.
    onAfterUiUpdate(() => {
        const container = find("#img2img_gallery_container");
        if (!container) return;
        const pictures = comparedPictures();
        const current = JSON.stringify(pictures);
        const running = Boolean(container.parentNode.querySelector(".progressDiv"));
        if (current !== shown && pictures.length > 1) {
            slider = slider ?? new Slider();
            if (!slider.root.isConnected) container.prepend(slider.root);
            slider.offer(pictures);
        }
        shown = current;
        if (slider) slider.root.hidden = running || pictures.length < 2;
    });
})();
