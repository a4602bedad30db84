"""How an attention module of diffusers computes: everything but the mixing of values, and two ways to mix."""

from __future__ import annotations

from collections.abc import Callable

from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, cat
from torch.nn import functional as F

Mix = Callable[
    [Float[Tensor, "B heads Q D"], Float[Tensor, "B heads K D"], Float[Tensor, "B heads K D"], Tensor | None],
    Float[Tensor, "B heads Q D"],
]
"""What each query takes of the values: from query, key, value and the module's mask, as it was given."""


def attend(
    attn: Attention,
    hidden_states: Tensor,
    context: Tensor | None,
    mask: Tensor | None,
    temb: Tensor | None,
    mix: Mix,
) -> Tensor:
    """The answer of a module whose values are mixed by `mix`, with plain and with fused projections."""
    x = hidden_states if attn.spatial_norm is None else attn.spatial_norm(hidden_states, temb)
    flat = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
    if attn.group_norm is not None:
        flat = attn.group_norm(flat.transpose(1, 2)).transpose(1, 2)
    query, key, value = _projections(attn, flat, context)
    out = mix(query, key, value, mask).transpose(1, 2).flatten(2)
    out = attn.to_out[1](attn.to_out[0](out))
    if x.ndim == 4:
        out = out.transpose(1, 2).reshape(hidden_states.shape)
    if attn.residual_connection:
        out = out + hidden_states
    return out / attn.rescale_output_factor


def probabilities(
    attn: Attention, query: Tensor, key: Tensor, mask: Tensor | None
) -> Float[Tensor, "B heads Q K"]:
    """The attention maps, written out; rows sum to one."""
    batch, heads = query.shape[:2]
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, key.shape[2], batch)
    scores = attn.get_attention_scores(query.flatten(0, 1), key.flatten(0, 1), mask)
    return scores.unflatten(0, (batch, heads))


class SlicedAttention:
    """Fused attention, of a few maps at a time: where no fused kernel fits, that many are written out.

    Args:
        slice_size: maps at a time, each of one head and one sample; "auto" for half of a module's heads,
            "max" for one map.
    """

    def __init__(self, slice_size: int | str = "auto") -> None:
        self.slice_size = slice_size

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """The answer of the module, as diffusers asks for it."""

        def mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            if mask is not None:
                mask = attn.prepare_attention_mask(mask, key.shape[2], len(query))
                mask = mask.unflatten(0, (len(query), attn.heads))
            return self._mix(query, key, value, mask)

        return attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb, mix)

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        count = self._maps(query.shape[1])
        samples, heads = max(1, count // query.shape[1]), min(count, query.shape[1])
        rows = []
        for first in range(0, len(query), samples):
            parts = []
            for head in range(0, query.shape[1], heads):
                here = slice(first, first + samples), slice(head, head + heads)
                some = None if mask is None else mask[here]
                parts.append(F.scaled_dot_product_attention(query[here], key[here], value[here], some))
            rows.append(cat(parts, dim=1))
        return cat(rows)

    def _maps(self, heads: int) -> int:
        if isinstance(self.slice_size, int):
            return self.slice_size
        return max(1, heads // 2) if self.slice_size == "auto" else 1


def _projections(attn: Attention, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (B, heads, N, width) of plain and of fused projections."""
    fused = getattr(attn, "fused_projections", False)
    if context is None:
        query, key, value = attn.to_qkv(x).chunk(3, -1) if fused else _separate(attn, x, x)
    else:
        context = attn.norm_encoder_hidden_states(context) if attn.norm_cross else context
        if fused:
            query, (key, value) = attn.to_q(x), attn.to_kv(context).chunk(2, -1)
        else:
            query, key, value = _separate(attn, x, context)
    query, key, value = (one.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for one in (query, key, value))
    query = query if attn.norm_q is None else attn.norm_q(query)
    return query, (key if attn.norm_k is None else attn.norm_k(key)), value


def _separate(attn: Attention, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attn.to_q(x), attn.to_k(context), attn.to_v(context)
