#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Draws in each clone as soon as it runs, and is told of the change by asyncio. Prints TAP, and notes
for the host to compare:

    # system HEX, # random HEX, # cached HEX    by this package, in the window after the resume
    # plain HEX                                 random.Random: the same everywhere
    # kernel HEX                                the kernel, asked without the protocol, at that moment
    # forked HEX                                by processes that are forked in the window
"""

import asyncio
import os
import random
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import sysgenid  # noqa: E402

from hold_up import held_up  # noqa: E402
from test_sysgenid import child  # noqa: E402

# How long a machine waits for its resume; seconds.
LIMIT = 60


def note(name, value):
    """For the host."""
    print(f"# {name} {value}")


def spin(opened, before):
    """Until there is another ID."""
    limit = time.monotonic() + LIMIT
    while opened.look().id == before.id:
        if time.monotonic() > limit:
            raise TimeoutError("there is no other ID")


async def be_told(watcher, told):
    """Of all changes, of which there is one."""
    async for generation in watcher.changes():
        told.append(generation)


async def main():
    """Draws before, and after."""
    opened = sysgenid.SysGenId()
    system, heeding = sysgenid.SystemRandom(opened), sysgenid.Random(opened)
    cached = sysgenid.Cached(opened, lambda fresh: fresh.randbytes(16).hex())
    plain = random.Random()
    draws = {
        "system": lambda: system.randbytes(16).hex(),
        "random": lambda: heeding.randbytes(16).hex(),
        "cached": cached.get,
        "plain": lambda: plain.randbytes(16).hex(),
    }
    told = []
    watcher = sysgenid.Watcher()
    watching = asyncio.create_task(be_told(watcher, told))
    for name, draw in draws.items():
        note(name, draw())
    note("kernel", os.urandom(16).hex())
    await asyncio.sleep(0)
    before = opened.look()
    with held_up(opened):
        print("READY", flush=True)
        spin(opened, before)
        kernel = os.urandom(16).hex()
        in_the_window = not opened.is_settled
        # Those are the first that have to wait.
        forked = [child(draws["random"])]
        drawn = {name: draw() for name, draw in draws.items()}
        settled = opened.is_settled
        forked.extend(child(draws[name]) for name in ("system", "cached"))
    note("kernel", kernel)
    for name, value in drawn.items():
        note(name, value)
    for value in forked:
        note("forked", value)

    limit = time.monotonic() + LIMIT
    while watcher.outdated() is not None or not told:
        if time.monotonic() > limit:
            raise TimeoutError("nobody was told")
        await asyncio.sleep(0.01)
    watching.cancel()
    seen = opened.look()
    tests = {
        "drawn_in_the_window": in_the_window,
        "settled_when_it_has_drawn": settled,
        "told_by_asyncio": told == [before.generation + 1] == [seen.generation],
        "confirmed": all(
            it.freshness is sysgenid.Freshness.RESEEDED for it in (system, heeding, opened.settle())
        ),
        "forked_processes_have_drawn": all(len(value) == 32 for value in forked),
    }
    print(f"TAP version 13\n1..{len(tests)}")
    for number, (name, good) in enumerate(tests.items(), 1):
        print(f"{'ok' if good else 'not ok'} {number} {name}")
    return 0 if all(tests.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
