import pytest
import torch
from torch import nn

from maquette.diffusion.contexts import disable_unet_class_embedding, evaluating, frozen
from maquette.diffusion.load import IMAGE_PARTS, load_pipeline


def test_the_class_embedding_is_gone_for_a_while_and_comes_back():
    unet = load_pipeline("maquette/random-tiny", parts=IMAGE_PARTS).unet
    unet.class_embedding = nn.Linear(4, unet.time_embedding.linear_2.out_features)
    arguments = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 3, 32))
    camera = torch.randn(1, 4)
    with torch.no_grad():
        with_camera = unet(*arguments, class_labels=camera).sample
        with pytest.raises(ZeroDivisionError), disable_unet_class_embedding(unet):
            without = unet(*arguments).sample
            raise ZeroDivisionError
        again = unet(*arguments, class_labels=camera).sample
    assert torch.equal(again, with_camera)
    assert not torch.allclose(without, with_camera)


def test_modes_and_flags_of_every_part_come_back():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module[1].eval()
    module[0].bias.requires_grad_(False)
    with evaluating(module), frozen(module):
        assert not any(one.training for one in module.modules())
        assert not any(one.requires_grad for one in module.parameters())
    assert module.training and module[0].training and not module[1].training
    assert module[0].weight.requires_grad and not module[0].bias.requires_grad
