"""What can happen in a cube of a grid: which loops a surface makes on its edges, computed from its topology.

Corner k is at (k & 1, k >> 1 & 1, k >> 2 & 1). Edge `4 axis + j` runs along its axis; j has the two other
coordinates of its lower end as bits, those of axis + 1 first. Face `2 axis + side` lies across its axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

CASES = 256
FACE_STATES = 64
"""Six faces, each with a bit for how it is divided where its corners alternate."""


@dataclass(frozen=True, eq=False)
class CubeTables:
    """Loops by state, `64 case + faces`: bit k of the case: corner k is inside; bit f of the faces: face f is
    divided so that its inside corners are joined (else each is cut off)."""

    loop: Int[Tensor, "S 12"]
    """For each edge, the loop that goes through it, or -1 where the edge is not crossed."""
    n_loops: Int[Tensor, S]
    same: Bool[Tensor, "S 6"]
    """Whether the corners of a face alternate and one loop makes both of its segments."""
    alternating: Int[Tensor, C]
    """For each case, the bits of the faces whose corners alternate."""

    def to(self, device: torch.device) -> CubeTables:
        """The same on another device."""
        return CubeTables(*(t.to(device) for t in (self.loop, self.n_loops, self.same, self.alternating)))


def edge_index(axis: int, bit_next: int, bit_after: int) -> int:
    """The edge along `axis` whose coordinates on the next two axes (in cyclic order) are these."""
    return 4 * axis + bit_next + 2 * bit_after


@lru_cache(maxsize=1)
def edge_corners() -> list[tuple[int, int]]:
    """The lower and the upper corner of each edge."""
    ends = []
    for axis in range(3):
        for j in range(4):
            low = ((j & 1) << (axis + 1) % 3) | ((j >> 1) << (axis + 2) % 3)
            ends.append((low, low | 1 << axis))
    return ends


@lru_cache(maxsize=4)
def cube_tables(device: torch.device) -> CubeTables:
    """The tables, on a device; made once."""
    return _tables() if device.type == "cpu" else cube_tables(torch.device("cpu")).to(device)


def _tables() -> CubeTables:
    loop = torch.full((CASES, FACE_STATES, 12), -1, dtype=torch.int64)
    same = torch.zeros(CASES, FACE_STATES, 6, dtype=torch.bool)
    alternating = [_alternating_faces(case) for case in range(CASES)]
    for case, mask in enumerate(alternating):
        found = {state: _loops(case, state) for state in _submasks(mask)}
        rows = torch.tensor([found[state] for state in sorted(found)])
        index = {state: row for row, state in enumerate(sorted(found))}
        which = torch.tensor([index[state & mask] for state in range(FACE_STATES)])
        loop[case] = rows[which]
        for face in range(6):
            if mask >> face & 1:
                around = loop[case][:, _face_edges(face)]
                same[case, :, face] = (around == around[:, :1]).all(dim=1)
    loop = loop.reshape(-1, 12)
    return CubeTables(loop, loop.amax(dim=1) + 1, same.reshape(-1, 6), torch.tensor(alternating))


def _loops(case: int, faces: int) -> list[int]:
    """Number of the loop through each edge; -1 where both ends are on one side."""
    label = list(range(12))
    for face in range(6):
        for one, other in _segments(case, face, bool(faces >> face & 1)):
            label = [label[one] if value == label[other] else value for value in label]
    crossed = [bool(case >> low & 1) != bool(case >> high & 1) for low, high in edge_corners()]
    names = sorted({label[edge] for edge in range(12) if crossed[edge]})
    return [names.index(label[edge]) if crossed[edge] else -1 for edge in range(12)]


def _segments(case: int, face: int, joined: bool) -> list[tuple[int, int]]:
    """Pairs of edges of a face between which the surface passes through it."""
    edges, inside = _face_edges(face), [bool(case >> corner & 1) for corner in _face_corners(face)]
    crossed = [edges[k] for k in range(4) if inside[k] != inside[(k + 1) % 4]]
    if len(crossed) < 4:
        return [(crossed[0], crossed[1])] if crossed else []
    # edge k lies between corners k and k + 1; the edges k - 1 and k cut off corner k
    cut_off = inside[0] != joined
    first = 0 if cut_off else 1
    return [(edges[first - 1], edges[first]), (edges[first + 1], edges[(first + 2) % 4])]


@lru_cache(maxsize=6)
def _face_corners(face: int) -> list[int]:
    """The corners of a face, in order around it."""
    axis, side = divmod(face, 2)
    u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
    return [(side << axis) + move for move in (0, u, u + v, v)]


@lru_cache(maxsize=6)
def _face_edges(face: int) -> list[int]:
    """The edges of a face; the k-th is between its corners k and k + 1."""
    corners = _face_corners(face)
    pairs = [{corners[k], corners[(k + 1) % 4]} for k in range(4)]
    return [[set(ends) for ends in edge_corners()].index(pair) for pair in pairs]


def _alternating_faces(case: int) -> int:
    mask = 0
    for face in range(6):
        inside = [case >> corner & 1 for corner in _face_corners(face)]
        if inside[0] == inside[2] != inside[1] == inside[3]:
            mask |= 1 << face
    return mask


def _submasks(mask: int) -> list[int]:
    return [state for state in range(FACE_STATES) if state & ~mask == 0]
