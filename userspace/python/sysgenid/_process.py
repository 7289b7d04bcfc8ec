# SPDX-License-Identifier: MIT OR Apache-2.0

"""Which process this is, in a line of forked ones; and locks that a fork does not hold for ever."""

from __future__ import annotations

import mmap
import os
import threading
from typing import ContextManager

# Not all versions of the module mmap have it. It is 18 on each architecture of Linux.
MADV_WIPEONFORK = 18


def _fork_page() -> memoryview:
    """A page that a forked process finds empty, also one that C code has forked."""
    page = mmap.mmap(
        -1,
        mmap.PAGESIZE,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
    )
    try:
        page.madvise(MADV_WIPEONFORK)
    except OSError:
        # A kernel before 4.14: then _forked() below is all there is.
        pass
    return memoryview(page).cast("I")


_page = _fork_page()
_last = 0


def process_number() -> int:
    """A number that a forked process has not in common with those that it comes from."""
    return _page[0] or _renumber()


def _renumber() -> int:
    # Two threads that do this at the same time may give the process two numbers, one after the
    # other, which costs one more build of what depends on it. Both are new.
    global _last
    _last = _last % 0xFFFFFFFF + 1
    _page[0] = _last
    return _last


def _forked() -> None:
    _page[0] = 0


os.register_at_fork(after_in_child=_forked)


class ForkLock:
    """A lock for each process: that of the parent may be held by a thread that the child has not.

    A thread may take it again while it has it.
    """

    def __init__(self) -> None:
        self._locks: dict[int, ContextManager[object]] = {}

    def mine(self) -> ContextManager[object]:
        """That of this process."""
        number = process_number()
        lock = self._locks.get(number)
        if lock is None:
            # The first of several threads that come at once decides.
            lock = self._locks.setdefault(number, threading.RLock())
        return lock
