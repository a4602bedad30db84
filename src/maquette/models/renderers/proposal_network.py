"""A small network of its own that knows where along a ray to look (Barron et al. 2022, Mip-NeRF 360, 3)."""

import difflib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from maquette.core.errors import ConfigError, UnknownNameError
from maquette.kernels.proposal import interlevel_loss
from maquette.models.networks import get_encoding, get_mlp
from maquette.models.networks.config import plain, take
from maquette.ops.activations import get_activation
from maquette.ops.volume import alpha_composite, scale_to_unit

FIELD = "system.renderer.proposal_network_config"
NETWORK: dict[str, Any] = {"n_input_dims": 3, "n_output_dims": 1, "encoding_config": {}, "network_config": {}}
ENCODING = {
    "otype": "HashGrid",
    "n_levels": 5,
    "n_features_per_level": 2,
    "log2_hashmap_size": 17,
    "base_resolution": 16,
    "per_level_scale": 1.6817928305074292,
}
MLP = {"otype": "VanillaMLP", "n_neurons": 16, "n_hidden_layers": 1}
OPTIMIZER = {"name": "Adam", "args": {"lr": 1e-2, "eps": 1e-15}}
LONGEST_REST, REST_AFTER = 5.0, 1000
"""From this step on the network learns in one step, then rests for five (as in nerfacc)."""


@dataclass
class ProposalConfig:
    """What a recipe says of the estimator `proposal`; each part may be left out."""

    network: Mapping[str, Any] | None = None
    """`{n_input_dims, n_output_dims, encoding_config, network_config}`."""
    optimizer: Mapping[str, Any] | None = None
    """`{name, args}`, a class of `torch.optim`."""
    scheduler: Mapping[str, Any] | None = None
    """`{name, args}`, a class of `torch.optim.lr_scheduler`; `SequentialLR` and `ChainedScheduler` take
    `schedulers`, the first also `milestones`."""


class ProposalNetwork(nn.Module):
    """A density that is learned from the weights the renderer finds, with an optimizer of its own.

    No gradient of the loss reaches it, and its gradients reach no other optimizer. The optimizer's state
    travels with the weights, so that a resumed run goes on as if it had not stopped.

    Raises:
        UnknownNameError: the optimizer or a scheduler does not exist.
        ConfigError: one of them does not take its arguments.
    """

    box: Tensor
    free_rows: ClassVar[tuple[str, ...]] = ("_extra_state",)
    """The optimizer's state has another length before the first step than later."""

    def __init__(self, box: Float[Tensor, "2 3"], config: ProposalConfig) -> None:
        super().__init__()
        self.register_buffer("box", box.clone(), persistent=False)
        network = take(plain(config.network or {}), NETWORK, FIELD)
        if (network["n_input_dims"], network["n_output_dims"]) != (3, 1):
            raise ConfigError(FIELD, network, "3 inputs and 1 output")
        self.encoding = get_encoding(3, network["encoding_config"] or ENCODING, f"{FIELD}.encoding_config")
        self.network = get_mlp(
            self.encoding.n_output_dims, 1, network["network_config"] or MLP, f"{FIELD}.network_config"
        )
        self.activation = get_activation("shifted_trunc_exp")
        self.optimizer = _optimizer(plain(config.optimizer or OPTIMIZER), list(self.parameters()))
        scheduler = plain(config.scheduler) if config.scheduler else None
        self.scheduler = _scheduler(scheduler, self.optimizer) if scheduler else None
        self._pending: list[Tensor] | None = None

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """Density at world points; zero outside the box."""
        unit = scale_to_unit(points, self.box)
        inside = ((unit >= 0.0) & (unit <= 1.0)).all(dim=-1, keepdim=True)
        density: Tensor = self.activation(self.network(self.encoding(unit)))
        return density * inside

    def learn(
        self,
        rays_o: Float[Tensor, "R 3"],
        rays_d: Float[Tensor, "R 3"],
        coarse: Float[Tensor, "R M1"],
        edges: Float[Tensor, "R N1"],
        weights: Float[Tensor, "R N"],
    ) -> float:
        """Take in what was seen on some rays; `step` moves the network. The loss, a mean over the rays.

        Args:
            rays_o: origins.
            rays_d: directions.
            coarse: edges of the intervals in which the network proposes.
            edges: edges of the intervals that were looked at.
            weights: what each contributed to its ray.
        """
        loss, grads = rays_o.new_zeros(()), [torch.zeros_like(one) for one in self.parameters()]
        if len(edges):
            loss, grads = self._lesson(rays_o, rays_d, coarse, edges, weights)
        grads, rays = mean_over_ranks(grads, len(edges))
        if rays == 0:
            return 0.0
        before = self._pending or [torch.zeros_like(grad) for grad in grads]
        self._pending = [old + new for old, new in zip(before, grads, strict=True)]
        return float(loss.detach())

    def _lesson(
        self, rays_o: Tensor, rays_d: Tensor, coarse: Tensor, edges: Tensor, weights: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss of some rays, and its gradients."""
        with torch.enable_grad():
            middle = 0.5 * (coarse[:, 1:] + coarse[:, :-1])
            points = rays_o[:, None] + rays_d[:, None] * middle[..., None]
            density = self.density(points.reshape(-1, 3)).reshape(middle.shape)
            proposed = alpha_composite(density, coarse[:, 1:] - coarse[:, :-1])
            loss = interlevel_loss(edges, weights, coarse, proposed).mean()
            return loss, list(torch.autograd.grad(loss, list(self.parameters())))

    def step(self) -> None:
        """Move the network by what it took in since the last step; nothing where that is nothing."""
        if self._pending is None:
            return
        for parameter, grad in zip(self.parameters(), self._pending, strict=True):
            parameter.grad = grad
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._pending = None

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Move to a device or another precision; the optimizer's state, which no module holds, goes along."""
        super()._apply(fn, recurse)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # puts it where the parameters are
        return self

    def get_extra_state(self) -> Tensor:
        """The state of optimizer and scheduler, as bytes."""
        file = io.BytesIO()
        scheduler = self.scheduler.state_dict() if self.scheduler else None
        torch.save({"optimizer": self.optimizer.state_dict(), "scheduler": scheduler}, file)
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from the bytes of `get_extra_state`."""
        content = torch.load(io.BytesIO(state.cpu().numpy().tobytes()), weights_only=True)
        self.optimizer.load_state_dict(content["optimizer"])
        if self.scheduler is not None and content["scheduler"] is not None:
            self.scheduler.load_state_dict(content["scheduler"])


def mean_over_ranks(grads: list[Tensor], rays: int) -> tuple[list[Tensor], int]:
    """Gradients of means over the rays of each process as those of the mean over all rays; their number.

    Every process has to call this at the same time, also one without rays.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return grads, rays
    count = grads[0].new_tensor([float(rays)])
    flat = torch.cat([*(grad.flatten() * count for grad in grads), count])
    dist.all_reduce(flat)
    total = flat[-1].clamp(min=1.0)
    parts = (flat[:-1] / total).split([grad.numel() for grad in grads])
    return [part.reshape(grad.shape) for part, grad in zip(parts, grads, strict=True)], int(flat[-1])


def learns_at(step: int) -> bool:
    """Whether the proposal learns in this step: always at first, once in six steps from step 1000 on."""
    return math.ceil(_lessons(step + 1)) > math.ceil(_lessons(step))


def _lessons(step: int) -> float:
    """How often it has learned before a step: the integral of one over the distance of two lessons."""
    growth = LONGEST_REST / REST_AFTER
    early = math.log1p(growth * min(step, REST_AFTER)) / growth
    return early + max(step - REST_AFTER, 0) / (1.0 + LONGEST_REST)


def _optimizer(config: Mapping[str, Any], parameters: list[nn.Parameter]) -> Optimizer:
    make = _named("optimizer", torch.optim, config.get("name", "Adam"), Optimizer)
    return _made("system.renderer.prop_optimizer_config", make, parameters, config.get("args") or {})


def _scheduler(config: Mapping[str, Any], optimizer: Optimizer) -> Any:
    key = "system.renderer.prop_scheduler_config"
    name = {"Sequential": "SequentialLR"}.get(config.get("name", ""), config.get("name", ""))
    if name not in ("SequentialLR", "ChainedScheduler"):
        make = _named("scheduler", lr_scheduler, name, lr_scheduler.LRScheduler)
        return _made(key, make, optimizer, config.get("args") or {})
    parts = [_scheduler(part, optimizer) for part in config.get("schedulers", ())]
    if name == "ChainedScheduler":
        return _made(key, lr_scheduler.ChainedScheduler, parts, {"optimizer": optimizer})
    options = {"schedulers": parts, "milestones": list(config.get("milestones", ()))}
    return _made(key, lr_scheduler.SequentialLR, optimizer, options)


def _named(kind: str, module: Any, name: str, base: type) -> Any:
    found = getattr(module, name, None) if name else None
    if isinstance(found, type) and issubclass(found, base):
        return found
    known = [
        key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)
    ]
    raise UnknownNameError(kind, name, difflib.get_close_matches(name, known, n=3, cutoff=0.5), sorted(known))


def _made(key: str, make: Any, subject: Any, args: Mapping[str, Any]) -> Any:
    try:
        return make(subject, **args)
    except (TypeError, ValueError, IndexError) as err:
        raise ConfigError(key, dict(args), f"arguments that {make.__name__} accepts ({err})") from err
