"""Configs are checked before anything is built, and every message names the key."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from omegaconf import OmegaConf

from maquette.core.errors import ConfigError, UnknownKeyError
from maquette.core.schedule import Schedule
from maquette.core.structured import parse_structured


@dataclass(kw_only=True)
class Inner:
    depth: int = 1


@dataclass(kw_only=True)
class Config:
    radius: float = 1.0
    count: int = 2
    name: str = "a"
    flag: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    numbers: list[int] = field(default_factory=list)
    network: dict[str, Any] = field(default_factory=lambda: {"otype": "VanillaMLP", "n_neurons": 64})
    threshold: float | str = 25.0
    limit: float | None = None
    weight: Any = 0.0
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        self.weight = Schedule.parse(self.weight, key="weight")


def parse(**values):
    return parse_structured(Config, values, "system.part")


def test_defaults_and_given_values_of_the_right_types():
    cfg = parse(
        radius=2,
        pair=[1, 2],
        numbers=[3],
        network={"otype": "X"},
        inner={"depth": 4},
        weight=[0, 1.0, 3.0, 2],
    )
    assert (cfg.radius, type(cfg.radius), cfg.count) == (2.0, float, 2)
    assert list(cfg.pair) == [1.0, 2.0]
    assert cfg.network == {"otype": "X"}  # replaced, not merged with the default
    assert cfg.inner.depth == 4
    assert cfg.weight.at(1) == 2.0
    assert OmegaConf.get_type(cfg) is Config


def test_text_that_is_a_number_is_taken_and_a_whole_number_fits_a_union():
    assert parse(radius="1e-3").radius == 0.001
    assert parse(threshold=10).threshold == 10.0
    assert parse(threshold="auto").threshold == "auto"


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"radius": [1.0]}, "radius", "a number; a list is not accepted here"),
        ({"radius": "big"}, "radius", "a number"),
        ({"radius": None}, "radius", "a number"),
        ({"radius": True}, "radius", "a number"),
        ({"count": 1.5}, "count", "a whole number"),
        ({"name": {"a": 1}}, "name", "text"),
        ({"flag": "perhaps"}, "flag", "true or false"),
        ({"pair": [1, 2, 3]}, "pair", "a list (2 values, each a number)"),
        ({"numbers": [1.5]}, "numbers", "a list (each a whole number)"),
        ({"network": 3}, "network", "a mapping"),
        ({"limit": [1]}, "limit", "a number or null; a list is not accepted here"),
        ({"inner": {"depth": "x"}}, "inner.depth", "a whole number"),
    ],
)
def test_a_wrong_type_names_key_value_and_what_was_expected(values, key, expected):
    with pytest.raises(ConfigError) as caught:
        parse(**values)
    assert (caught.value.key, caught.value.expected) == (f"system.part.{key}", expected)


def test_an_unknown_key_is_suggested_with_its_full_path():
    with pytest.raises(UnknownKeyError) as caught:
        parse(radus=1.0)
    assert caught.value.near == ["radius"]
    assert "did you mean system.part.radius?" in str(caught.value)
    with pytest.raises(UnknownKeyError) as caught:
        parse(inner={"dept": 1})
    assert caught.value.key == "system.part.inner.dept"


def test_a_far_miss_lists_what_is_known():
    with pytest.raises(UnknownKeyError, match="accepts: radius, count"):
        parse(zzz=1)


def test_values_stay_checked_after_parsing():
    cfg = parse()
    with pytest.raises(Exception, match="count"):
        cfg.count = "many"
    with pytest.raises(Exception, match="unheard"):
        cfg.unheard = 1


def test_interpolations_are_resolved_and_their_failures_named():
    cfg = OmegaConf.create({"a": 3.0, "part": {"radius": "${a}", "name": r"\${a}"}})
    parsed = parse_structured(Config, cfg.part, "part")
    assert (parsed.radius, parsed.name) == (3.0, "${a}")
    with pytest.raises(ConfigError, match=r"part\.radius"):
        parse_structured(Config, OmegaConf.create({"radius": "${nowhere}"}), "part")


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"system\.part\.radius"):
        parse_structured(Config, OmegaConf.create({"radius": "???"}), "system.part")


def test_nothing_given_means_defaults_and_no_mapping_is_refused():
    assert parse_structured(Config, None) == parse_structured(Config, {})
    with pytest.raises(ConfigError, match="a mapping"):
        parse_structured(Config, 3, "system.part")


def test_an_instance_is_not_changed():
    given = Config(name="${x}")
    assert parse_structured(Config, given).name == "${x}"
    assert given.name == "${x}"
