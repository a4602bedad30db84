import pytest
import torch

from maquette.core.registry import find
from maquette.diffusion.load import load_pipeline
from maquette.models.prompt_processors.deep_floyd import DeepFloydPromptProcessor

TINY = "maquette/random-tiny"


@pytest.mark.parametrize(("half", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_t5_reads_the_words_of_every_view(half, dtype):
    processor = DeepFloydPromptProcessor(
        {
            "prompt": "a red car",
            "negative_prompt": "blurry",
            "pretrained_model_name_or_path": TINY,
            "half_precision_weights": half,
        }
    )
    pipeline = load_pipeline(f"{TINY}?family=pixel", dtype=dtype)
    assert type(pipeline.text_encoder).__name__ == "T5EncoderModel"
    texts = [f"a red car, {view} view" for view in ("side", "back")] + ["blurry"] * 2
    tokens = pipeline.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    expected = pipeline.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    found = processor().get_text_embeddings(torch.zeros(2), torch.tensor([90.0, 180.0]))
    assert found.dtype == dtype and found.shape[1] == 77
    torch.testing.assert_close(found, expected)


def test_it_is_registered_with_its_model():
    assert find("deep-floyd-prompt-processor", "prompt-processor") is DeepFloydPromptProcessor
    assert DeepFloydPromptProcessor.Config().pretrained_model_name_or_path == "DeepFloyd/IF-I-XL-v1.0"
