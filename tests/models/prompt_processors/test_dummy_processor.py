import pytest
import torch

from maquette.core.errors import UserError
from maquette.core.registry import find
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.prompt_processors.dummy import DummyPromptProcessor


def test_it_takes_every_option_and_loads_nothing():
    kind = find("dummy-prompt-processor", "prompt-processor")
    assert kind is DummyPromptProcessor and kind().prompt == ""
    processor = kind({"prompt": "hamburger", "use_prompt_debiasing": True, "prompt_back": "x"})
    assert processor.prompt == "hamburger"
    assert processor() is None


def test_what_needs_text_says_that_there_is_none():
    with pytest.raises(UserError, match="cannot encode text"):
        DummyPromptProcessor().encode(["a"])
    guidance = StableDiffusionGuidance({"pretrained_model_name_or_path": "maquette/random-tiny"})
    zeros = torch.zeros(1)
    with pytest.raises(UserError, match="reads a prompt, and there is none"):
        guidance(torch.zeros(1, 8, 8, 3), DummyPromptProcessor()(), zeros, zeros, zeros)
