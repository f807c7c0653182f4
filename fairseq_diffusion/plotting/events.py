"""Curves from the event files of ``--tensorboard-logdir``, read without TensorFlow.

A file is a sequence of records: length (8 bytes), its checksum (4), a protobuf `Event`, its checksum (4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

from fairseq_diffusion.errors import UserError
from fairseq_diffusion.plotting.read import Training, training_of

PARTS = {"train_inner": "", "train": "train_", "valid": "valid_"}  # fairseq's folders, and its prefixes in a JSON log


def read_tensorboard(folder: Path) -> Training:
    """The curves in a folder of event files."""
    try:
        from google.protobuf.message import DecodeError  # comes with it
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c
    except ImportError as error:
        raise UserError("reading event files needs tensorboardX: pip install 'fairseq-diffusion[plot]'") from error
    files = [(part, path) for part in PARTS for path in sorted((folder / part).glob("events.out.tfevents.*"))]
    if not files:
        raise UserError(
            f"{folder} holds no event files in {', '.join(PARTS)}; name the folder that fairseq-train was given as "
            "--tensorboard-logdir"
        )
    records: list[dict[str, Any]] = []
    for part, path in files:
        try:
            records += scalars(records_in(path.read_bytes(), masked_crc32c), PARTS[part], Event)
        except (DecodeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); copy it again, or leave it out") from error
    return training_of(folder.name, records, folder)


def scalars(events: Iterable[bytes], prefix: str, event_class: Any) -> Iterator[dict[str, Any]]:
    """Every number in a file, as an entry of a JSON log."""
    for event in map(event_class.FromString, events):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield {f"{prefix}num_updates": event.step, prefix + value.tag: value.simple_value}


def records_in(data: bytes, checksum: Callable[[bytes], int]) -> Iterator[bytes]:
    """The records of a file; the last one may be incomplete while a training writes it.  ValueError where the checksum
    of a length is wrong, behind which all records would be lost."""
    at = 0
    while at + 12 <= len(data):
        length, wanted = struct.unpack_from("<QI", data, at)
        if checksum(data[at : at + 8]) != wanted:
            raise ValueError(f"the checksum at byte {at} is wrong")
        if at + 16 + length > len(data):
            return
        yield data[at + 12 : at + 12 + length]
        at += 16 + length
