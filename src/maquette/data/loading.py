"""How batches are loaded: worker processes, memory, and who gets what."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from maquette.core.device import current_device, is_gpu
from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams, StepRandom, seed_global

T = TypeVar("T")


@dataclass(kw_only=True)
class LoaderConfig:
    """Options of everything that loads training batches; none of them changes a batch."""

    num_workers: int = 0
    """Processes that prepare training batches ahead; 0: the training process itself."""
    prefetch_factor: int | None = None
    """Batches that each of them prepares ahead; null for two."""
    persistent_workers: bool = True
    """Whether they stay when the data has come to its end and begins again."""
    pin_memory: bool = True
    """Whether batches lie in page-locked memory, from where they reach a GPU sooner; of no effect without
    one."""

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ConfigError("data.num_workers", self.num_workers, "an integer >= 0")
        if self.prefetch_factor is not None and self.prefetch_factor < 1:
            raise ConfigError("data.prefetch_factor", self.prefetch_factor, "an integer >= 1, or null")


@dataclass(frozen=True)
class Place:
    """Where a batch stands among all batches of a step, on all ranks."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1
    """Batches that make one optimiser step on each rank."""

    def slots(self, part: int, size: int) -> range:
        """The numbers, among all samples of a step, of those of this rank's batch ``part``."""
        first = (part * self.world + self.rank) * size
        return range(first, first + size)

    def together(self, size: int) -> int:
        """Samples of a step on all ranks."""
        return size * self.world * self.accumulate

    def samples(self, step: int, part: int, size: int) -> range:
        """The numbers of the same samples within the whole run."""
        slots = self.slots(part, size)
        first = step * self.together(size) + slots.start
        return range(first, first + size)


@dataclass(frozen=True)
class BatchSource:
    """What a training batch is made from, besides its number.

    A batch depends on nothing else. So a resumed run, another number of workers or another prefetching does
    not change it, and what follows a schedule in it belongs to the step that uses the batch, not to the one
    during which it was loaded.
    """

    streams: RandomStreams
    """The random draws of the run."""
    first_step: Callable[[], int]
    """Gives the optimiser step of the first batch when an iteration starts."""
    place: Place
    """Rank, number of ranks, batches per step."""

    def turns(self, number: int = 0, stride: int = 1) -> Iterator[tuple[int, int]]:
        """Optimiser step and part of batch ``number`` and of each ``stride``-th after it, endlessly."""
        first = self.first_step()
        for one in itertools.count(number, stride):
            step, part = divmod(one, self.place.accumulate)
            yield first + step, part

    def draws(self, step: int, part: int, size: int) -> StepRandom:
        """The draws of batch ``part`` of a step, a row for each of its ``size`` samples."""
        return self.streams.at(step, self.place.samples(step, part, size))

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked cannot ask the trainer, so it takes the step along.
        return {**self.__dict__, "first_step": _Constant(self.first_step())}


class KeyedStream(IterableDataset[T]):
    """Endless batches; subclasses make each from its step, its part and the source alone."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def batch(self, step: int, part: int = 0) -> T:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[T]:
        worker = get_worker_info()
        number, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step, part in self.source.turns(number, stride):
            if worker is not None:  # what draws from the global generators there draws by number, too
                seed_global(self.source.streams.seed, f"data/{part}", step, self.source.place.rank)
            yield self.batch(step, part)


class NumberedItems(Dataset[int]):
    """The numbers below ``count``; subclasses make batches of them by ``collate``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class EvaluationShare(Sampler[int]):
    """Every ``world``-th number below ``count``, for each rank as many: the last ones may be there twice.

    As many, because ranks that have nothing left to do would leave the others waiting.
    """

    def __init__(self, count: int, rank: int, world: int) -> None:
        self.count, self.rank, self.world = count, rank, world

    def __len__(self) -> int:
        return (self.count + self.world - 1) // self.world

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(cycle(range(self.count)), self.rank, len(self) * self.world, self.world)


def training_loader(
    dataset: Dataset[T],
    cfg: LoaderConfig | Any,
    *,
    seed: int,
    rank: int = 0,
    batch_size: int | None = None,
    **options: Any,
) -> DataLoader[T]:
    """A loader of training batches with the workers that the config asks for.

    Args:
        dataset: makes whole batches, unless ``batch_sampler`` is among the options.
        cfg: has the fields of :class:`LoaderConfig`.
        seed: of the run.
        rank: of this process.
        batch_size: as that of a ``DataLoader``.
        **options: further arguments of the ``DataLoader``.
    """
    if cfg.num_workers > 0:
        options["persistent_workers"] = cfg.persistent_workers
        options["prefetch_factor"] = cfg.prefetch_factor or 2
        options["worker_init_fn"] = partial(seed_worker, seed=seed, rank=rank)
    if "batch_sampler" not in options:
        options["batch_size"] = batch_size
    return DataLoader(
        dataset,
        num_workers=cfg.num_workers,
        pin_memory=cfg.pin_memory and is_gpu(current_device()),
        **options,
    )


def evaluation_loader(dataset: Dataset[T], batch_size: int, place: Place, **options: Any) -> DataLoader[T]:
    """A loader of this rank's share of a dataset, in order."""
    assert isinstance(dataset, Sized)
    sampler = EvaluationShare(len(dataset), place.rank, place.world)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **options)


def seed_worker(number: int, seed: int, rank: int = 0) -> None:
    """Prepare a worker process: the global generators of Python, numpy and torch are its own, by number, and
    it computes on one core.
    """
    seed_global(seed, f"worker/{number}", 0, rank)
    torch.set_num_threads(1)


def cycle(items: Iterable[T]) -> Iterator[T]:
    """The items again and again, asked for anew in every round: unlike `itertools.cycle`, nothing is kept.

    Raises:
        ValueError: there are none, and there never would be.
    """
    while True:
        empty = True
        for one in items:
            empty = False
            yield one
        if empty:
            raise ValueError("nothing to go through again and again")


@dataclass(frozen=True)
class _Constant:
    value: int

    def __call__(self) -> int:
        return self.value
