#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Draws without a pause, in threads, across the resume of a clone: nothing that leaves them may be
seen in another clone.

What it notes is said in lab/host/src/check/turns.rs: where it counts its turns, and what has left in
each of them. Each thread draws in another way. With --plain, there is one thread, the control: a generator of
the module random.
"""

import collections
import contextlib
import ctypes
import mmap
import os
import random
import struct
import sys
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import sysgenid  # noqa: E402

from hold_up import held_up  # noqa: E402

# How many of the last turns are kept: more than there are between the resume and the change.
KEPT = 1 << 14

# How many turns there are after the change.
AFTER = 64

# How long after READY the clone may take to show a change; seconds.
LIMIT = 60

# The stages of a turn, which are added to four times its number.
BEGUN = 0
LEFT = 2


class Turns:
    """Where all threads count, in a page of their own."""

    def __init__(self):
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        self.words = memoryview(self.page).cast("Q")
        self.words[0] = 0

    def physical_address(self):
        """From /proc/self/pagemap."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            entry = os.pread(pagemap.fileno(), 8, 8 * (address // mmap.PAGESIZE))
        # Bits 0 to 54 are the number of the frame, of a page that is present.
        frame = struct.unpack("=Q", entry)[0] & ((1 << 55) - 1)
        if frame == 0:
            raise OSError("the page of the turns is not in memory")
        return frame * mmap.PAGESIZE


class Thread(threading.Thread):
    """One that draws until some turns after the change."""

    def __init__(self, number, turns, opened, before, draw):
        super().__init__()
        self.number, self.turns, self.opened, self.before, self.draw = (
            number,
            turns.words,
            opened,
            before,
            draw,
        )
        self.drawn = collections.deque(maxlen=KEPT)
        self.turn = 0
        self.new = None
        self.good = False

    def run(self):
        limit = time.monotonic() + LIMIT
        left = AFTER
        while left > 0 and time.monotonic() < limit:
            self.turns[self.number] = 4 * self.turn + BEGUN
            if self.new is None and self.opened.look().id != self.before.id:
                self.new = self.turn
            self.drawn.append(self.draw())
            self.turns[self.number] = 4 * self.turn + LEFT
            if self.opened.look().generation != self.before.generation:
                left -= 1
            self.turn += 1
        self.good = left == 0


def generators(opened, plain):
    """What draws, by name."""
    if plain:
        return {
            "random.Random": lambda generator=random.Random(): generator.getrandbits(64),
        }
    seeded = sysgenid.Cached(opened, lambda fresh: random.Random(fresh.randbytes(32)))
    return {
        "SystemRandom": lambda generator=sysgenid.SystemRandom(opened): generator.getrandbits(64),
        "Random": lambda generator=sysgenid.Random(opened): generator.getrandbits(64),
        "Cached": lambda: seeded.use(lambda generator: generator.getrandbits(64)),
    }


def main():
    """Says READY when all threads take turns."""
    opened = sysgenid.SysGenId()
    plain = "--plain" in sys.argv[1:]
    draws = generators(opened, plain)
    turns = Turns()
    # More often than usual, so that the threads are about equally far.
    sys.setswitchinterval(0.0005)
    before = opened.settle().seen
    print(f"# turns {turns.physical_address():#x} {len(draws)}")
    threads = []
    for number, (name, draw) in enumerate(draws.items()):
        print(f"# place {number} {name}")
        threads.append(Thread(number, turns, opened, before, draw))
    # Only who looks at the ID sees the window; the control needs none.
    with contextlib.nullcontext() if plain else held_up(opened):
        for thread in threads:
            thread.start()
        while any(thread.turn == 0 for thread in threads):
            time.sleep(0.001)
        print("READY", flush=True)
        for thread in threads:
            thread.join()
    print(f"1..{len(threads)}")
    for thread in threads:
        if thread.new is not None:
            print(f"# new {thread.number} {thread.new}")
        first = thread.turn - len(thread.drawn)
        drawn = ",".join(f"{word:016x}" for word in thread.drawn)
        print(f"# draws {thread.number} {first} {drawn}")
        word = "ok" if thread.good else "not ok"
        print(f"{word} {thread.number + 1} thread_{thread.number}")
    return 0 if all(thread.good for thread in threads) else 1


if __name__ == "__main__":
    sys.exit(main())
