import torch

from maquette.diffusion.denoiser import own_denoiser
from maquette.diffusion.variational import VariationalDenoiser

CPU = torch.device("cpu")


def model(name="maquette/random-tiny?prediction=v_prediction", **options):
    return VariationalDenoiser(own_denoiser(name, torch.float32, CPU), **options)


def question(seed=0, n=2):
    generator = torch.Generator().manual_seed(seed)
    x, text = torch.randn(n, 4, 8, 8, generator=generator), torch.randn(n, 5, 32, generator=generator)
    return x, torch.tensor([100, 800])[:n], text


def test_only_what_trains_is_seen_by_optimizers_and_checkpoints():
    variational = model()
    names = [name for name, _ in variational.named_parameters()]
    assert names and all(name.startswith(("lora_layers.", "camera_embedding.")) for name in names)
    assert set(variational.state_dict()) == set(names)
    shared = {id(one) for one in variational.denoiser.unet.parameters() if one.requires_grad}
    assert shared == {id(one) for one in variational.lora_layers.values()}


def test_untrained_it_is_the_pretrained_model_whatever_the_camera():
    variational = model()
    x, t, text = question()
    camera = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    pretrained = variational.pretrained_noise(x, t, text)
    assert torch.equal(variational.adapted_noise(x, t, text, camera=camera), pretrained)
    plain = own_denoiser("maquette/random-tiny?prediction=v_prediction", torch.float32, CPU)
    assert torch.equal(pretrained, plain.predict_noise(x, t, text))


def test_training_changes_the_adapted_model_and_leaves_the_pretrained_one():
    variational = model()
    x, t, text = question()
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    camera = torch.randn(2, 16, generator=torch.Generator().manual_seed(5))
    before = variational.pretrained_noise(x, t, text)
    optimizer = torch.optim.Adam(variational.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = variational.loss(x, eps, t, text, camera=camera)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(variational.pretrained_noise(x, t, text), before)
    other = variational.adapted_noise(x, t, text, camera=-camera)
    assert not torch.allclose(variational.adapted_noise(x, t, text, camera=camera), other)
    assert variational.denoiser.unet.class_embedding is None


def test_a_state_restores_the_same_answers():
    trained, again = model(), model()
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(0.01)
    again.load_state_dict(trained.state_dict())
    x, t, text = question(7)
    assert torch.equal(trained.adapted_noise(x, t, text), again.adapted_noise(x, t, text))
    assert not torch.equal(trained.adapted_noise(x, t, text), trained.pretrained_noise(x, t, text))
