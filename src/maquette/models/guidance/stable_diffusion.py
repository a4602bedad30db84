"""Score distillation from a latent diffusion model: model, weighting and rule put together."""

from dataclasses import dataclass, field
from typing import Any

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.guidance.base import KEY
from maquette.models.guidance.rules import Distilled, Rule, Sample, parse_rule
from maquette.models.guidance.score_distillation import ScoreDistillation


@register("stable-diffusion-guidance")
class StableDiffusionGuidance(ScoreDistillation):
    """Distillation by any rule, with a model of the Stable Diffusion or SDXL family or the embedded prior."""

    @dataclass(kw_only=True)
    class Config(ScoreDistillation.Config):
        """The model and the rule."""

        rule: str = "sds"
        """sds, sjc, csd, nfsd, ism, sdi or reconstruction."""
        rule_args: dict[str, Any] = field(default_factory=dict)
        """Options of the rule; `maquette.models.guidance.rules` lists them."""
        use_sjc: bool = False
        """The ecosystem's way to say `rule: sjc`."""
        var_red: bool = True
        """Whether SJC subtracts the noise that was added."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.use_sjc and self.rule not in ("sds", "sjc"):
                raise ConfigError(f"{KEY}.use_sjc", True, f"false, where the rule is {self.rule}")
            rule = self.parsed_rule()
            if self.guidance_rescale and not rule.rescalable:
                raise ConfigError(
                    f"{KEY}.guidance_rescale",
                    self.guidance_rescale,
                    f"0: the rule {self.rule} has no guided noise to rescale",
                    f"{KEY}.rule_args.rescale is that of rule: reconstruction",
                )

        def parsed_rule(self) -> Rule:
            """The rule with its options."""
            if self.use_sjc or self.rule == "sjc":
                return parse_rule("sjc", {"var_red": self.var_red, **self.rule_args})
            return parse_rule(self.rule, dict(self.rule_args))

    def configure(self, denoiser: Any = None) -> None:
        """Load the model, unless a `denoiser` is given, and choose the rule."""
        super().configure(denoiser)
        self.rule = self.make_rule()

    def make_rule(self) -> Rule:
        """The rule that the config describes."""
        return type(self).Config.parsed_rule(self.cfg)

    def distill(self, sample: Sample) -> Distilled:
        """What the rule finds."""
        return self.rule(self, sample)
