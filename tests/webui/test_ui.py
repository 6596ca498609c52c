"""The panel, the settings page, the axes and the drawing, on a double of the host."""

import copy
import html
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lib_latent_upscale.catalogue import CATALOGUE
from lib_latent_upscale.noise_tables import sd1_sigmas
from lib_latent_upscale.options import rows
from lib_latent_upscale.settings import UpscaleSettings
from tests.webui.host_double import Flux, ScheduleLinker, forge_simple

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["Method", "Scheduler", "Exact steps", "Keep statistics", "Matched noise"]


def test_the_first_controls_are_method_and_scheduler(webui):
    controls = webui.script.ui(True)
    assert [(control.label, control.value) for control in controls[:5]] == [
        ("Upscale method", "automatic"),
        ("Scheduler", "simple"),
        ("Exact steps", True),
        ("Keep statistics", False),
        ("Matched noise", False),
    ]
    assert (
        len({control.elem_id for control in controls}) == len({control.label for control in controls}) == len(controls)
    )


def test_every_label_of_the_infotext_sets_a_control(webui):
    controls = {control.label: control for control in webui.script.ui(True)}
    settings = UpscaleSettings("area", "karras", exact_steps=False, keep_statistics=True, starting_noise="continuous")
    infotext = settings.to_infotext()
    pasted = {id(control): read for control, read in webui.script.infotext_fields}
    for name, label in UpscaleSettings.labels().items():
        read = pasted[id(controls[rows(UpscaleSettings)[name].label])]
        found = read(infotext) if callable(read) else infotext[read]
        assert found == str(getattr(settings, name))
        assert label in webui.script.paste_field_names


def test_an_older_pictures_infotext_sets_starting_noise_to_what_it_was_then(webui):
    (read,) = [read for control, read in webui.script.infotext_fields if control.label == "Starting noise"]
    assert read(UpscaleSettings().to_infotext()) == "schedule"
    assert read({"Steps": "20"}) is None, "another program's text leaves the control alone"


def test_what_the_chosen_schedule_does_stands_below_it_with_a_readable_name(webui):
    scheduler = next(control for control in webui.script.ui(True) if control.label == "Scheduler")
    (listener,) = [one for one in scheduler.listeners if one["inputs"] == [scheduler]]
    (about,) = listener["outputs"]
    assert about.value == "<small>Simple (simple): equal strides over the model&#x27;s timesteps</small>"
    for name in scheduler.choices:
        assert f"({name}): " in listener["fn"](name)
    assert "SGM Uniform (sgm_uniform)" in listener["fn"]("sgm_uniform")


def test_every_option_with_a_control_says_what_it_does_once(webui, monkeypatch):
    made = []
    monkeypatch.setattr(webui.modules["gradio"], "HTML", lambda value="", **_: made.append(value), raising=False)
    webui.script.ui(True)
    shown = "".join(made)
    for kind in CATALOGUE:
        for name, row in rows(kind).items():
            assert not row.control or shown.count(f"<b>{row.label}</b>: {html.escape(row.tip)}") == 1, name


def test_the_two_main_menus_say_so_without_unfolding(webui, monkeypatch):
    made = []
    monkeypatch.setattr(webui.modules["gradio"], "HTML", lambda value="", **_: made.append(value), raising=False)
    webui.adapter("ui.panel").make_panel(UpscaleSettings(), str)
    (menus,) = [text for text in made if "<b>" in text and "<details>" not in text]
    assert "<b>Upscale method</b>" in menus
    assert "<b>Scheduler</b>" in menus


def compared(webui, **changes):
    """What the panel says of the runs, with everything as it stands but for `changes`."""
    controls = webui.script.ui(True)
    (switch,) = [control for control in controls if control.label == "Compare"]
    (listener,) = [one for one in switch.listeners if len(one["inputs"]) > 5]
    changes = {"Compare": True, **changes}
    assert listener["outputs"][0].elem_id.endswith("_runs")
    return listener["fn"](*(changes.get(control.label, control.value) for control in listener["inputs"]))


def test_how_many_runs_a_comparison_will_make_stands_in_the_panel(webui):
    pair = {"Methods to compare": ["bicubic", "area"], "Schedulers to compare": ["karras"]}
    assert "3 runs for each picture" in compared(webui)
    assert "5 runs for each picture" in compared(webui, **pair)
    assert "; Latent Upscale + x4 upscaler." in compared(webui, **{"x4 upscaler": True})
    assert "runs for" not in compared(webui, Compare=False)
    assert "choose one of" in compared(webui, **{"Upscale method": "cubic"})


def test_the_line_of_the_size_has_its_place(webui):
    made = []
    webui.adapter("ui.panel").make_panel(UpscaleSettings(), lambda name: made.append(name) or name)
    script = (ROOT / "javascript" / "latent_upscale_size.js").read_text()
    assert "size" in made
    assert '[id$="latent_upscale_size"]' in script


def test_it_shows_in_img2img_only(webui):
    assert webui.script.show(True)
    assert not webui.script.show(False)
    assert webui.companion.show(True) is webui.modules["modules.scripts"].AlwaysVisible
    assert not webui.companion.show(False)


def test_reloading_registers_once(webui):
    for _ in range(20):
        webui.reload()
    labels = [axis.label for axis in webui.axes]
    assert labels[: len(NAMES)] == [f"[Latent Upscale] {name}" for name in NAMES]
    assert len(set(labels)) == len(labels)
    callbacks = webui.modules["modules.script_callbacks"].callbacks
    assert {name: len(kept) for name, kept in callbacks.items() if kept} == {"before_ui": 1, "unloaded": 1}


def test_the_settings_page_holds_the_defaults(webui, picture):
    webui.options.latent_upscale_method = "lanczos"
    webui.options.latent_upscale_exact_steps = False
    webui.options.latent_upscale_scheduler = "a name from before"
    values = [control.value for control in webui.script.ui(True)][:3]
    assert values == ["lanczos", "simple", False]
    assert webui.run(webui.process(picture), {}).infotexts[0]["Latent upscale method"] == "lanczos"


def test_the_host_can_update_every_control_of_the_settings_page(webui):
    """When a page comes, it hands all that a control is made with to gr.update; one word too many ends that for all."""
    known = {"choices", "minimum", "maximum", "step", "placeholder"}  # of Gradio 3.41
    labels = webui.options.data_labels
    assert {"latent_upscale_method", "latent_upscale_compare_methods"} <= set(labels)
    for name, info in labels.items():
        given = info.component_args() if callable(info.component_args) else info.component_args or {}
        assert set(given) - {"precision"} <= known, name
    assert labels["latent_upscale_compare_methods"].component.__name__ == "DropdownMulti"


class TestAxes:
    def axis(self, webui, name):
        return next(axis for axis in webui.axes if axis.label == f"[Latent Upscale] {name}")

    def cell(self, webui, p, **values):
        """What X/Y/Z plot does for one cell: a shallow copy, the axes, one generation."""
        cell = copy.copy(p)
        for name, value in values.items():
            self.axis(webui, name).apply(cell, value, [value])
        return webui.host_alone(cell)

    def test_an_axis_is_enough(self, webui, picture):
        p = webui.process(picture)
        for method in ("area", "lanczos"):
            made = self.cell(webui, p, Method=method).latents[0]
            assert torch.equal(made, webui.run(webui.process(picture), method).latents[0])

    def test_axes_add_up_and_the_panel_counts_for_the_rest(self, webui, picture):
        p = webui.process(picture)
        p.script_args[webui.script.args_from + 3] = True  # keep statistics
        written = self.cell(webui, p, Method="AREA", Scheduler="karras").infotexts[0]
        assert written["Latent upscale method"] == "area"
        assert written["Latent upscale scheduler"] == "karras"
        assert written["Latent upscale keep statistics"] == "True"

    def test_cells_do_not_touch_each_other(self, webui, picture):
        p = webui.process(picture)
        generator = torch.get_rng_state()
        self.cell(webui, p, Method="area")
        assert not [name for name in vars(p) if name.startswith("latent_upscale")]
        assert p.extra_generation_params == {}
        assert torch.equal(torch.get_rng_state(), generator)
        assert "Latent upscale method" not in webui.host_alone(p).infotexts[0]

    @pytest.mark.parametrize(("name", "value"), [("Method", "no such"), ("Exact steps", "maybe")])
    def test_wrong_values_are_refused_before_the_run(self, webui, picture, name, value):
        with pytest.raises(ValueError, match="choose from"):
            self.axis(webui, name).confirm(webui.process(picture), [value])

    def test_what_a_cell_cannot_do_is_not_swallowed(self, webui, picture):
        """The host swallows what hooks raise and would make a picture without the script."""
        with pytest.raises(ValueError, match="steps is 0"):
            self.cell(webui, webui.process(picture, steps=0), Method="area")

    @pytest.mark.parametrize("name", NAMES)
    def test_choices_are_valid(self, webui, picture, name):
        axis = self.axis(webui, name)
        assert axis.confirm(webui.process(picture), list(axis.choices())) is None

    def test_every_option_that_can_vary_has_an_axis(self, webui):
        """Not the second pass, which X/Y/Z plot does not run, and not a comparison, which runs the script itself."""
        own = webui.adapter("request").POSITIONS
        without = {name for name in own if "second" in name or name.startswith("compare") or name.endswith("_model")}
        assert set(webui.adapter("ui.xyz").AXES) == {name for name in own if name not in without}

    @pytest.mark.parametrize(
        ("name", "kind", "bad"),
        [
            ("Tile weight", float, 3.0),
            ("x4 noise level", int, 350),
            ("x4 tile size", int, 12),
            ("x4 sampler", str, "no"),
        ],
    )
    def test_numbers_are_numbers_for_the_host_and_checked(self, webui, picture, name, kind, bad):
        axis = self.axis(webui, name)
        assert axis.type is kind
        with pytest.raises(ValueError, match=name):
            axis.confirm(webui.process(picture), [bad])

    @pytest.mark.parametrize(
        ("values", "given"),
        [
            ({"x4 noise level": 7}, {"x4": True, "x4_noise_level": 7}),
            ({"x4 upscaler": "true"}, {"x4": True}),
            ({"x4 upscaler": "False", "x4 steps": 3}, {"x4": False, "x4_steps": 3}),
            ({"Tile weight": 1}, {"tile_controlnet": True, "tile_controlnet_weight": 1.0}),
        ],
    )
    def test_an_option_of_a_pass_switches_it_on_unless_its_own_axis_says_off(self, webui, values, given):
        xyz = webui.adapter("ui.xyz")
        names = {axis.label: name for name, axis in xyz.AXES.items()}
        found = xyz.with_axes({"x4": False, "method": "area"}, {names[label]: value for label, value in values.items()})
        assert {**given, "method": "area"}.items() <= found.items()


class TestDrawing:
    def draw(self, webui, **changes):
        values = {"steps": 10, "strength": 0.5, "host": "Automatic", "sampler": "Euler", "scheduler": "simple"}
        return webui.adapter("ui.panel").plot_schedule(
            *{**values, "exact": True, "matched": False, "start": "schedule", **changes}.values()
        )

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({}, "Latent Upscale: simple, 10 of 20 steps run"),
            ({}, "default: normal, 6 of 10 steps run"),
            ({"sampler": "DPM++ 2M"}, "default: karras, 6 of 10 steps run"),
            ({"host": "Exponential"}, "default: exponential, 6 of 10 steps run"),
            ({"exact": False}, "Latent Upscale: simple, 6 of 10 steps run"),
            ({"scheduler": "automatic", "host": "Karras"}, "Latent Upscale: karras, 10 of 20 steps run"),
            ({"scheduler": "karras", "matched": True}, "Latent Upscale: karras, 10 of 10 steps run"),
            ({"start": "continuous"}, "Latent Upscale: simple, 10 of 10 steps run"),
            ({"strength": 0}, "nothing runs"),
        ],
    )
    def test_it_says_what_runs(self, webui, changes, said):
        drawing = self.draw(webui, **changes)
        assert any(said in text for text in ET.fromstring(drawing).find("figcaption").itertext())

    def test_it_is_as_wide_as_the_page_and_its_text_is_not_squeezed(self, webui):
        """Of phones, too: the drawing neither scrolls nor shrinks its letters, and the legend wraps."""
        drawing = ET.fromstring(self.draw(webui, scheduler="linear_quadratic"))
        assert not any(word in ET.tostring(drawing, "unicode") for word in ("min-width", "overflow-x", "nowrap"))
        scaled = [part for part in drawing.iter("svg") if "viewBox" in part.attrib]
        assert [part.get("width") for part in scaled] == ["100%"]
        inside = {part.tag for whole in scaled for part in whole.iter()}
        assert inside == {"svg", "polyline"}, "text and dots keep their shape"

    @pytest.mark.parametrize("changes", [{"steps": None}, {"strength": None}, {"strength": math.nan}, {"steps": ""}])
    def test_an_emptied_box_of_the_host_is_said(self, webui, changes):
        assert self.draw(webui, **changes) == (
            "<p>Sampling steps and Denoising strength must be numbers; one of them is empty.</p>"
        )

    def test_there_is_a_dot_for_every_step_that_runs(self, webui):
        assert self.draw(webui).count("<circle") == 10 + 6

    @pytest.mark.parametrize("sampler", ["DDIM", "DDIM CFG++", "PLMS", "UniPC"])
    def test_sigmas_that_do_not_run_are_not_drawn(self, webui, sampler):
        drawing = self.draw(webui, sampler=sampler)
        assert "<svg" not in drawing
        assert f"{sampler} takes no sigmas" in drawing

    @pytest.mark.parametrize(
        ("settings", "sampler"),
        [
            ({}, "Euler"),
            ({}, "DPM2"),
            ({"exact_steps": False}, "DPM2"),
            ({"matched_noise": True, "scheduler": "karras"}, "DPM2"),
            ({"starting_noise": "continuous"}, "DPM2"),
        ],
    )
    @pytest.mark.parametrize("fixed", [False, True])
    def test_the_first_sigma_that_is_drawn_is_the_one_that_runs(
        self, webui, picture, plain_sampler, discarding_sampler, settings, sampler, fixed
    ):
        runs = discarding_sampler if sampler == "DPM2" else plain_sampler
        kept = 1 / (1 + runs.model_wrap.sigmas.double() ** 2)
        webui.modules["modules.sd_models"].model_data.sd_model = SimpleNamespace(alphas_cumprod=kept)
        p = webui.process(picture, steps=10, next_sampler=runs, sampler_name=sampler)
        webui.options.data["img2img_fix_steps"] = fixed
        webui.run(p, {"scheduler": "simple", **settings})
        changes = {
            "scheduler": settings.get("scheduler", "simple"),
            "exact": settings.get("exact_steps", True),
            "matched": settings.get("matched_noise", False),
            "start": settings.get("starting_noise", "schedule"),
        }
        drawing = self.draw(webui, sampler=sampler, **changes)
        assert f"{len(runs.ran) - 1} of" in drawing.partition("Latent Upscale:")[2]
        assert drawing.partition("Latent Upscale:")[2].count(f"from σ {runs.ran[0]:.2f}<") == 1

    def test_the_schedules_ends_of_the_settings_page_are_drawn(self, webui):
        before = self.draw(webui, scheduler="karras", strength=1)
        webui.options.data["sigma_max"] = 5.0
        assert "from σ 14.61" in before
        assert "Latent Upscale: karras, 10 of 10 steps run, from σ 5.00" in self.draw(
            webui, scheduler="karras", strength=1
        )

    def test_the_webuis_own_way_is_drawn_from_its_own_function(self, webui):
        """v1.10.1's DDIM schedule has sigmas of every 100th timestep, from the second one on."""
        drawing = self.draw(webui, host="DDIM")
        sigma = sd1_sigmas()[1 + 5 * 100]
        assert f"default: ddim, 6 of 10 steps run, from σ {sigma:.2f}" in drawing

    @pytest.mark.parametrize("host", ["Automatic", "Normal"])
    def test_a_host_whose_k_diffusion_has_no_discrete_schedule(self, webui, monkeypatch, host):
        """Forge Neo's `external.py` has only a view of the loaded model, and none may be loaded yet."""
        schedules = webui.modules["modules.sd_schedulers"].schedulers_map
        schedules["Normal"] = SimpleNamespace(
            function=lambda n, sigma_min, sigma_max, inner_model, device: torch.stack(
                [
                    *map(
                        inner_model.t_to_sigma,
                        torch.linspace(
                            inner_model.sigma_to_t(torch.tensor(sigma_max)),
                            inner_model.sigma_to_t(torch.tensor(sigma_min)),
                            n,
                        ),
                    ),
                    torch.zeros(()),
                ]
            ),
            need_inner_model=True,
        )
        expected = self.draw(webui, host=host)
        monkeypatch.delattr("k_diffusion.external.DiscreteSchedule")
        assert ", 6 of 10 steps run" in expected.partition("default: ")[2]
        assert self.draw(webui, host=host) == expected

    def test_with_the_webuis_exact_steps_its_own_way_has_all_steps(self, webui):
        webui.options.data["img2img_fix_steps"] = True
        assert "default: normal, 10 of 20 steps run" in self.draw(webui)

    def test_the_webuis_own_way_is_drawn_also_while_a_generation_of_ours_runs(self, webui):
        before = self.draw(webui)
        with webui.adapter("host.processing").exact_steps_wanted():
            assert self.draw(webui) == before

    @pytest.mark.parametrize("left", [{}, {"img2img_fix_steps": False}])
    def test_a_webui_without_that_option_has_all_steps_always(self, webui, left):
        """ersatzForge, also with a settings file of a WebUI that has it."""
        webui.options.data = {**left}
        del webui.options.data_labels["img2img_fix_steps"]
        assert "default: normal, 10 of 20 steps run" in self.draw(webui)
        assert "Latent Upscale: simple, 10 of 20 steps run" in self.draw(webui, exact=False)

    def test_a_schedule_that_is_not_to_be_had_is_named_instead_of_another(self, webui):
        drawing = self.draw(webui, host="Turbo")
        assert "turbo, cannot be drawn" in drawing
        assert drawing.count("<polyline") == 2, "only ours: its faint part and what runs"

    def test_samplers_with_steps_of_their_own_say_so(self, webui):
        assert "places its steps itself" in self.draw(webui, sampler="DPM fast")

    @pytest.mark.parametrize(
        ("scheduler", "start", "little"),
        [("karras", "schedule", True), ("simple", "schedule", False), ("karras", "matched", False)],
    )
    def test_a_start_that_changes_nothing_is_said_for_flow_models(self, webui, scheduler, start, little):
        """Flux's table: at denoising strength 0.5, karras starts at a share of noise of 0.05."""
        time = torch.linspace(0, 1, 10001)[1:]
        flux = time * math.exp(1.15) / (1 + (math.exp(1.15) - 1) * time)
        unet = SimpleNamespace(model=SimpleNamespace(predictor=SimpleNamespace(sigmas=flux)))
        webui.modules["modules.sd_models"].model_data.sd_model = SimpleNamespace(
            forge_objects=SimpleNamespace(unet=unet)
        )
        drawing = self.draw(webui, scheduler=scheduler, start=start, steps=20)
        assert ("hardly any noise" in drawing) == little

    @pytest.fixture
    def forge_with_flux(self, webui, monkeypatch):
        monkeypatch.setattr("k_diffusion.external.ForgeScheduleLinker", ScheduleLinker, raising=False)
        webui.modules["modules.sd_models"].model_data.sd_model = Flux().loaded()
        schedules = webui.modules["modules.sd_schedulers"].schedulers_map
        schedules["Simple"] = SimpleNamespace(label="Simple", function=forge_simple, need_inner_model=True)
        return webui

    def test_schedule_types_that_ask_forges_view_of_the_model_are_drawn(self, forge_with_flux):
        """At denoising strength 0.5 of 6 steps, sigma is e t / (1 + (e - 1) t) at t = 0.5."""
        drawing = self.draw(forge_with_flux, host="Simple", steps=6, strength=0.5)
        assert "default: simple, 4 of 6 steps run, from σ 0.84" in drawing

    def test_the_shift_of_the_next_request_is_drawn(self, forge_with_flux):
        """Forge Neo: the model keeps its own, with which it may be sampling."""
        model = forge_with_flux.modules["modules.sd_models"].model_data.sd_model
        own = self.draw(forge_with_flux, host="Simple")
        assert self.draw(forge_with_flux, host="Simple", shift=2.0) == own, "not of a model whose shift is fixed"
        model.use_shift = True
        drawn = self.draw(forge_with_flux, host="Simple", shift=2.0)
        assert self.draw(forge_with_flux, host="Simple") == own
        model.forge_objects.unet.model.predictor.set_parameters(shift=2.0)
        assert drawn == self.draw(forge_with_flux, host="Simple") != own

    @pytest.mark.parametrize(("scheduler", "drawn"), [("simple", 2), ("automatic", 0)])
    def test_a_schedule_far_above_pure_noise_is_said_instead_of_drawn(self, forge_with_flux, scheduler, drawn):
        drawing = self.draw(forge_with_flux, host="Automatic", steps=3, strength=0.5, scheduler=scheduler)
        assert "own schedule starts from σ 5000 with this model, whose pure noise is 1" in drawing
        assert drawing.count("<polyline") == drawn

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({}, "all denoising strengths between 0.67 and 0.80"),
            ({"exact": False}, "all denoising strengths between 0.75 and 1.00"),
            ({"steps": 20}, ""),
            ({"start": "continuous"}, ""),
            ({"scheduler": "automatic"}, ""),
        ],
    )
    def test_a_part_of_the_slider_that_changes_nothing_is_said(self, webui, changes, said):
        drawing = self.draw(webui, **{"steps": 4, "strength": 0.75, **changes})
        assert (said or "</svg>") in drawing
        assert ("start at the same noise" in drawing) == bool(said)

    @pytest.mark.parametrize("changes", [{"matched": True}, {"start": "continuous"}])
    def test_what_generate_would_refuse_is_said_before(self, webui, changes):
        assert "need a scheduler of this script" in self.draw(webui, scheduler="automatic", **changes)

    @pytest.mark.parametrize("changes", [{"steps": 0}, {"strength": 0.0000001}])
    def test_what_cannot_be_drawn_is_said(self, webui, changes):
        assert self.draw(webui, **changes).startswith("<p>")
