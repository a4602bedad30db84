"""Looking at, and changing, the attention maps of a UNet.

    with AttentionCapture(unet, kind="cross") as seen:
        unet(x, t, text)
    seen.average(size=16)                       # what each token looked at, over all modules and heads

    with AttentionControl(unet, lambda maps: maps.probabilities * weights):
        unet(x, t, text)

Both are context managers: the processors that were there come back on exit, also after an exception, and
inside one another they act in the order in which they were entered. Maps are computed explicitly wherever
somebody looks, so that no fused implementation can hide them; modules that nobody asks for keep their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from types import TracebackType
from typing import Any, Literal, Self

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import UserError
from maquette.diffusion.attention_processors import attend, probabilities

Kind = Literal["cross", "self"]


@dataclass(frozen=True)
class AttentionSite:
    """One attention module of a UNet."""

    name: str
    """Where it is: "down_blocks.1.attentions.0.transformer_blocks.0.attn2"."""
    kind: Kind
    """"cross" looks at the text, "self" at the picture."""
    heads: int
    """Number of heads."""


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of one module in one call of the UNet."""

    site: AttentionSite
    probabilities: Float[Tensor, "B heads Q K"]
    """Rows sum to one; Q are places of the picture (row by row from the top), K tokens or places."""
    call: int
    """How often this module was called before, since the control was entered."""
    arguments: Any = None
    """What came as `cross_attention_kwargs={"attention": ...}`."""

    @property
    def side(self) -> int:
        """Height and width of the picture at this module, where it is square."""
        return round(self.probabilities.shape[2] ** 0.5)


Edit = Callable[[AttentionMaps], Float[Tensor, "B heads Q K"]]
"""Gives the probabilities to use in place of those it is shown."""


def attention_sites(unet: nn.Module) -> dict[AttentionSite, Attention]:
    """Every attention module of a UNet, in the order of its forward pass."""
    found = [(name, one) for name, one in unet.named_modules() if isinstance(one, Attention)]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    found.sort(key=lambda pair: order.get(pair[0].partition(".")[0], 3))
    return {
        AttentionSite(name, "cross" if one.is_cross_attention else "self", one.heads): one
        for name, one in found
    }


class AttentionControl(AbstractContextManager["AttentionControl"]):
    """While it is entered, `edit` decides about the attention maps of some modules.

    Args:
        unet: any diffusers UNet whose attention modules are `Attention`.
        edit: called with the maps of each module and call; gives those to go on with.
        kind: only modules of this kind.
        where: only modules whose name matches this pattern, such as "up_blocks.*".

    Raises:
        UserError: nothing matches, or a module of the selection mixes text and picture in one softmax.
    """

    def __init__(
        self, unet: nn.Module, edit: Edit, *, kind: Kind | None = None, where: str | None = None
    ) -> None:
        self.edit = edit
        self._modules = {
            site: module
            for site, module in attention_sites(unet).items()
            if kind in (None, site.kind) and (where is None or fnmatch(site.name, where))
        }
        if not self._modules:
            names = [site.name for site in attention_sites(unet)]
            raise UserError(
                f"No attention module matches kind={kind!r}, where={where!r}.",
                names[:6] or ["there are none"],
            )
        for site, module in self._modules.items():
            _check_supported(site, module)
        self._before: list[tuple[Attention, Any]] = []

    @property
    def sites(self) -> list[AttentionSite]:
        """The modules that are controlled."""
        return list(self._modules)

    def __enter__(self) -> Self:
        if self._before:
            raise RuntimeError("this attention control is entered already")
        self._before = [(module, module.processor) for module in self._modules.values()]
        for site, module in self._modules.items():
            inherited = module.processor.edits if isinstance(module.processor, ExplicitAttention) else ()
            module.processor = ExplicitAttention(site, (*inherited, _Counted(self.edit)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for module, processor in reversed(self._before):
            module.processor = processor
        self._before = []


class AttentionCapture(AttentionControl):
    """Keeps the maps of the modules it watches, and changes none.

    Args:
        unet: as for `AttentionControl`.
        kind: only modules of this kind.
        where: only modules whose name matches this pattern.
        tokens: only these columns.
        mean_heads: keep the mean over the heads.
        rows: keep only these rows of the batch, for example the conditional half.
        device: where they are kept; None leaves them where they are.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        kind: Kind | None = "cross",
        where: str | None = None,
        tokens: list[int] | None = None,
        mean_heads: bool = False,
        rows: slice | None = None,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(unet, self._keep, kind=kind, where=where)
        self._tokens, self._mean_heads, self._rows, self._device = tokens, mean_heads, rows, device
        self.maps: dict[str, list[Float[Tensor, "B heads Q K"]]] = {site.name: [] for site in self.sites}

    def average(self, size: int | None = None, last: int | None = None) -> Float[Tensor, "B K S S"]:
        """The mean map of each column over calls, modules and heads, brought to `size` x `size`.

        Args:
            size: side of the result; the largest that occurs by default.
            last: only the last so many calls of each module.

        Raises:
            UserError: nothing was captured.
        """
        calls = [one for kept in self.maps.values() for one in (kept if last is None else kept[-last:])]
        if not calls:
            raise UserError("No attention map was captured: the UNet was not called.")
        size = size or max(round(one.shape[2] ** 0.5) for one in calls)
        return torch.stack([_resized(one, size) for one in calls]).mean(0)

    def clear(self) -> None:
        """Forget what was captured."""
        for kept in self.maps.values():
            kept.clear()

    def _keep(self, maps: AttentionMaps) -> Tensor:
        kept = maps.probabilities.detach()
        kept = kept if self._rows is None else kept[self._rows]
        kept = kept if self._tokens is None else kept[..., self._tokens]
        kept = kept.mean(dim=1, keepdim=True) if self._mean_heads else kept
        self.maps[maps.site.name].append(kept.to(self._device) if self._device is not None else kept)
        return maps.probabilities


@dataclass
class _Counted:
    """An edit that knows how often its module was called."""

    edit: Edit
    calls: int = field(default=0)

    def __call__(self, maps: AttentionMaps) -> Tensor:
        self.calls += 1
        return self.edit(replace(maps, call=self.calls - 1))


class ExplicitAttention:
    """Computes attention with the probabilities written out, and shows them to each edit in turn."""

    def __init__(self, site: AttentionSite, edits: tuple[_Counted, ...]) -> None:
        self.site = site
        self.edits = edits

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        attention: Any = None,
    ) -> Tensor:
        """The answer of the module, as diffusers asks for it."""

        def mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            maps = probabilities(attn, query, key, mask)
            for edit in self.edits:
                maps = edit(AttentionMaps(self.site, maps, 0, attention)).to(value.dtype)
            return maps @ value

        return attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb, mix)


def _check_supported(site: AttentionSite, module: Attention) -> None:
    if module.added_kv_proj_dim is not None:
        raise UserError(
            f"The attention of {site.name} mixes text and picture in one softmax and cannot be controlled.",
            hint="leave it out with kind= or where=",
        )


def _resized(maps: Float[Tensor, "B heads Q K"], size: int) -> Float[Tensor, "B K S S"]:
    side = round(maps.shape[2] ** 0.5)
    pictures = maps.mean(1).transpose(1, 2).unflatten(-1, (side, side))
    if side == size:
        return pictures
    return nn.functional.interpolate(pictures.float(), (size, size), mode="bilinear", align_corners=False)
