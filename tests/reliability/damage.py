"""Damage to files, as hypothesis draws it, and what a reader of a damaged file may do: work, or end with a sentence."""

from __future__ import annotations

import copy
import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from fairseq_diffusion.errors import sentence_of

SECONDS, MORE_MEMORY = 60, 2 << 30  # that a reader may take, of a file of a few kilobytes
LONGEST = 100_000
ODD_BYTES = [
    *(b"\0", b"\n", b"\r\n", b"\t", b" ", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"-", b"{", b"}", b'"'),
    *(text.encode() for text in ("\u2028", "\u0085", "\u200b", "\u00e9", "e\u0301", "\U0001f600", "\u0663", "\u202e")),
    *(b"nan", b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"a" * LONGEST, b"[" * LONGEST, b"___", b"@@", b"<pad>"),
]
ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 7, 1.5, 10**30, 1e308, float("nan"), float("inf"), "", "x", "nan", "9" * 5000, "\ud800", "\0"),
    *([], [[]], {}, {"": None}, [None], ["x"], "a" * LONGEST, "<script>", "../..", "${x}", "???"),
]


def part_of_the_examples(share: int) -> settings:
    """One in `share` of the usual number, for what takes long."""
    return settings(max_examples=max(4, settings.default.max_examples // share))


ODD = st.sampled_from(ODD_VALUES).map(copy.deepcopy)


class TooLong(BaseException):
    """A reader that hangs."""


def works_or_says(read: Callable[[], Any], *names: str) -> Any:
    """What `read` returns, or None where it ends with a sentence that has one of the `names`."""
    try:
        with limited():
            return read()
    except (Exception, SystemExit) as error:
        sentence = sentence_of(type(error), error)
        if sentence is None:
            raise
        assert any(name in sentence for name in names), f"none of {names} is in: {sentence}"
    return None


@contextmanager
def limited() -> Iterator[None]:
    """Limits on time and memory."""

    def ring(*_: Any) -> None:
        raise TooLong

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# -- bytes and lines


def flip(draw: DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, max(0, len(data) - 1)))
    return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :] if data else data


def span(draw: DrawFn, data: Any) -> tuple[int, int]:
    """A part of `data`, mostly a short one."""
    begin = draw(st.integers(0, len(data)))
    return begin, min(len(data), begin + draw(st.sampled_from([1, 2, 3, 8, 40, len(data)])))


def drop(draw: DrawFn, data: Any) -> Any:
    begin, end = span(draw, data)
    return data[:begin] + data[end:]


def repeat(draw: DrawFn, data: Any) -> Any:
    begin, end = span(draw, data)
    return data[:end] + data[begin:]


def cut(draw: DrawFn, data: bytes) -> bytes:
    return data[: draw(st.integers(0, len(data)))]


def insert(draw: DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.sampled_from(ODD_BYTES) | st.binary(max_size=20)) + data[at:]


def of_lines(harm: Callable[[DrawFn, Any], Any]) -> Callable[[DrawFn, bytes], bytes]:
    return lambda draw, data: b"".join(harm(draw, data.splitlines(keepends=True)))


def swap(draw: DrawFn, lines: list[bytes]) -> list[bytes]:
    return draw(st.permutations(lines)) if len(lines) < 100 else lines[::-1]


def respelt(draw: DrawFn, data: bytes) -> bytes:
    """Other line ends, another encoding."""
    text = data.decode(errors="replace")
    forms = [text.replace("\n", "\r\n").encode(), text.replace("\n", "\r").encode(), b"\xef\xbb\xbf" + data]
    return draw(st.sampled_from([*forms, text.encode("utf-16"), text.encode("latin-1", "replace"), b""]))


HARM = [flip, flip, drop, repeat, cut, insert, insert, of_lines(drop), of_lines(repeat), of_lines(swap), respelt]


@st.composite
def damaged(draw: DrawFn, good: bytes) -> bytes:
    """`good` with one damage or a few, or other bytes altogether."""
    for harm in draw(st.lists(st.sampled_from(HARM), min_size=1, max_size=3)):
        good = harm(draw, good)
    return good if draw(st.integers(0, 30)) else draw(st.binary(max_size=300))


# -- values


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each entry of nested lists and dictionaries, as its container and its key."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@st.composite
def other_values(draw: DrawFn, good: Any) -> Any:
    """A copy in which an entry or a few have other values or are missing, or with further entries."""
    found = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        if not (there := list(places(found))):
            break
        container, key = draw(st.sampled_from(there))
        how = draw(st.sampled_from(["other", "other", "other", "gone", "added"]))
        if how == "other":
            container[key] = draw(ODD)
        elif how == "gone":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.sampled_from(["", "x", "_name", f"{key}{key}"]))] = draw(ODD)
        else:
            container.append(draw(ODD))
    return found


def other_json(good: Any) -> SearchStrategy[bytes]:
    whole = other_values(good) | ODD
    return whole.map(lambda value: json.dumps(value).encode())
