"""Names of modules: lazy, suggested when wrong, refused when taken, extended from folders and packages."""

import importlib.metadata
import sys

import pytest

import maquette
from maquette.core.errors import MissingFileError, UnknownNameError, UserError
from maquette.core.registry import Registry, load_extension

TABLE = {
    "geometry": {"ordered-volume": "collections:OrderedDict", "not-there": "maquette_has_no_such_module:X"},
    "material": {"counting-material": "collections:Counter"},
}


@pytest.fixture
def registry():
    return Registry(TABLE)


class Example:
    kind = "guidance"


def test_find_imports_the_class_when_asked(registry):
    assert registry.find("ordered-volume").__name__ == "OrderedDict"
    assert registry.find("ordered-volume", "geometry") is registry.find("ordered-volume")


def test_a_miss_suggests_near_names_of_the_kind(registry):
    with pytest.raises(UnknownNameError) as caught:
        registry.find("orderd-volume", "geometry")
    assert caught.value.near == ["ordered-volume"]
    assert "did you mean ordered-volume?" in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        registry.find("counting-materiel", "geometry")
    assert caught.value.near == []


def test_a_name_of_another_kind_says_so(registry):
    with pytest.raises(UnknownNameError, match="'counting-material' is a material"):
        registry.find("counting-material", "geometry")


def test_register_takes_the_kind_of_the_class(registry):
    assert registry.register("example")(Example) is Example
    assert registry.find("example", "guidance") is Example
    assert registry.kind_of("example") == "guidance"
    assert registry.names("guidance") == ["example"]


def test_a_taken_name_is_refused_unless_it_is_the_same_class(registry):
    registry.register("example")(Example)
    registry.register("example")(Example)
    with pytest.raises(UserError, match=r"twice[\s\S]*Example[\s\S]*Other"):
        registry.register("example")(type("Other", (), {}))


def test_composition_mixes_classes_into_the_first(registry):
    registry.register("mixin-a", "system")(type("A", (), {"value": "a"}))
    registry.register("mixin-b", "system")(type("B", (), {"value": "b", "other": 1}))
    registry.register("example")(Example)
    composed = registry.find("example:mixin-a,mixin-b", "guidance")
    assert composed.__name__ == "example.mixin-a,mixin-b"
    assert [base.__name__ for base in composed.__mro__[1:4]] == ["A", "B", "Example"]
    assert (composed.value, composed.other) == ("a", 1)


def test_check_imports_nothing(registry):
    registry.check("not-there", "geometry")
    with pytest.raises(UnknownNameError, match=r"system\.geometry_type"):
        registry.check("ordered", "geometry", at="system.geometry_type")


def test_the_functions_of_the_package_are_the_registry():
    from maquette.core import registry as module

    assert maquette.register is module.register
    assert maquette.find is module.find
    assert "implicit-volume" in module.names("geometry")


def test_an_installed_package_registers_itself_when_a_name_is_missing(monkeypatch):
    registry = Registry({}, entry_point_group="some.group")

    class Point:
        name = "theirs"

        def load(self):
            registry.register("theirs", "geometry")(Example)

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point()] * (group == "some.group"))
    assert registry.find("theirs", "geometry") is Example


def test_a_broken_installed_package_stops_with_its_own_error(monkeypatch):
    class Point:
        name = "theirs"

        def load(self):
            raise ZeroDivisionError("their bug")

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point()])
    with pytest.raises(UserError, match=r"theirs[\s\S]*ZeroDivisionError: their bug"):
        Registry({}, entry_point_group="some.group").find("x")


def test_extension_folder_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    folder = tmp_path / "maquette-test-extension"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 3\n")
    assert load_extension(folder).VALUE == 3
    assert load_extension(folder) is sys.modules["maquette-test-extension"]
    (tmp_path / "maquette_test_file.py").write_text("VALUE = 4\n")
    assert load_extension(tmp_path / "maquette_test_file.py").VALUE == 4


def test_broken_extension_names_its_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "maquette_test_broken.py"
    path.write_text("\nraise KeyError('their bug')\n")
    with pytest.raises(UserError, match=r"KeyError: 'their bug'[\s\S]*maquette_test_broken.py:2"):
        load_extension(path)
    assert "maquette_test_broken" not in sys.modules


def test_extension_that_is_absent_or_named_like_a_library(tmp_path):
    with pytest.raises(MissingFileError):
        load_extension(tmp_path / "nothing")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UserError, match="name of another module"):
        load_extension(tmp_path / "json.py")
