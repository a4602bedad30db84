"""Counted randomness: a draw is a function of (seed, name, step, sample), so nothing has to be carried or
saved.

Each sample has a stream key made by hashing; value j of the stream is the SplitMix64 output function (Steele,
Lea, Flood 2014, "Fast splittable pseudorandom number generators") of key + (j + 1) * golden gamma. Row i of a
draw depends only on the index of sample i, never on the batch it is in, the rank that draws it, or what was
drawn before.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.device import seed_accelerator

Words = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHARED = -1


@dataclass(frozen=True)
class RandomStreams:
    """All the draws of a run."""

    seed: int
    """The run's seed."""

    def at(self, step: int, index: "Int[Tensor, 'B'] | Sequence[int]") -> "StepRandom":
        """The draws of one optimiser step for the samples with these global indices (unique over ranks)."""
        samples = index.tolist() if isinstance(index, Tensor) else index
        return StepRandom(self.seed, int(step), tuple(int(sample) for sample in samples))


@dataclass(frozen=True)
class StepRandom:
    """The draws of a batch at one step; has no state: the same call gives the same numbers.

    Two consumers that use one name see the same numbers, so a name says whose draw it is ("camera/azimuth").
    """

    seed: int
    """The run's seed."""
    step: int
    """The optimiser step."""
    index: tuple[int, ...]
    """Global index of each sample of the batch."""

    @property
    def batch_size(self) -> int:
        """Number of rows of a draw."""
        return len(self.index)

    def rows(self, rows: Sequence[int]) -> "StepRandom":
        """The draws of some rows of the batch only."""
        return StepRandom(self.seed, self.step, tuple(self.index[row] for row in rows))

    def uniform(
        self, name: str, *shape: int, low: float = 0.0, high: float = 1.0
    ) -> Float[Tensor, "B *shape"]:
        """Uniform in [low, high), float32 on the CPU."""
        # 24 bits fit a float32 exactly: a rounded 53-bit draw could reach 1.
        unit = (self._words(name, shape) >> np.uint64(40)).astype(np.float64) * 2.0**-24
        return self._tensor((low + (high - low) * unit).astype(np.float32), shape)

    def normal(self, name: str, *shape: int) -> Float[Tensor, "B *shape"]:
        """Standard normal (Box and Muller 1958), float32 on the CPU."""
        n = math.prod(shape)
        words = self._words(name, (n + n % 2,)).reshape(self.batch_size, -1, 2)
        unit = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log(unit[..., 0]))
        angle = 2.0 * np.pi * unit[..., 1]
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        values = pairs.reshape(self.batch_size, -1)[:, :n]
        return self._tensor(values.astype(np.float32), shape)

    def integers(self, name: str, low: int, high_inclusive: int, *shape: int) -> Int[Tensor, "B *shape"]:
        """Uniform over low, low + 1, ..., high_inclusive; int64 on the CPU."""
        unit = (self._words(name, shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        offset = np.floor(unit * (high_inclusive - low + 1)).astype(np.int64)
        return self._tensor(offset + low, shape)

    def spread(self, name: str, together: int) -> Float[Tensor, "B"]:
        """Stratified draws from [0, 1): `together` samples make a step, on all ranks, and each of as many
        equal parts gets one of them.
        """
        part = torch.tensor(self.index) % together
        drawn = (part + self.uniform(name)) / together
        end = (part + 1) / together
        # The sum may be rounded up to the end of the part.
        return torch.minimum(drawn, end.nextafter(torch.zeros_like(end)))

    def keys(self, name: str) -> list[int]:
        """A number below 2^31 for each sample, for kernels that hash (key, ray) themselves."""
        return [int(key) for key in self.integers(name, 0, 2**31 - 1)]

    def shared(self, name: str) -> float:
        """One number in [0, 1) for the whole step: the same in every batch and on every rank."""
        return float(self._keys(name, (_SHARED,))[0] >> np.uint64(40)) * 2.0**-24

    def _keys(self, name: str, samples: Sequence[int]) -> Words:
        """A stream key for each sample."""
        base = _digest(f"{self.seed}\0{name}\0{self.step}")
        numbers = np.asarray(samples, dtype=np.int64).astype(np.uint64)
        return _mixed(np.uint64(base) ^ _mixed((numbers + np.uint64(1)) * _GAMMA))

    def _words(self, name: str, shape: Sequence[int]) -> Words:
        """Random 64-bit words, a row for each sample."""
        counter = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * _GAMMA
        return _mixed(self._keys(name, self.index)[:, None] + counter[None, :])

    def _tensor(self, values: NDArray[np.generic], shape: Sequence[int]) -> Tensor:
        return torch.from_numpy(values.reshape(self.batch_size, *shape))


def named_generator(seed: int | None, name: str) -> torch.Generator:
    """A generator for the initialisation of what is called `name`; without a seed, of the seed that torch was
    given.
    """
    seed = torch.initial_seed() if seed is None else seed
    return torch.Generator().manual_seed(_digest(f"{seed}\0init\0{name}") >> 1)


def seed_everything(seed: int, rank: int = 0) -> int:
    """Seed the global generators of Python, numpy and torch with seed + rank, which is returned.

    Nothing of ours draws from them; libraries and extensions may.
    """
    seed = (seed + rank) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def seed_global(seed: int, name: str, step: int, rank: int = 0) -> None:
    """Seed the global generators for one step, so that those who do draw from them draw by number too."""
    key = _digest(f"{seed}\0global\0{name}\0{step}\0{rank}") % 2**32
    random.seed(key)
    np.random.seed(key)
    torch.default_generator.manual_seed(key)  # a hundredth of what torch.manual_seed takes
    seed_accelerator(key)


@lru_cache(maxsize=4096)
def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(words: Words) -> Words:
    """The output function of SplitMix64."""
    words = (words ^ (words >> np.uint64(30))) * _MIX[0]
    words = (words ^ (words >> np.uint64(27))) * _MIX[1]
    return words ^ (words >> np.uint64(31))
