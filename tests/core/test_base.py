"""Configured parts, and who is told about a step, when, and how often."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from maquette.core.base import BaseModule, BaseObject, Updateable, update_end_if_possible, update_if_possible
from maquette.core.device import current_device
from maquette.core.errors import UnknownKeyError, UserError

LOG: list[tuple[str, str, int, int, bool]] = []


class Told(Updateable):
    def update_step(self, epoch, global_step, on_load_weights=False):
        LOG.append(("start", self.name, epoch, global_step, on_load_weights))

    def update_step_end(self, epoch, global_step):
        LOG.append(("end", self.name, epoch, global_step, False))


class Part(Told, nn.Module):
    def __init__(self, name, **children):
        super().__init__()
        self.name = name
        for key, child in children.items():
            setattr(self, key, child)


class Thing(Told):
    def __init__(self, name, **children):
        self.name = name
        for key, child in children.items():
            setattr(self, key, child)


@pytest.fixture(autouse=True)
def _empty_log():
    LOG.clear()


def told(phase):
    return [name for what, name, *_ in LOG if what == phase]


def test_every_child_is_told_once_and_before_its_parent():
    shared = Part("geometry")
    guidance = Thing("guidance")
    plain = nn.Sequential(Part("inside a plain module"))
    renderer = Part("renderer", geometry=shared, plain=plain)
    system = Part("system", geometry=shared, renderer=renderer, guidance=guidance)
    system.do_update_step(2, 30)
    system.do_update_step_end(2, 30)
    for phase in ("start", "end"):
        order = told(phase)
        assert sorted(order) == ["geometry", "guidance", "inside a plain module", "renderer", "system"]
        assert order.index("geometry") < order.index("renderer") < order.index("system") == 4
        assert order.index("inside a plain module") < order.index("renderer")
    assert {entry[2:] for entry in LOG} == {(2, 30, False)}


def test_an_attribute_that_is_exchanged_is_no_child_any_more():
    system = Part("system", guidance=Thing("old"))
    system.guidance = Thing("new")
    system.do_update_step(0, 1)
    system.guidance = None
    system.do_update_step(0, 2)
    assert told("start") == ["new", "system", "system"]


def test_children_in_a_list_are_registered_by_hand():
    system = Thing("system")
    parts = [Thing("a"), Thing("b")]
    system.add_updateable(*parts, "no updateable", parts[0])
    system.do_update_step(0, 0, on_load_weights=True)
    assert LOG == [("start", name, 0, 0, True) for name in ("a", "b", "system")]


def test_a_reference_back_does_not_loop():
    child = Thing("child")
    parent = Thing("parent", child=child)
    child.parent = parent
    parent.do_update_step(0, 0)
    assert sorted(told("start")) == ["child", "parent"]


def test_if_possible_leaves_other_things_alone():
    update_if_possible(object(), 0, 0)
    update_end_if_possible(object(), 0, 0)
    update_if_possible(Thing("a"), 1, 2)
    update_end_if_possible(Thing("a"), 1, 2)
    assert [entry[0] for entry in LOG] == ["start", "end"]


class Geometry(Told, BaseModule):
    kind = "geometry"
    name = "geometry"

    @dataclass(kw_only=True)
    class Config(BaseModule.Config):
        width: int = 2

    def configure(self, scale=1.0):
        self.scale = scale
        self.layer = nn.Linear(self.cfg.width, 1)


class Guidance(BaseObject):
    kind = "guidance"

    @dataclass(kw_only=True)
    class Config:
        strength: float = 1.0

    def configure(self, network):
        self.network = network


def test_configure_gets_the_arguments_and_the_config():
    geometry = Geometry({"width": 3}, scale=2.0)
    assert (geometry.scale, geometry.layer.in_features) == (2.0, 3)
    assert geometry.device == current_device()


def test_an_unknown_key_is_named_where_it_stands():
    with pytest.raises(UnknownKeyError) as caught:
        Geometry({"widht": 3})
    assert caught.value.key == "system.geometry.widht"
    assert "system.geometry.width" in str(caught.value)


def test_an_object_is_not_among_the_parameters():
    system = nn.Module()
    system.guidance = Guidance({}, nn.Linear(2, 2))
    assert list(system.parameters()) == []
    assert system.state_dict() == {}


def test_weights_load_one_module_and_restore_its_step(tmp_path):
    source = Geometry()
    state = {f"geometry.{key}": value for key, value in source.state_dict().items()}
    path = tmp_path / "odd:name.ckpt"
    torch.save({"state_dict": {**state, "material.x": torch.ones(1)}, "epoch": 3, "global_step": 70}, path)
    loaded = Geometry({"weights": f"{path}:geometry"})
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters(), strict=True))
    assert LOG == [("start", "geometry", 3, 70, True)]


def test_weights_of_an_absent_module_are_an_error(tmp_path):
    torch.save({"state_dict": {"material.x": torch.ones(1)}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="material"):
        Geometry({"weights": f"{tmp_path / 'a.ckpt'}:geometry"})
