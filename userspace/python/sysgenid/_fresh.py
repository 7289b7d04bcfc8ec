# SPDX-License-Identifier: MIT OR Apache-2.0

"""Random bytes that no other clone has."""

from __future__ import annotations

import enum
import hashlib
import itertools
import os
import struct
import time
from typing import NamedTuple, Optional


class Seen(NamedTuple):
    """What was seen in one look, in which of several forked processes.

    Two looks that are equal mean that the machine was not cloned between them, and the process not
    forked.
    """

    #: The hypervisor's ID, 16 bytes, where it can be looked at. It identifies this machine.
    id: Optional[bytes]
    #: The generation.
    generation: int
    #: The number of changes since the driver was loaded, which never comes back. 0 from an older
    #: driver, and on machines with 32 bits.
    epoch: int
    #: A number that a forked process has not in common with those that it comes from.
    process: int


class Freshness(enum.Enum):
    """Whether the kernel's random number generator is known to have been reseeded for this
    machine."""

    RESEEDED = "the driver says that it was, with the hypervisor's ID that is there"
    ID_NOT_SEEN = (
        "it was at the last change, and this process cannot see whether the hypervisor has given "
        "another ID since (it may not open /dev/vmgenid)"
    )
    NOT_RESEEDED = (
        "the driver says that it was not: the hypervisor has given no ID, or the kernel could not "
        "be made to reseed"
    )
    NOT_SAID = "the driver is an older one, which does not say"
    TIMED_OUT = (
        "the driver has not answered the hypervisor's ID in time: look at the kernel's log (dmesg)"
    )
    NO_DEVICE = "there is no device, and so nothing that could be known"


class Fresh:
    """What a value is built from after a change: what was seen, and random bytes that no other clone
    has. :meth:`SysGenId.settle` returns it."""

    __slots__ = ("_seen", "_freshness")

    def __init__(self, seen: Seen, freshness: Freshness) -> None:
        self._seen = seen
        self._freshness = freshness

    @property
    def seen(self) -> Seen:
        """What was seen. A value that is built now belongs to it: compare with the next look."""
        return self._seen

    @property
    def freshness(self) -> Freshness:
        """Whether the kernel's random number generator is known to have been reseeded for this
        machine, and if not, why not (its ``value`` is a sentence)."""
        return self._freshness

    @property
    def is_confirmed(self) -> bool:
        """Whether it is. If not, an operator should hear of it."""
        return self._freshness is Freshness.RESEEDED

    def randbytes(self, n: int) -> bytes:
        """Random bytes from the kernel.

        A stream is added to them (XOR) that is derived from other bytes of the kernel, the
        hypervisor's ID and the moment. It is never worse than the kernel's bytes alone; and where
        those are not known to be fresh, it is what tells this clone from others. The processor's own
        random number generator, which the libraries in Rust and C can use, cannot be reached from
        Python.
        """
        both = os.urandom(n + _KEY)
        stream = hashlib.shake_256(self._seed(both[n:], _moment())).digest(n)
        word = int.from_bytes(both[:n], "little") ^ int.from_bytes(stream, "little")
        return word.to_bytes(n, "little")

    def _seed(self, key: bytes, moment: bytes) -> bytes:
        """What the stream that is added begins with."""
        seen = self._seen
        numbers = struct.pack("=IQI", seen.generation, seen.epoch, seen.process)
        return b"sysgenid" + key + (seen.id or bytes(16)) + numbers + moment

    def __repr__(self) -> str:
        return f"<Fresh generation={self._seen.generation} {self._freshness.name}>"


# How many bytes of the kernel the stream is derived from.
_KEY = 32

_calls = itertools.count()


def _moment() -> bytes:
    """What differs from call to call."""
    return struct.pack(
        "=qqQI",
        time.time_ns(),
        time.perf_counter_ns(),
        next(_calls),
        os.getpid(),
    )
