# SPDX-License-Identifier: MIT OR Apache-2.0

"""The two nodes, and the pages that they map.

What the pages are is said by ``struct sysgenid_page`` and ``struct vmgenid_answer_page`` in
``uapi/linux/sysgenid.h``.

About loads. The language has no atomic loads and no fences, so this is what is relied upon:

* A value of four or eight bytes is one item of a ``memoryview`` that was cast to that format, at an
  aligned place. CPython copies an item by a ``memcpy()`` of that fixed size into a local variable,
  which its compilers make one load of.
* Nothing would go wrong if it were several. All that is done with what was loaded is to compare it
  with a value that was there once, for equality. If it is equal, then each byte in which the old
  and the new value differ was loaded before the change. So the look as a whole is one before the
  change, as if it had been one load at that moment; and a mixture is equal to neither.
* The compiler cannot move loads: each is made by a call into the interpreter, through pointers.
* The processor can, where it is not an x86, whose loads are done in their order. There, ``fence()``
  comes between. (A snapshot stops whole processors: what was done in order by one is saved so.)
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import sys
import threading
import weakref
from typing import Callable, NamedTuple, Optional

from . import _errors

# Where the driver's node is.
NODE = "/dev/sysgenid"
# Where the node with the hypervisor's own page is.
ID_NODE = "/dev/vmgenid"

# SYSGENID_SET_WATCHER_TRACKING, SYSGENID_SETTLE, VMGENID_GET_OFFSET
SET_WATCHER_TRACKING = 0xE401
SETTLE = 0xE404
GET_OFFSET = 0xE410

# SYSGENID_FLAG_FIELDS, SYSGENID_FLAG_RESEEDED
FLAG_FIELDS = 1
FLAG_RESEEDED = 2

ID_SIZE = 16
# A machine with 32 bits would load the epoch in two halves, and compares the generation only.
HAS_EPOCH = sys.maxsize > 1 << 32

NEEDS_FENCE = os.uname().machine not in ("x86_64", "i386", "i486", "i586", "i686")


def fence() -> None:
    """What was loaded before is loaded before what is loaded after.

    To take a lock is an acquire, and to give it back a release. A load before this cannot sink below
    the first release; the second acquire loads what that has stored, and no load that comes after it
    can rise above it. The lock is one of this call, so that no other thread can hold it, nor a fork.
    """
    lock = threading.Lock()
    with lock:
        pass
    with lock:
        pass


def ioctl(fd: int, request: int, argument: int) -> int:
    """An ioctl whose argument is a number."""
    return fcntl.ioctl(fd, request, argument)


def open_node(node: str, access: int, probe: int) -> int:
    """Opens a node. `probe` is a call that only its driver knows, and that changes nothing."""
    try:
        fd = os.open(node, access | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        # A node without its driver is one that is not there.
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR):
            raise _errors.no_device(node) from None
        raise _errors.io_error("open", node, error) from None
    try:
        ioctl(fd, probe, 0)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            what = "does not know the driver's ioctls"
            raise _errors.not_the_device(node, what) from None
        raise _errors.io_error("look at", node, error) from None
    return fd


def map_page(fd: int, offset: int) -> mmap.mmap:
    """Maps one page of a node."""
    size, flags, prot = mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, flags=flags, prot=prot, offset=offset, trackfd=False)
    # This keeps a descriptor of its own, for as long as the mapping is there.
    return mmap.mmap(fd, size, flags=flags, prot=prot, offset=offset)


def settle_by_ioctl(node: str, limit: float) -> Optional[bool]:
    """Has the driver see now to what is due, for so many seconds at most.

    Returns whether nothing is due any more; None if it cannot be asked.
    """
    try:
        fd = open_node(node, os.O_RDONLY, SET_WATCHER_TRACKING)
    except OSError:
        return None
    try:
        # 0 would be no limit.
        ioctl(fd, SETTLE, min(max(int(limit * 1000), 1), 0x7FFFFFFF))
    except OSError as error:
        # An older driver does not know it. A signal was handled: look, and sleep.
        return False if error.errno == errno.ETIME else None
    finally:
        os.close(fd)
    return True


class GenerationPage:
    """``struct sysgenid_page``: what is in it at this moment."""

    def __init__(self, page: mmap.mmap) -> None:
        self._words = memoryview(page).cast("I")
        self._double_words = memoryview(page).cast("Q")

    def generation(self) -> int:
        """The generation."""
        return self._words[0]

    def epoch(self) -> int:
        """The epoch; 0 from a driver, or on a machine, that has none."""
        return self._double_words[1] if HAS_EPOCH else 0

    def reseeded(self) -> Optional[bool]:
        """What the flags say: those of what was loaded before, or later ones.

        None from an older driver, which does not say.
        """
        # The driver stores the flags first.
        if NEEDS_FENCE:
            fence()
        flags = self._words[1]
        return bool(flags & FLAG_RESEEDED) if flags & FLAG_FIELDS else None


class Answer(NamedTuple):
    """What the driver has answered the hypervisor, all of it at one moment."""

    id: bytes
    generation: int
    epoch: int
    reseeded: bool


class AnswerPage:
    """``struct vmgenid_answer_page``"""

    def __init__(self, page: mmap.mmap) -> None:
        self._words = memoryview(page).cast("I")
        self._double_words = memoryview(page).cast("Q")

    def load(self) -> Optional[Answer]:
        """What is answered; None while the driver writes it."""
        before = self._words[0]
        if NEEDS_FENCE:
            fence()
        answer = self._load()
        # What was loaded is not of a later answer, if the sequence is the same still.
        if NEEDS_FENCE:
            fence()
        return answer if before % 2 == 0 and self._words[0] == before else None

    def _load(self) -> Answer:
        return Answer(
            struct.pack("=QQ", self._double_words[2], self._double_words[3]),
            self._words[2],
            self._double_words[4] if HAS_EPOCH else 0,
            bool(self._words[1] & FLAG_RESEEDED),
        )


def mapped_id(page: mmap.mmap, offset: int) -> Callable[[], Optional[bytes]]:
    """Loads the ID that is at `offset`, in two words.

    The hypervisor writes it while the machine stands still, so that they belong together: unless the
    machine is stopped between the loads, and then they are no ID that was ever remembered.
    """
    words = memoryview(page).cast("Q")
    first = offset // 8

    def load() -> Optional[bytes]:
        return struct.pack("=QQ", words[first], words[first + 1])

    return load


def read_id(fd: int) -> Callable[[], Optional[bytes]]:
    """Reads the ID from the node, which is kept open because its page cannot be mapped."""

    def number() -> tuple[int, int]:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    file = number()

    def load() -> Optional[bytes]:
        try:
            # A daemon closes descriptors that it did not open, and the number is another file's
            # then.
            if number() != file:
                return None
            data = os.pread(fd, ID_SIZE, 0)
        except OSError:
            return None
        return data if len(data) == ID_SIZE else None

    def close() -> None:
        try:
            if number() == file:
                os.close(fd)
        except OSError:
            pass

    weakref.finalize(load, close)
    return load


class Id(NamedTuple):
    """The hypervisor's ID, and the driver's answer to it."""

    load: Callable[[], Optional[bytes]]
    answer: AnswerPage
    is_mapped: bool


def open_generation(node: str) -> GenerationPage:
    """Maps the generation page."""
    fd = open_node(node, os.O_RDONLY, SET_WATCHER_TRACKING)
    try:
        return GenerationPage(map_page(fd, 0))
    except OSError as error:
        raise _errors.io_error("map", node, error) from None
    finally:
        os.close(fd)


def open_id(node: str) -> Id:
    """Maps what can be mapped of the hypervisor's node."""
    fd = open_node(node, os.O_RDONLY, GET_OFFSET)
    kept = False
    try:
        answer = AnswerPage(map_page(fd, mmap.PAGESIZE))
        offset = ioctl(fd, GET_OFFSET, 0)
        if offset % 8 != 0 or not 0 <= offset <= mmap.PAGESIZE - ID_SIZE:
            raise _errors.not_the_device(node, f"has the ID at {offset}, where none can be")
        try:
            return Id(mapped_id(map_page(fd, 0), offset), answer, True)
        except OSError as error:
            # The driver shows the ID, and not what else there is in its page.
            if error.errno != errno.ENODEV:
                raise
        load = read_id(fd)
        kept = True
        return Id(load, answer, False)
    except _errors.DeviceError:
        raise
    except OSError as error:
        raise _errors.io_error("map", node, error) from None
    finally:
        if not kept:
            os.close(fd)
