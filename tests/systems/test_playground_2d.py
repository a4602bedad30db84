import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from maquette.core.base import BaseObject
from maquette.core.config import load_config
from maquette.core.errors import ConfigError
from maquette.core.registry import registry
from maquette.io.images import read_image, write_image
from maquette.models.guidance.base import GuidanceOutput
from maquette.systems.playground_2d import of_one_model
from maquette.training.run import run

COLORS = {0: (0.9, 0.1, 0.1), 180: (0.1, 0.1, 0.9)}


class ColorOfTheView(BaseObject):
    """Asks for red from the front and blue from the back."""

    kind = "guidance"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        edits: bool = False

    def __call__(self, rgb: Any, prompt_utils: Any, azimuth: Any, rng: Any, **kwargs: Any) -> GuidanceOutput:
        if self.cfg.edits:
            return GuidanceOutput(extras={"edit_images": rgb})
        wanted = torch.tensor([COLORS[int(one)] for one in azimuth])[:, None, None]
        noise = 0.01 * rng.normal("color", *rgb.shape[1:])
        return GuidanceOutput(loss_sds=(rgb - wanted - noise).square().sum())


@pytest.fixture
def colors(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("color-of-the-view", "guidance")(ColorOfTheView)


def config(folder, *more):
    quiet = ["training.snapshot_code=false", "training.loggers=[]", f"run_dir={folder}"]
    return load_config("playground-2d", [*more, *quiet])


def plain(folder, *more):
    """Without a model: pixels under the colours."""
    return config(
        folder,
        "system.guidance_type=color-of-the-view", "system.guidance={}",
        "system.prompt_processor_type=dummy-prompt-processor",
        "system.optimise=pixels", "system.size=6", "system.freq={}", "trainer.val_check_interval=6",
        "data.batch_size=2", "data.azimuth_deg=[0.0, 180.0]", *more,
    )  # fmt: skip


def smoke(folder, guidance, *more):
    options = ["preset=smoke", f"system.guidance_type={guidance}", "data.batch_size=2"]
    return config(folder, *options, "system.freq.guidance_eval=1", *more)


def test_each_picture_follows_its_own_view(colors, tmp_path):
    result = run(
        plain(tmp_path / "run", "trainer.max_steps=36", "system.optimizer.params.canvas.lr=0.5"), "train"
    )
    (preview,) = result.files
    shown = read_image(preview)
    height, width = shown.shape[:2]
    assert preview.name == "preview.png" and (height, width) == (258, 516)
    for color, half in zip(COLORS.values(), (shown[:, :240], shown[:, 280:]), strict=True):
        torch.testing.assert_close(half.mean((0, 1)), torch.tensor(color), atol=0.08, rtol=0)
    assert read_image(tmp_path / "run" / "save" / "it36-export" / "1.png").shape == (6, 6, 3)
    assert read_image(tmp_path / "run" / "save" / "it12-val.png").shape == (128, 256, 3)


def test_a_resumed_run_is_the_run(colors, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    same = "system.scheduler.args.gamma=0.99"
    run(plain(whole, "trainer.max_steps=6", same), "train")
    run(plain(half, "trainer.max_steps=3", same), "train")
    run(plain(half, "trainer.max_steps=6", same), "train", resume=half / "ckpts" / "last.ckpt")
    found, expected = (read_image(folder / "save" / "it6-export" / "0.png") for folder in (half, whole))
    assert torch.equal(found, expected)


def test_a_few_steps_under_the_embedded_prior_make_something_red(tmp_path):
    options = ["trainer.max_steps=16", "system.optimizer.params.canvas.lr=0.2", "system.freq={}"]
    result = run(config(tmp_path / "run", *options, "trainer.val_check_interval=16"), "train")
    shown = read_image(result.files[0])[64:150, 64:192].mean((0, 1))
    around = read_image(result.files[0])[:, :24].mean((0, 1))
    assert shown[0] - shown[1:].mean() > 0.15 > around[0] - around[1:].mean()


GUIDANCES = {
    "stable-diffusion-guidance": [],
    "stable-diffusion-sdi-guidance": [],
    "deep-floyd-guidance": ["system.prompt_processor_type=deep-floyd-prompt-processor"],
    "stable-diffusion-unified-guidance": [],
    "stable-diffusion-vsd-guidance": ["system.optimizer.params.guidance.lr=0.001"],
    "zero123-guidance": [
        "system.guidance.cond_image_path=PICTURE", "system.prompt_processor_type=dummy-prompt-processor",
    ],
    "zero123-unified-guidance": ["system.guidance.cond_image_path=PICTURE"],
    "stable-zero123-guidance": ["system.guidance.cond_image_path=PICTURE"],
    "stable-diffusion-controlnet-guidance": [
        "system.guidance.control_type=canny", "system.guidance.use_sds=true", "system.cond_image=PICTURE",
    ],
    "stable-diffusion-instructpix2pix-guidance": ["system.guidance.use_sds=true", "system.start=PICTURE"],
    "multiview-diffusion-guidance": ["data.azimuth_deg=[0.0, 90.0]"],
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDANCES)
def test_every_guidance_takes_two_steps_with_a_random_model(name, tmp_path):
    picture = write_image(tmp_path / "picture.png", torch.rand(20, 24, 4))
    more = [one.replace("PICTURE", str(picture)) for one in GUIDANCES[name]]
    kind = "pixels" if "instruct" in name or "floyd" in name else "latents"
    result = run(smoke(tmp_path / "run", name, f"system.optimise={kind}", *more), "train")
    assert result.global_step == 2 and math.isfinite(result.last_loss)
    save = tmp_path / "run" / "save"
    assert read_image(save / "it1-train.png").shape == (2 * 160, 5 * 160, 3)
    first, last = (read_image(save / f"it{step}-{when}.png") for step, when in ((0, "train"), (2, "test")))
    assert read_image(result.files[0]).shape == (256, 512, 3)
    assert first.std() > 0 and last.std() > 0


def test_a_start_is_what_the_pictures_begin_as(colors, tmp_path):
    picture = write_image(tmp_path / "start.png", torch.rand(6, 6, 3))
    start = [f"system.start={picture}", "trainer.max_steps=1", "system.optimizer.params.canvas.lr=0.0"]
    run(plain(tmp_path / "run", *start), "train")
    found = read_image(tmp_path / "run" / "save" / "it1-export" / "0.png")
    torch.testing.assert_close(found, read_image(picture).clamp(0.01, 0.99), atol=1 / 255, rtol=0)


@pytest.mark.parametrize("more", [[], ["system.cond_image=SECOND"]])
def test_a_run_that_has_begun_needs_its_start_no_more(colors, tmp_path, more):
    picture, second = (
        write_image(tmp_path / name, torch.rand(6, 6, 3)) for name in ("start.png", "second.png")
    )
    words = [f"system.start={picture}", *(one.replace("SECOND", str(second)) for one in more)]
    run(plain(tmp_path / "run", *words, "trainer.max_steps=1"), "train")
    made, last = (tmp_path / "run" / one for one in ("save/it1-export/0.png", "ckpts/last.ckpt"))
    before = read_image(made)
    picture.unlink()
    run(plain(tmp_path / "run", *words, "trainer.max_steps=2"), "train", resume=last)
    second.unlink()
    made.unlink()
    result = run(plain(tmp_path / "run", *words, "trainer.max_steps=2"), "export", resume=last)
    assert result.files and not torch.equal(read_image(made.parents[1] / "it2-export" / "0.png"), before)


def test_the_model_of_a_guidance_is_that_of_the_words_whatever_its_name():
    both = {"pretrained_model_name_or_path": "maquette/toyworld"}
    guidance, words = of_one_model({**both, "ip2p_name_or_path": "mine"}, both)
    assert guidance["pretrained_model_name_or_path"] == "mine" == words["pretrained_model_name_or_path"]
    guidance, words = of_one_model({"ip2p_name_or_path": "mine"}, both)
    assert guidance == {"ip2p_name_or_path": "mine"} and words == both
    with pytest.raises(ConfigError, match="ControlNet belongs to"):
        of_one_model({**both, "controlnet_name_or_path": "mine"}, both)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("system.pictures=3", "system.pictures"),
        ("system.size=0", "system.size"),
        ("system.optimise=voxels", "system.optimise"),
        ("system.guidance.edits=true", "system.guidance_type"),
        ("system.freq.guidance_eval=-1", "system.freq.guidance_eval"),
    ],
)
def test_what_cannot_be_is_named(colors, tmp_path, wrong, key):
    with pytest.raises(ConfigError) as caught:
        run(plain(tmp_path / "run", "trainer.max_steps=1", wrong), "train")
    assert caught.value.key == key


def test_a_model_that_trains_along_needs_its_rate(tmp_path):
    with pytest.raises(ConfigError, match=r"system\.optimizer\.params"):
        run(smoke(tmp_path / "run", "stable-diffusion-vsd-guidance"), "train")
