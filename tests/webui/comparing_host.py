"""The double of the host with what a comparison needs besides."""

import json
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

RECORD = "Latent upscale comparison"


class ComparingHost:
    def __init__(self, webui: Any) -> None:
        self.webui = webui
        self.double = sys.modules["host_double"]
        self.encoded = 0
        self.fails: dict[int, Exception] = {}
        self.during: dict[int, Any] = {}
        self.runs: list[Any] = []
        self.state = self.double.State()
        modules = webui.modules
        encode = modules["modules.processing"].images_tensor_to_samples

        def counted(*args: Any) -> torch.Tensor:
            self.encoded += 1
            return encode(*args)

        vars(modules["modules.processing"]).update(
            images_tensor_to_samples=counted,
            process_images=self.process,
            fix_seed=lambda p: setattr(p, "seed", 11 if p.seed == -1 else p.seed),
            create_infotext=lambda p, *_, **__: json.dumps(p.extra_generation_params),
        )
        modules["modules.shared"].state = self.state
        modules["modules.devices"].NansException = type("NansException", (Exception,), {})
        modules["modules.sd_samplers"].all_samplers_map = {"Euler": None, "Heun": None}
        modules["modules.images"].get_font = lambda _size: SimpleNamespace()

    def compare(self, picture: Image.Image, asked: dict[str, Any], **values: Any) -> Any:
        return self.webui.run(self.processing(picture, **values), {"compare": True, **asked})

    def processing(self, picture: Image.Image, **values: Any) -> Any:
        sampler_class, img2img_class = self.double.Sampler, self.double.Img2Img

        class Sampler(sampler_class):
            def sample_img2img(self, p, latent, steps=None):
                super().sample_img2img(p, latent, steps)
                return self.launch_sampling(len(self.ran) - 1, lambda: latent)

            def launch_sampling(self, _steps, sample):
                return sample()

        @dataclass
        class Img2Img(img2img_class):
            scheduler: str = "Automatic"
            cfg_scale: float = 7.0
            do_not_save_grid: bool = True
            styles: list[str] = field(default_factory=list)
            comments: dict[str, int] = field(default_factory=dict)

            def comment(self, text):
                self.comments[text] = 1

            def init(self, *args):
                self.next_sampler = Sampler()
                super().init(*args)

        return Img2Img([picture], scripts=self.webui.runner, script_args=list(self.webui.arguments), **values)

    def process(self, p: Any) -> Any:
        index = len(self.runs)
        self.runs.append(p)
        if index in self.fails:
            raise self.fails[index]
        done = self.double.process_images(p)
        p.all_prompts, p.all_seeds, p.all_subseeds = [""], [p.seed], [0]
        self.during.get(index, lambda: None)()
        shade = Image.fromarray(np.random.default_rng(index).integers(0, 255, (128, 128, 3), dtype=np.uint8))
        return SimpleNamespace(
            images=[shade.resize(done.images[0].size)],
            infotexts=[", ".join(f"{label}: {value}" for label, value in done.infotexts[0].items())],
            index_of_first_image=0,
            all_prompts=[""],
            all_negative_prompts=[""],
            all_seeds=[p.seed],
            all_subseeds=[0],
            sd_model_name="double",
            extra_generation_params=p.extra_generation_params,
        )


def names(result: Any) -> list[str]:
    return [one["name"] for one in result.extra_generation_params[RECORD]["comparisons"][0]["variants"]]
