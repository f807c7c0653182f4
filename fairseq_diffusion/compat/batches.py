"""Iterators over batches whose worker processes end with the epoch."""

from __future__ import annotations

import contextlib
import os
import queue
from typing import Any

import torch
from fairseq.data.iterators import BufferedIterator, CountingIterator, EpochBatchIterator
from torch.utils.data import DataLoader


class EpochBatches(EpochBatchIterator):
    """fairseq's iterator over the batches of each epoch, with a new DataLoader and new workers for every epoch.

    Any fairseq: its own iterator keeps the workers for further epochs, and is part of a reference cycle with their
    DataLoader.  When another iterator takes its place, it is left to the garbage collector, which closes the queue to a
    worker before torch's ``__del__`` asks the worker to end.  ``__del__`` then waits 5 s for every worker, and a
    KeyboardInterrupt that arrives meanwhile is lost.  Here only the thread that fills fairseq's buffer refers to the
    workers; it ends them after the last batch.
    """

    def __init__(self, batches: EpochBatchIterator) -> None:
        """As fairseq's task configures `batches`, which itself is not iterated over."""
        self.__dict__.update(vars(batches))

    def sizes(self) -> dict[int, int]:
        """Tokens of each sentence that this rank is given in an epoch, by its number."""
        batches = self.ordered_batches(1, fix_batches_to_gpus=False, shuffle=False)
        return {int(i): int(self.dataset.num_tokens(i)) for batch in batches for i in batch}

    def close(self) -> None:
        """End the workers of the current epoch, even if not all batches were read, as with --max-valid-steps."""
        buffer = self._cur_epoch_itr._itr
        thread = getattr(buffer, "_consumer", None)
        if thread is None:
            return
        thread._max_len = 0  # it ends after the batch that it is about to put into the buffer
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                buffer._queue.get_nowait()
            thread.join(0.01)

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator | None:
        batches = self.ordered_batches(epoch, fix_batches_to_gpus, shuffle)[offset:]
        if offset > 0 and not batches:
            return None
        if self.num_workers > 0:
            os.environ["PYTHONWARNINGS"] = "ignore:semaphore_tracker:UserWarning"  # as fairseq does
        iterator = CountingIterator(self._buffered(self._loader(batches)), start=offset)
        return iterator.take(len(iterator) - 1) if self.skip_remainder_batch else iterator

    def _loader(self, batches: list[list[int]]) -> DataLoader:
        return DataLoader(
            self.dataset,
            collate_fn=self.collate_fn,
            batch_sampler=batches,
            num_workers=self.num_workers,
            timeout=self.timeout,
            pin_memory=torch.cuda.is_available(),  # torch warns where there is nothing to copy to
        )

    def _buffered(self, loader: DataLoader) -> Any:
        """With workers there is always a buffer, even with --data-buffer-size 0, because its thread ends them."""
        size = max(self.buffer_size, int(self.num_workers > 0))
        return BufferedIterator(size, loader) if size else loader
