"""Iterators over batches: the same batches as fairseq's own, and no worker processes that outlive their epoch."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fairseq.data.iterators import BackgroundConsumer, EpochBatchIterator
from torch.utils.data import Dataset

from fairseq_diffusion.compat.batches import EpochBatches

MIDDLE = {"version": 2, "epoch": 2, "iterations_in_epoch": 3, "shuffle": True}
END = {"version": 2, "epoch": 2, "iterations_in_epoch": 0, "shuffle": True}


class Squares(Dataset):
    def __getitem__(self, i: int) -> int:
        return i * i


class Loaders(Dataset):
    def __getitem__(self, i: int) -> int:
        return os.getpid()


def iterator(workers: int = 1, dataset: Dataset | None = None, **settings: Any) -> EpochBatchIterator:
    """Ten batches of two."""
    batches = [[i, i + 1] for i in range(0, 20, 2)]
    return EpochBatchIterator(Squares() if dataset is None else dataset, list, batches, num_workers=workers, **settings)


def two_epochs(batches: EpochBatchIterator) -> list[list[int]]:
    return [batch for _ in range(2) for batch in batches.next_epoch_itr()]


@pytest.mark.parametrize("state", [None, MIDDLE, END])
@pytest.mark.parametrize("workers, buffer", [(0, 0), (0, 10), (1, 0), (2, 10)])
def test_batches_are_those_of_fairseq(state: dict[str, Any] | None, workers: int, buffer: int):
    ours, theirs = EpochBatches(iterator(workers, buffer_size=buffer)), iterator(0)
    for batches in (ours, theirs) if state else ():
        batches.load_state_dict(state)
    assert two_epochs(ours) == two_epochs(theirs)
    assert ours.state_dict() == theirs.state_dict()


@pytest.mark.parametrize("settings", [{"skip_remainder_batch": True}, {"num_shards": 3, "shard_id": 2}])
def test_shards_and_remainders_are_those_of_fairseq(settings: dict[str, Any]):
    assert two_epochs(EpochBatches(iterator(**settings))) == two_epochs(iterator(0, **settings))


def test_state_behind_the_last_batch_is_refused_as_by_fairseq():
    with pytest.raises(RuntimeError, match="dataloader mismatch"):
        EpochBatches(iterator()).load_state_dict({**MIDDLE, "iterations_in_epoch": 10})


def consumers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if isinstance(thread, BackgroundConsumer)}


@pytest.fixture
def running() -> Callable[[], set[Any]]:
    """Processes and threads that run now and did not when the test began: earlier tests may have left some."""
    earlier = {*multiprocessing.active_children(), *consumers()}
    return lambda: {*multiprocessing.active_children(), *consumers()} - earlier


@pytest.mark.parametrize("buffer", [0, 1, 10])
def test_workers_end_after_the_last_batch(buffer: int, running: Callable[[], set[Any]]):
    """While the iterator is still referred to."""
    batches = EpochBatches(iterator(buffer_size=buffer, dataset=Loaders()))
    loaders = {process for batch in batches.next_epoch_itr() for process in batch}
    for consumer in running() & consumers():  # it ends the workers; to join those here as well would be a race with it
        consumer.join(30)
    assert running() == set()
    assert len(loaders) == 1 and loaders != {os.getpid()}


@pytest.mark.parametrize("workers, buffer", [(0, 0), (0, 1), (1, 0), (2, 2)])
@pytest.mark.parametrize("read", [0, 1, 5, 10])
def test_nothing_runs_once_an_iterator_is_closed(workers: int, buffer: int, read: int, running: Callable[[], set[Any]]):
    batches = EpochBatches(iterator(workers, buffer_size=buffer))
    batches.next_epoch_itr().skip(read)
    batches.close()
    assert running() == set()
