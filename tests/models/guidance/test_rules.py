"""Each rule against its paper, with a model of Gaussian data whose answers are known in closed form."""

from dataclasses import replace

import pytest
import torch

from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError
from maquette.core.random import RandomStreams
from maquette.diffusion import score
from maquette.diffusion.text import TextEncoding
from maquette.models.guidance.rules import RULES, Sample, parse_rule
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.stable_diffusion_sdi import StableDiffusionSDIGuidance
from maquette.models.guidance.view_text import ViewText
from maquette.models.prompt_processors.directions import four_views
from maquette.models.prompt_processors.prompt_utils import PromptUtils

TEXT, NEGATIVE, NULL = (0.2, 0.4, 0.6), 0.1, -0.3
SPREAD = 0.25
T = 1000


class GaussianDenoiser:
    """The ideal model of data that is normal around the text's single number, with one spread for all."""

    alphas_cumprod = torch.linspace(0.9999, 0.01, T, dtype=torch.float64)
    num_train_timesteps = T
    image_size = latent_size = 4
    latent_channels = 3

    def encode(self, images, noise=None):
        return images

    def decode(self, latents):
        return latents

    def predict_noise(self, x_t, t, text, pooled=None):
        return noise_of(x_t, text[:, 0, 0].to(x_t), self.alphas_cumprod[t])


def noise_of(x_t, mean, alpha_bar):
    """-sqrt(1 - a) times the score of N(sqrt(a) mean, a spread^2 + 1 - a)."""
    mean, a = (score.per_sample(torch.as_tensor(one, dtype=x_t.dtype), x_t) for one in (mean, alpha_bar))
    return (1 - a).sqrt() * (x_t - a.sqrt() * mean) / (a * SPREAD**2 + 1 - a)


class WaveDenoiser(GaussianDenoiser):
    """The ideal model of one picture for each text: waves, whose directions differ."""

    def __init__(self):
        self.asked = []

    def predict_noise(self, x_t, t, text, pooled=None):
        self.asked.append(len(x_t))
        return score.eps_from_x0(waves(text[:, 0, 0]), x_t, self.alphas_cumprod[t])


def waves(numbers):
    return (20 * numbers.double().view(-1, 1, 1, 1) * torch.linspace(0.1, 1, 48).view(3, 4, 4)).sin()


def prompt(**changes):
    number = lambda *values: TextEncoding(torch.tensor(values, dtype=torch.float64).view(-1, 1, 1))
    views = four_views()
    return PromptUtils(
        prompt="a number",
        prompts_vd=views.prompts("a number"),
        directions=views,
        text=number(0.5),
        text_vd=number(*TEXT, 0.8),
        uncond=number(NEGATIVE),
        **{"null": number(NULL), **changes},
    )


def ask(rule, model=None, utils=None, **options):
    """Gradient with respect to latents, and everything that went in."""
    rows = range(3)
    guidance = StableDiffusionGuidance({"rule": rule, **options}, model or GaussianDenoiser())
    azimuth = torch.tensor([90.0, 0.0, 180.0])[list(rows)]
    cameras = {"elevation": torch.zeros(len(rows)), "azimuth": azimuth, "camera_distances": azimuth}
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 4, 4, 3, generator=generator, dtype=torch.float64)[list(rows)].requires_grad_()
    rng = RandomStreams(0).at(2, list(rows))
    out = guidance(x, utils or prompt(), **cameras, rng=rng, rgb_as_latents=True)
    out.loss_sds.backward()
    latents, noise = x.detach().permute(0, 3, 1, 2), rng.normal("guidance/noise", 3, 4, 4).double()
    return x.grad.permute(0, 3, 1, 2) * len(rows), latents, noise, out.timestep


def levels(t):
    alpha_bar = GaussianDenoiser.alphas_cumprod[t]
    return alpha_bar, alpha_bar.view(-1, 1, 1, 1)


def exactly(found, expected):
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_sds_is_weighted_noise_difference():
    grad, x, noise, t = ask("sds", guidance_scale=7.5)
    a, wide = levels(t)
    x_t = wide.sqrt() * x + (1 - wide).sqrt() * noise
    eps_text, eps_none = noise_of(x_t, TEXT, a), noise_of(x_t, [NEGATIVE] * 3, a)
    exactly(grad, (1 - wide) * (eps_none + 7.5 * (eps_text - eps_none) - noise))


@pytest.mark.parametrize("negative", [0.0, 1e-6, 0.5])
def test_csd_is_the_difference_that_the_text_makes(negative):
    grad, x, noise, t = ask(
        "csd", weighting_strategy="uniform", rule_args={"positive": 2.0, "negative": negative}
    )
    a, wide = levels(t)
    x_t = wide.sqrt() * x + (1 - wide).sqrt() * noise
    text, away, null = (noise_of(x_t, mean, a) for mean in (TEXT, [NEGATIVE] * 3, [NULL] * 3))
    exactly(grad, 2.0 * (text - null) + negative * (null - away))


@pytest.mark.parametrize(("null", "negative", "rows"), [(None, 0.0, [6]), (None, 0.5, [6]), (NULL, 0.0, [6])])
def test_csd_makes_two_predictions_where_no_negative_prompt_counts(null, negative, rows):
    model, utils = WaveDenoiser(), prompt()
    utils = utils if null else replace(utils, null=None)
    grad, _, _, t = ask("csd", model, utils, weighting_strategy="uniform", rule_args={"negative": negative})
    assert model.asked == rows
    without = torch.tensor(null or NEGATIVE)
    ratio = (levels(t)[1] / (1 - levels(t)[1])).sqrt()
    exactly(grad, ratio * (waves(without) - waves(torch.tensor(TEXT))))


@pytest.mark.parametrize("rule", ["csd", "nfsd", "reconstruction"])
def test_every_rule_moves_away_from_other_views_under_perp_neg(rule):
    model, utils = WaveDenoiser(), prompt(use_perp_neg=True)
    options = {"min_step_percent": 0.5, "guidance_scale": 7.5, "weighting_strategy": "uniform"}
    arguments = {"csd": {"negative": 1.0}, "reconstruction": {"rescale": 0.0}}.get(rule, {})
    grad, x, noise, t = ask(rule, model, utils, rule_args=arguments, **options)
    a, wide = levels(t)
    x_t = score.add_noise(x, noise, a)
    eps = lambda *numbers: score.eps_from_x0(waves(torch.tensor(numbers)), x_t, a)
    side, front, _ = TEXT
    text, away, null = eps(*TEXT), eps(*[NEGATIVE] * 3), eps(*[NULL] * 3)
    others = torch.stack([eps(side, front, side), eps(front, side, front)], dim=1)
    _, weights = utils.encoding_perp_neg(torch.zeros(3), torch.tensor([90.0, 0.0, 180.0]))
    steered = score.perp_neg(away, text, others, weights.double(), scale=1.0)
    guided = away + 7.5 * (steered - away)
    expected = {
        "csd": (steered - null) + (null - away),
        "nfsd": (null - away) + 7.5 * (steered - null),
        "reconstruction": x - (x_t - (1 - wide).sqrt() * guided) / wide.sqrt(),
    }[rule]
    assert (steered - text).norm() > 0.1 * text.norm()
    exactly(grad, expected)


@pytest.mark.parametrize("rule", ["csd", "nfsd", "reconstruction"])
def test_rescaling_is_refused_where_a_rule_has_nothing_to_rescale(rule):
    with pytest.raises(ConfigError, match=r"system\.guidance\.guidance_rescale"):
        StableDiffusionGuidance({"rule": rule, "guidance_rescale": 0.5}, GaussianDenoiser())


@pytest.mark.parametrize("percent", [0.15, 0.6])
def test_nfsd_takes_the_domain_from_the_negative_prompt_above_its_level(percent):
    options = {"min_step_percent": percent, "max_step_percent": percent, "guidance_scale": 7.5}
    grad, x, noise, t = ask("nfsd", weighting_strategy="uniform", **options)
    a, wide = levels(t)
    x_t = wide.sqrt() * x + (1 - wide).sqrt() * noise
    text, away, null = (noise_of(x_t, mean, a) for mean in (TEXT, [NEGATIVE] * 3, [NULL] * 3))
    domain = null if percent < 0.2 else null - away
    exactly(grad, domain + 7.5 * (text - null))


def test_ism_compares_two_levels_of_one_inversion():
    options = {"min_step_percent": 0.3, "max_step_percent": 0.7, "guidance_scale": 7.5}
    grad, x, _, t = ask("ism", rule_args={"interval": 0.1, "stride": 0.5}, **options)
    a, wide = levels(t)
    s = t - 100
    null = lambda z, level: noise_of(z, [NULL] * 3, GaussianDenoiser.alphas_cumprod[level])
    z = x
    for low, high in ((s * 0, s // 2), (s // 2, s)):
        eps, (b, c) = null(z, low), (levels(low)[1], levels(high)[1])
        z = c.sqrt() * (z - (1 - b).sqrt() * eps) / b.sqrt() + (1 - c).sqrt() * eps
    eps_s, b = null(z, s), levels(s)[1]
    x_t = wide.sqrt() * (z - (1 - b).sqrt() * eps_s) / b.sqrt() + (1 - wide).sqrt() * eps_s
    text, away = noise_of(x_t, TEXT, a), noise_of(x_t, [NEGATIVE] * 3, a)
    exactly(grad, (1 - wide) * (away + 7.5 * (text - away) - eps_s))


def test_sdi_draws_to_the_picture_that_the_model_makes_of_the_inverted_noise():
    options = {"min_step_percent": 0.3, "max_step_percent": 0.7, "guidance_scale": 7.5}
    arguments = {"steps": 2, "eta": 0.6, "scale": -2.0}
    grad, x, noise, t = ask("sdi", weighting_strategy="uniform", rule_args=arguments, **options)

    def guided(z, level, scale):
        a = GaussianDenoiser.alphas_cumprod[level]
        text, away = noise_of(z, TEXT, a), noise_of(z, [NEGATIVE] * 3, a)
        return away + scale * (text - away)

    z = x
    for low, high in ((t * 0, t // 2), (t // 2, t)):
        eps, (b, c) = guided(z, low, -2.0), (levels(low)[1], levels(high)[1])
        z = c.sqrt() * (z - (1 - b).sqrt() * eps) / b.sqrt() + (1 - c).sqrt() * eps
    wide = levels(t)[1]
    found = 0.8 * (z - wide.sqrt() * x) / (1 - wide).sqrt() + 0.6 * noise
    x_t = wide.sqrt() * x + (1 - wide).sqrt() * found
    exactly(grad, x - (x_t - (1 - wide).sqrt() * guided(x_t, t, 7.5)) / wide.sqrt())


def test_reconstruction_without_rescaling_is_sds_with_another_weighting():
    grad, _, _, t = ask("reconstruction", weighting_strategy="uniform", rule_args={"rescale": 0.0})
    sds, _, _, _ = ask("sds", weighting_strategy="uniform")
    wide = levels(t)[1]
    exactly((wide / (1 - wide)).sqrt() * grad, sds)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_three_is_three_batches_of_one_bit_for_bit(rule):
    def gradient(rows):
        guidance = StableDiffusionGuidance({"rule": rule}, GaussianDenoiser())
        angles = torch.tensor([90.0, 0.0, 180.0])[rows]
        x = torch.linspace(-1, 1, 144, dtype=torch.float64).view(3, 3, 4, 4)[rows]
        noise = x.flip(-1).sin()
        text = ViewText(prompt(), torch.zeros(len(rows)), angles, True)
        t = torch.tensor([700, 100, 400])[rows]
        return guidance.rule(guidance, Sample(latents=x, noise=noise, t=t, text=text)).gradient

    assert torch.equal(gradient([0, 1, 2]), torch.cat([gradient([i]) for i in range(3)]))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_draws_latents_to_what_the_text_says(rule):
    guidance = StableDiffusionGuidance(
        {"rule": rule, "guidance_scale": 1.0, "max_step_percent": 0.6}, GaussianDenoiser()
    )
    x = torch.full((1, 4, 4, 3), -1.0, dtype=torch.float64)
    steps = []
    for step in range(20):
        leaf = x.clone().requires_grad_()
        zero = torch.zeros(1)
        cameras = {"elevation": zero, "azimuth": zero, "camera_distances": zero}
        rng = RandomStreams(0).at(step, [0])
        guidance(leaf, prompt(), **cameras, rng=rng, rgb_as_latents=True).loss_sds.backward()
        steps.append(leaf.grad.mean().item())
    assert sum(steps) < 0  # descending raises the latents, towards 0.4


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("sdz", {}, UnknownNameError),
        ("ism", {"strides": 1}, UnknownKeyError),
        ("sdi", {"eta": 2}, ConfigError),
    ],
)
def test_a_rule_that_is_not_there_is_named(name, options, error):
    with pytest.raises(error):
        parse_rule(name, options)


def test_the_guidance_of_sdi_is_that_rule_with_the_gradient_of_a_mean_and_annealed_levels():
    guidance = StableDiffusionSDIGuidance({"guidance_scale": 2.0}, GaussianDenoiser())
    guidance.update_step(0, 5000)
    assert guidance.min_step == guidance.max_step == 20 + (980 - 20) // 2
    plain = StableDiffusionGuidance(
        {"rule": "sdi", "guidance_scale": 2.0, "weighting_strategy": "uniform"}, GaussianDenoiser()
    )
    x = torch.linspace(-1, 1, 48, dtype=torch.float64).view(1, 3, 4, 4)
    text = ViewText(prompt(), torch.zeros(1), torch.zeros(1), True)
    sample = Sample(latents=x, noise=x.sin(), t=torch.tensor([500]), text=text)
    found = guidance.rule(guidance, sample)
    exactly(found.gradient * 48, plain.rule(plain, sample).gradient)
    angles = {"elevation": torch.zeros(1), "azimuth": torch.zeros(1), "camera_distances": torch.zeros(1)}
    out = guidance(x.permute(0, 2, 3, 1), prompt(), **angles, rgb_as_latents=True)
    assert "loss_sdi" in out and "loss_sds" not in out
