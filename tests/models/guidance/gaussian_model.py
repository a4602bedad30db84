"""The ideal model of normal data, for guidances that read more than a text: its answers are known exactly."""

import torch

from maquette.core.random import RandomStreams
from maquette.diffusion import score
from maquette.diffusion.text import TextEncoding
from maquette.models.prompt_processors.directions import four_views
from maquette.models.prompt_processors.prompt_utils import PromptUtils

T = 1000
SPREAD = 0.25
SIDE, FRONT, BACK, NEGATIVE = 0.2, 0.4, 0.6, 0.1


def noise_of(x_t, mean, alpha_bar):
    """-sqrt(1 - a) times the score of N(sqrt(a) mean, a spread^2 + 1 - a); `mean` one a sample, or all."""
    a = score.per_sample(alpha_bar, x_t)
    mean = torch.as_tensor(mean, dtype=x_t.dtype)
    mean = mean.view(-1, 1, 1, 1) if mean.ndim < 2 else mean
    return (1 - a).sqrt() * (x_t - a.sqrt() * mean) / (a * SPREAD**2 + 1 - a)


class GaussianModel:
    """Pictures are their own latents; subclasses say where the data lie."""

    alphas_cumprod = torch.linspace(0.9999, 0.01, T, dtype=torch.float64)
    num_train_timesteps = T
    image_size = latent_size = 4
    latent_channels = 3

    def encode(self, images, noise=None):
        return images

    def decode(self, latents):
        return latents

    def noise_at(self, x_t, t, mean):
        return noise_of(x_t, mean, self.alphas_cumprod[t])


def prompt():
    """Every view's text is one number."""
    number = lambda *values: TextEncoding(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1))
    views = four_views()
    return PromptUtils(
        prompt="a number",
        prompts_vd=views.prompts("a number"),
        directions=views,
        text=number(0.5),
        text_vd=number(SIDE, FRONT, BACK, 0.8),
        uncond=number(NEGATIVE),
    )


def cameras(rows=range(3)):
    """From the side, the front and the back."""
    rows = list(rows)
    azimuth = torch.tensor([90.0, 0.0, 180.0, -90.0, 45.0, 135.0], dtype=torch.float64)[rows]
    elevation = torch.tensor([0.0, 20.0, -10.0, 5.0, 30.0, 10.0], dtype=torch.float64)[rows]
    distance = torch.tensor([1.2, 1.5, 1.0, 1.2, 1.1, 1.3], dtype=torch.float64)[rows]
    return {"elevation": elevation, "azimuth": azimuth, "camera_distances": distance}


def pictures(count=3, size=4, channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, size, size, channels, generator=generator, dtype=torch.float64)


def ask(guidance, rows=range(3), utils=None, **more):
    """The gradient (B C H W) of the mean over B pictures, x_t, its levels, and the noise that was added."""
    rows = list(rows)
    x = pictures(6)[rows].requires_grad_()
    rng = RandomStreams(0).at(2, rows)
    out = guidance(x, utils, **cameras(rows), rng=rng, **more)
    sum(value for name, value in out.items() if name.startswith("loss_")).backward()
    latents, noise = x.detach().permute(0, 3, 1, 2), rng.normal("guidance/noise", 3, 4, 4).double()
    a = GaussianModel.alphas_cumprod[out.timestep]
    x_t = score.add_noise(latents, noise, a)
    return x.grad.permute(0, 3, 1, 2), x_t, a, noise


def is_its_parts(asked, parts):
    """Whether the gradient of a batch is bit for bit that of its equal parts; `asked` gives it."""
    together = asked([row for part in parts for row in part])
    alone = torch.cat([asked(part) for part in parts])
    return bool(together.norm() > 0) and torch.equal(together, alone / len(parts))


def exactly(found, expected):
    """The gradient of a mean over the batch, from the formula for each picture."""
    expected = expected / len(expected)
    assert expected.norm() > 0 and (found - expected).norm() <= 1e-6 * expected.norm()
