"""Faces as the kernels read them, and which faces meet at an edge (Warp, CPU and GPU)."""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import warp as wp
from jaxtyping import Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from maquette.core.errors import UserError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch, launch_rows, prepare

wp.set_module_options(MODULE_OPTIONS)

PRIME_A = wp.constant(wp.uint32(2654435761))
PRIME_B = wp.constant(wp.uint32(805459861))


class Topology:
    """What the indices of faces tell alone."""

    def __init__(self, faces: Int[Tensor, "F 3"]) -> None:
        self.faces = faces.detach().to(torch.int32).contiguous()
        low, high = torch.aminmax(faces) if faces.numel() else (0, -1)
        self.low, self.high = int(low), int(high)
        self.version = _version(faces)

    @cached_property
    def opposite(self) -> Int[Tensor, "H"]:
        """For each half-edge, that of the other face at the same edge; -1: there is none, or more than one.

        Half-edge 3 f + k runs from corner k of face f to the next one.
        """
        return opposite_half_edges(self.faces)


_known: Any = WeakTensorKeyDictionary()


def topology(faces: Int[Tensor, "F 3"], count: int, what: str) -> Topology:
    """The topology of faces; remembered as long as the tensor lives and is not written to.

    Raises:
        UserError: a face names something that is not among the `count` there are.
    """
    known = _known.get(faces)
    if known is None or known.version is None or known.version != _version(faces):
        known = _known[faces] = Topology(faces)
    if known.low < 0 or known.high >= count:
        raise UserError(
            f"Faces refer to {what} {known.low} to {known.high}, but there are {count} (numbered from 0)."
        )
    return known


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None where torch does not count."""
    return None if tensor.is_inference() else tensor._version


def opposite_half_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "H"]:
    """See `Topology.opposite`; `faces` are int32.

    Edges are sorted into buckets, so time grows with the number of faces only, whatever their number around
    a vertex.
    """
    device, count = faces.device, 3 * len(faces)
    opposite = torch.full((count,), -1, dtype=torch.int32, device=device)
    if count == 0:
        return opposite
    buckets = 1 << (2 * len(faces)).bit_length()
    sizes = torch.zeros(buckets, dtype=torch.int32, device=device)
    corners = array(faces, wp.vec3i)
    prepare(_count, device)
    launch(_count, len(faces), [corners, array(sizes)], device)
    ends = torch.cumsum(sizes, dim=0, dtype=torch.int32)
    begins, members = ends.clone(), torch.empty(count, 3, dtype=torch.int32, device=device)
    launch(_enter, len(faces), [corners, array(begins), array(members, wp.vec3i)], device)
    args = [array(begins), array(ends), array(members, wp.vec3i), array(opposite)]
    launch_rows(_match, buckets, args, device, smallest=2**14)
    return opposite


@wp.func
def bucket_of(a: wp.int32, b: wp.int32, buckets: wp.int32) -> wp.int32:
    """A place for the edge of two vertices, the smaller one first; `buckets` is a power of two."""
    mixed = (wp.uint32(a) * PRIME_A ^ wp.uint32(b)) * PRIME_B
    mixed = mixed ^ (mixed >> wp.uint32(15))
    return wp.int32(mixed & wp.uint32(buckets - 1))


@wp.func
def enter(
    a: wp.int32,
    b: wp.int32,
    half_edge: wp.int32,
    begins: wp.array[wp.int32],
    members: wp.array[wp.vec3i],
) -> None:
    """Put a half-edge in front of those that are in its bucket already."""
    low, high = wp.min(a, b), wp.max(a, b)
    place = wp.atomic_sub(begins, bucket_of(low, high, begins.shape[0]), 1) - 1
    members[place] = wp.vec3i(low, high, half_edge)


@wp.kernel
def _count(faces: wp.array[wp.vec3i], sizes: wp.array[wp.int32]) -> None:
    face = faces[wp.tid()]
    a, b, c, buckets = face[0], face[1], face[2], sizes.shape[0]
    wp.atomic_add(sizes, bucket_of(wp.min(a, b), wp.max(a, b), buckets), 1)
    wp.atomic_add(sizes, bucket_of(wp.min(b, c), wp.max(b, c), buckets), 1)
    wp.atomic_add(sizes, bucket_of(wp.min(c, a), wp.max(c, a), buckets), 1)


@wp.kernel
def _enter(faces: wp.array[wp.vec3i], begins: wp.array[wp.int32], members: wp.array[wp.vec3i]) -> None:
    f = wp.tid()
    face = faces[f]
    enter(face[0], face[1], 3 * f, begins, members)
    enter(face[1], face[2], 3 * f + 1, begins, members)
    enter(face[2], face[0], 3 * f + 2, begins, members)


@wp.kernel
def _match(
    first: wp.int32,
    begins: wp.array[wp.int32],
    ends: wp.array[wp.int32],
    members: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
) -> None:
    bucket = first + wp.tid()
    for i in range(begins[bucket], ends[bucket]):
        mine = members[i]
        found, other = wp.int32(0), wp.int32(-1)
        for j in range(begins[bucket], ends[bucket]):
            theirs = members[j]
            if i != j and mine[0] == theirs[0] and mine[1] == theirs[1]:
                found += 1
                other = theirs[2]
        if found == 1 and mine[0] != mine[1]:
            opposite[mine[2]] = other
