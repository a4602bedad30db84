"""Rules of score distillation over a latent model: which noise, which predictions, which gradient.

A rule is a small object with its options; the formulas are in `maquette.diffusion.distillation`.
"""

from abc import abstractmethod
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol

from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError
from maquette.diffusion import distillation, score
from maquette.models.guidance.predictions import Predictions
from maquette.models.guidance.view_text import ViewCondition


@dataclass(frozen=True, kw_only=True)
class Sample:
    """B latents, the noise levels at which they are judged, and noise to put on them."""

    latents: Float[Tensor, "B C h w"]
    noise: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    text: ViewCondition
    camera: Float[Tensor, "B K"] | None = None
    """What a model of the renderings reads about the cameras (VSD)."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What a rule found."""

    gradient: Float[Tensor, "B C h w"]
    """With respect to the latents."""
    x0_hat: Float[Tensor, "B C h w"]
    """The clean latents that the guided prediction implies."""
    x0_phi: Float[Tensor, "B C h w"] | None = None
    """Those of a model of the renderings, where there is one (VSD)."""


class Predictor(Protocol):
    """What a rule may ask of a guidance; every prediction is made without a graph."""

    num_train_timesteps: int

    @property
    def alphas_cumprod(self) -> Float[Tensor, "T"]:
        """The cumulated product of 1 - beta of every noise level."""

    def guided_noise(self, x_t: Tensor, t: Tensor, text: ViewCondition, scale: float | None = None) -> Tensor:
        """The guided noise prediction; `scale` takes the place of the configured one."""

    def predictions(self, x_t: Tensor, t: Tensor, text: ViewCondition) -> Predictions:
        """With the text and with the negative prompt."""

    def null_noise(self, x_t: Tensor, t: Tensor, text: ViewCondition) -> Tensor:
        """The prediction without any text."""

    def weight(self, t: Tensor) -> Tensor:
        """w of the noise levels."""

    @property
    def scale(self) -> float:
        """The guidance scale."""


class Rule:
    """Base of the rules."""

    rescalable: ClassVar[bool] = True
    """Whether its gradient has a guided prediction whose spread `guidance_rescale` could bring back."""

    @abstractmethod
    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """The gradient for a batch, each sample by itself."""


@dataclass(frozen=True, kw_only=True)
class SDS(Rule):
    """Score distillation sampling (DreamFusion)."""

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """One guided prediction, compared with the noise that was added."""
        x_t, alpha_bar = _noised(model, sample)
        eps_hat = model.guided_noise(x_t, sample.t, sample.text)
        grad = distillation.sds_gradient(eps_hat, sample.noise, model.weight(sample.t))
        return Distilled(gradient=grad, x0_hat=score.predicted_x0(x_t, eps_hat, alpha_bar))


@dataclass(frozen=True, kw_only=True)
class SJC(Rule):
    """Score Jacobian chaining; has no weighting."""

    var_red: bool = True
    """Whether the noise that was added is subtracted."""

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """One guided prediction, compared with the noise that was added, or with nothing."""
        x_t, alpha_bar = _noised(model, sample)
        eps_hat = model.guided_noise(x_t, sample.t, sample.text)
        grad = distillation.sjc_gradient(eps_hat, sample.noise, self.var_red)
        return Distilled(gradient=grad, x0_hat=score.predicted_x0(x_t, eps_hat, alpha_bar))


@dataclass(frozen=True, kw_only=True)
class CSD(Rule):
    """Classifier score distillation; the guidance scale has no part in it, the weights have."""

    rescalable: ClassVar[bool] = False

    positive: float = 1.0
    """Weight of the direction towards the text."""
    negative: float = 0.0
    """Weight of the direction away from the negative prompt; 0: it has no part."""

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """The difference that the text makes; a third prediction only where a negative prompt counts."""
        x_t, alpha_bar = _noised(model, sample)
        text = sample.text if self.negative != 0.0 else sample.text.without_negative()
        eps_text, eps_negative, _ = model.predictions(x_t, sample.t, text)
        eps_null = model.null_noise(x_t, sample.t, text) if text.has_negative else eps_negative
        weight = model.weight(sample.t)
        grad = distillation.csd_gradient(
            eps_text, eps_null, eps_negative, weight, self.positive, self.negative
        )
        return Distilled(gradient=grad, x0_hat=score.predicted_x0(x_t, eps_text, alpha_bar))


@dataclass(frozen=True, kw_only=True)
class NFSD(Rule):
    """Noise-free score distillation; wants a negative prompt of what pictures should not look like."""

    rescalable: ClassVar[bool] = False

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """Three predictions: with the text, with the negative prompt, and without any."""
        x_t, alpha_bar = _noised(model, sample)
        eps_text, eps_negative, _ = model.predictions(x_t, sample.t, sample.text)
        eps_null = model.null_noise(x_t, sample.t, sample.text)
        level = sample.t.to(alpha_bar) / model.num_train_timesteps
        grad = distillation.nfsd_gradient(
            eps_text, eps_null, eps_negative, level, model.weight(sample.t), model.scale
        )
        eps_hat = score.classifier_free(eps_null, eps_text, model.scale)
        return Distilled(gradient=grad, x0_hat=score.predicted_x0(x_t, eps_hat, alpha_bar))


@dataclass(frozen=True, kw_only=True)
class ISM(Rule):
    """Interval score matching (LucidDreamer): noise by DDIM inversion, and two levels compared."""

    interval: float = 0.05
    """t - s, as a share of the noise levels."""
    stride: float = 0.2
    """Length of an inversion step below s, as a share of s: 0.2 goes there in five equal steps, whatever s.
    (LucidDreamer's own strides are numbers of levels, so that it takes more steps to a higher s.)"""

    def __post_init__(self) -> None:
        _check_share("interval", self.interval)
        if not 0.0 < self.stride <= 1.0:
            raise ConfigError("system.guidance.rule_args.stride", self.stride, "a number above 0, up to 1")

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """Inversion to s, one step on to t, and the predictions at both."""
        total = model.num_train_timesteps
        t = sample.t
        s = (t - max(1, round(self.interval * total))).clamp(min=0)

        def predict(x: Tensor, level: Tensor) -> Tensor:
            return model.null_noise(x, level, sample.text)

        steps = max(1, round(1.0 / self.stride))
        levels = distillation.ascending_levels(0, s, steps)
        x_s = distillation.invert(sample.latents, levels, predict, model.alphas_cumprod)
        eps_s = predict(x_s, s)
        alpha_bar = model.alphas_cumprod[t]
        x_t = score.ddim_step(x_s, eps_s, model.alphas_cumprod[s], alpha_bar)
        eps_hat = model.guided_noise(x_t, t, sample.text)
        grad = distillation.ism_gradient(eps_hat, eps_s, model.weight(t))
        return Distilled(gradient=grad, x0_hat=score.predicted_x0(x_t, eps_hat, alpha_bar))


@dataclass(frozen=True, kw_only=True)
class SDI(Rule):
    """Score distillation via inversion: the noise is the one that leads back to the picture."""

    scale: float = -7.5
    """Guidance scale of the inversion."""
    steps: int = 10
    """Inversion steps from no noise to t."""
    eta: float = 0.3
    """Share of fresh noise in the inverted one."""

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)
        if self.steps < 1:
            raise ConfigError("system.guidance.rule_args.steps", self.steps, "an integer above 0")

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """Inversion to t, some fresh noise, and the picture that the model makes of it."""

        def predict(x: Tensor, level: Tensor) -> Tensor:
            return model.guided_noise(x, level, sample.text, scale=self.scale)

        levels = distillation.ascending_levels(0, sample.t, self.steps)
        inverted = distillation.invert(sample.latents, levels, predict, model.alphas_cumprod)
        alpha_bar = model.alphas_cumprod[sample.t]
        found = distillation.noise_between(inverted, sample.latents, alpha_bar)
        noise = (1.0 - self.eta**2) ** 0.5 * found + self.eta * sample.noise
        x_t = score.add_noise(sample.latents, noise, alpha_bar)
        eps_hat = model.guided_noise(x_t, sample.t, sample.text)
        x0_hat = score.predicted_x0(x_t, eps_hat, alpha_bar)
        grad = distillation.reconstruction_gradient(sample.latents, x0_hat, model.weight(sample.t))
        return Distilled(gradient=grad, x0_hat=x0_hat)


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Rule):
    """SDS written as a loss on the model's clean picture (MVDream), whose contrast may be brought back."""

    rescalable: ClassVar[bool] = False

    rescale: float = 0.5
    """How much of the plain prediction's spread the guided clean picture takes on."""

    def __post_init__(self) -> None:
        _check_share("rescale", self.rescale)

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """The model's clean picture, its contrast brought back, compared with the picture."""
        x_t, alpha_bar = _noised(model, sample)
        found = model.predictions(x_t, sample.t, sample.text)
        plain = score.predicted_x0(x_t, found.plain, alpha_bar)
        guided = score.predicted_x0(x_t, found.guided(model.scale), alpha_bar)
        x0_hat = score.rescaled(guided, plain, self.rescale)
        grad = distillation.reconstruction_gradient(sample.latents, x0_hat, model.weight(sample.t))
        return Distilled(gradient=grad, x0_hat=x0_hat)


RULES: dict[str, type[Rule]] = {
    "sds": SDS,
    "sjc": SJC,
    "csd": CSD,
    "nfsd": NFSD,
    "ism": ISM,
    "sdi": SDI,
    "reconstruction": Reconstruction,
}
"""The rules by the names that recipes use."""


def parse_rule(name: str, options: dict[str, Any]) -> Rule:
    """The rule called `name` with its options.

    Raises:
        UnknownNameError: there is no such rule.
        UnknownKeyError: the rule has no such option.
        ConfigError: an option has a value that has no meaning.
    """
    if name not in RULES:
        raise UnknownNameError("distillation rule", name, get_close_matches(name, RULES, n=3))
    kind = RULES[name]
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise UnknownKeyError(
                f"system.guidance.rule_args.{key}", get_close_matches(key, known, n=3), known
            )
    return kind(**options)


def _noised(model: Predictor, sample: Sample) -> tuple[Tensor, Tensor]:
    alpha_bar = model.alphas_cumprod[sample.t]
    return score.add_noise(sample.latents, sample.noise, alpha_bar), alpha_bar


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"system.guidance.rule_args.{name}", value, "a number from 0 to 1")
