"""What modules written for this ecosystem find on a system, under the names that its documentation lists."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from maquette.core.base import BaseModule, BaseObject, Updateable
from maquette.core.device import current_device
from maquette.systems.base import BaseLift3DSystem
from maquette.training.base_system import BaseSystem
from maquette.training.saving.mixin import SaverMixin

UPDATEABLE = ("do_update_step", "update_step", "do_update_step_end", "update_step_end")
SAVER = (
    "set_save_dir", "get_save_dir", "convert_data", "get_save_path", "create_loggers", "get_loggers",
    "save_rgb_image", "save_uv_image", "save_grayscale_image", "save_image_grid", "save_image",
    "save_cubemap", "save_data", "save_state_dict", "save_img_sequence", "save_mesh", "save_obj",
    "save_file", "save_json",
    "_save_dir", "_wandb_logger", "DEFAULT_RGB_KWARGS", "DEFAULT_UV_KWARGS", "DEFAULT_GRAYSCALE_KWARGS",
    "DEFAULT_GRID_KWARGS",
)  # fmt: skip
SYSTEM = (
    "load_weights", "set_resume_status", "resume", "resumed", "true_global_step", "true_current_epoch",
    "configure", "post_configure", "C", "configure_optimizers", "training_step", "validation_step",
    "on_train_batch_end", "on_validation_batch_end", "on_validation_epoch_end", "test_step",
    "on_test_batch_end", "on_test_epoch_end", "predict_step", "on_predict_batch_end", "on_predict_epoch_end",
    "preprocess_data", "on_train_batch_start", "on_validation_batch_start", "on_test_batch_start",
    "on_predict_batch_start", "update_step", "on_before_optimizer_step",
)  # fmt: skip
LIFT3D = (
    "configure", "on_fit_start", "on_test_end", "on_predict_start", "predict_step", "on_predict_epoch_end",
    "on_predict_end", "guidance_evaluation_save",
)  # fmt: skip
SIGNATURES = {
    "save_rgb_image": "filename img data_format data_range name step",
    "save_uv_image": "filename img data_format data_range cmap",
    "save_grayscale_image": "filename img data_range cmap name step",
    "save_image_grid": "filename imgs align name step texts",
    "save_image": "filename img",
    "save_cubemap": "filename img data_range",
    "save_data": "filename data",
    "save_state_dict": "filename data",
    "save_img_sequence": "filename img_dir matcher save_format fps name step",
    "save_mesh": "filename v_pos t_pos_idx v_tex t_tex_idx",
    "save_obj": "filename mesh save_mat save_normal save_uv save_vertex_color map_Kd map_Ks map_Bump map_Pm"
    " map_Pr map_format",
    "save_file": "filename src_path",
    "save_json": "filename payload",
}
"""Arguments in their order, since they are also given without names."""


class Empty(BaseSystem):
    def configure(self) -> None:
        self.layer = torch.nn.Linear(2, 1)


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (Updateable, UPDATEABLE), (SaverMixin, SAVER), (BaseSystem, (*UPDATEABLE, *SAVER, *SYSTEM)),
        (BaseLift3DSystem, LIFT3D), (BaseModule, (*UPDATEABLE, "configure")),
        (BaseObject, (*UPDATEABLE, "configure")),
    ],
)  # fmt: skip
def test_every_name_of_the_table_is_there(cls: type, names: tuple[str, ...]) -> None:
    assert [name for name in names if not hasattr(cls, name)] == []


@pytest.mark.parametrize("method", SIGNATURES)
def test_arguments_of_the_saver_are_in_the_order_of_the_table(method: str) -> None:
    names = [name for name in inspect.signature(getattr(SaverMixin, method)).parameters if name != "self"]
    asked = SIGNATURES[method].split()
    assert names[: len(asked)] == asked


def test_configs_have_the_fields_and_defaults_of_the_table() -> None:
    system = {
        "loggers": {}, "loss": {}, "optimizer": {}, "scheduler": None, "weights": None,
        "weights_ignore_modules": None, "cleanup_after_validation_step": False,
        "cleanup_after_test_step": False,
    }  # fmt: skip
    parts = ("geometry", "material", "background", "renderer", "guidance", "prompt_processor", "exporter")
    lift = {
        **{f"{part}_type": "" for part in parts}, **{part: {} for part in parts},
        "exporter_type": "mesh-exporter", "geometry_convert_from": None,
        "geometry_convert_inherit_texture": False, "geometry_convert_override": {},
    }  # fmt: skip
    for cls, expected in ((BaseSystem, system), (BaseLift3DSystem, {**system, **lift})):
        made = cls.Config()
        assert {name: getattr(made, name) for name in expected} == expected
        assert set(expected) <= {one.name for one in fields(cls.Config)}
    assert BaseModule.Config().weights is None


def test_an_instance_has_its_state_and_its_schedule() -> None:
    system = Empty({}, resumed=True)
    assert (system._resumed, system.resumed, system.resume) == (True, True, True)
    assert (system._resumed_eval, system.true_global_step, system.true_current_epoch) == (False, 0, 0)
    system.set_resume_status(3, 50)
    assert system._resumed_eval and system._resumed_eval_status == {"current_epoch": 3, "global_step": 50}
    assert (system.true_current_epoch, system.true_global_step) == (3, 50)
    assert system.C([0, 1.0, 2.0, 100]) == 1.5


def test_weights_are_taken_but_for_those_to_be_ignored(tmp_path: Path) -> None:
    told: list[tuple[int, int, bool]] = []

    class Told(Empty):
        def configure(self) -> None:
            super().configure()
            self.other = torch.nn.Linear(1, 1)

        def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
            told.append((epoch, global_step, on_load_weights))

    source = Told({})
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": source.state_dict(), "epoch": 1, "global_step": 9}, path)
    taken = Told({"weights": str(path)})
    assert torch.equal(taken.layer.weight, source.layer.weight) and told == [(1, 9, True)]
    kept = Told({"weights": str(path), "weights_ignore_modules": ["layer"]})
    assert torch.equal(kept.other.weight, source.other.weight)
    assert not torch.equal(kept.layer.weight, source.layer.weight)


def test_objects_are_no_part_of_the_weights_but_where_modules_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Guide(BaseObject):
        def configure(self) -> None:
            self.network = torch.nn.Linear(3, 3)

    class Guided(Empty):
        def configure(self) -> None:
            super().configure()
            self.guidance = Guide({})

    system = Guided({})
    assert [name for name, _ in system.named_parameters()] == ["layer.weight", "layer.bias"]
    assert set(system.state_dict()) == {"layer.weight", "layer.bias"}
    assert system.guidance.device == current_device()
    monkeypatch.setattr("maquette.core.base.current_device", lambda: torch.device("meta"))
    module = BaseModule({})
    assert Guide({}).device == module.device == torch.device("meta")
    assert module._dummy.numel() == 0 and module.state_dict() == {}
