# SPDX-License-Identifier: MIT OR Apache-2.0

"""Generators of random numbers with the methods of the module random."""

from __future__ import annotations

import functools
import math
import random
from typing import Any, Callable, Optional, TypeVar

from ._cached import ATTEMPTS
from ._errors import Unsettled
from ._fresh import Fresh, Freshness
from ._process import ForkLock
from ._sysgenid import SysGenId

R = TypeVar("R")

# How many bits a float from 0 to 1 has.
BPF = 53

# What the Mersenne twister has of state, in bytes.
STATE = 624 * 4


class _Heeding:
    """What both have in common: a draw is done again if the machine was cloned meanwhile."""

    _sysgenid: SysGenId
    _fresh: Optional[Fresh]

    @property
    def freshness(self) -> Freshness:
        """What was known of the kernel's random number generator when this was seeded last."""
        fresh = self._fresh
        return Freshness.NO_DEVICE if fresh is None else fresh.freshness

    def _whole(self, draw: Callable[[], R]) -> R:
        raise NotImplementedError


class SystemRandom(_Heeding, random.SystemRandom):
    """Random numbers from the kernel, as :class:`random.SystemRandom`, which no other clone has: it
    looks before each draw, waits in a clone until the kernel has reseeded, and looks again before
    anything is returned.

    A draw may take as long as :meth:`SysGenId.settle`. What takes several draws (``choices``,
    ``sample``, ``shuffle``) is done again as a whole. Each call is a draw for itself, though: whoever
    puts a secret together of several calls looks around all of them (:class:`Guard`).

    Without a ``sysgenid`` it makes one.
    """

    def __init__(
        self, sysgenid: Optional[SysGenId] = None, *, allow_missing: bool = False
    ) -> None:
        self._sysgenid = sysgenid or SysGenId(allow_missing=allow_missing)
        self._fresh = None
        super().__init__()

    def _whole(self, draw: Callable[[], R]) -> R:
        look = self._sysgenid.look
        for _ in range(ATTEMPTS):
            seen = self._settled().seen
            result = draw()
            if look() == seen:
                return result
        raise Unsettled(ATTEMPTS)

    def _settled(self) -> Fresh:
        # No lock: each thread goes on with what it has got here, and compares with that.
        fresh = self._fresh
        if fresh is None or self._sysgenid.look() != fresh.seen:
            fresh = self._fresh = self._sysgenid.settle()
        return fresh

    def randbytes(self, n: int) -> bytes:
        """That many random bytes."""
        look = self._sysgenid.look
        for _ in range(ATTEMPTS):
            fresh = self._settled()
            result = fresh.randbytes(n)
            if look() == fresh.seen:
                return result
        raise Unsettled(ATTEMPTS)

    def getrandbits(self, k: int) -> int:
        """An integer of ``k`` random bits."""
        if k < 0:
            raise ValueError("number of bits must be non-negative")
        size = (k + 7) // 8
        return int.from_bytes(self.randbytes(size), "big") >> (size * 8 - k)

    def random(self) -> float:
        """From 0, and less than 1."""
        return math.ldexp(self.getrandbits(BPF), -BPF)


class Random(_Heeding, random.Random):
    """A generator as :class:`random.Random`, seeded by the kernel, and seeded anew when the machine
    was cloned, the generation was changed, or the process was forked.

    It is for identifiers, delays and samples. As with :class:`random.Random`, who has seen enough of
    what it gives knows what comes next: secrets come from :class:`SystemRandom`.

    It cannot be seeded with a value, and its state can neither be got nor set: what comes twice by
    intention is :class:`random.Random`'s affair.

    Without a ``sysgenid`` it makes one.
    """

    def __init__(
        self, sysgenid: Optional[SysGenId] = None, *, allow_missing: bool = False
    ) -> None:
        self._sysgenid = sysgenid or SysGenId(allow_missing=allow_missing)
        self._lock = ForkLock()
        # The lock of the process in which a thread draws. In one that is forked meanwhile it is not
        # the one that is taken.
        self._drawing: Optional[object] = None
        self._fresh = None
        super().__init__()

    def seed(self, a: object = None, version: int = 2) -> None:
        """Seeds it anew from the kernel; with a value, raises :exc:`NotImplementedError`."""
        if a is not None:
            raise NotImplementedError(
                "a generator that heeds clones cannot be seeded with a value: take random.Random "
                "for numbers that are to come again"
            )
        with self._lock.mine():
            self._reseed()

    def _reseed(self) -> Fresh:
        # What is left of the old state must not be used, whatever happens here.
        self._fresh = None
        fresh = self._sysgenid.settle()
        super().seed(int.from_bytes(fresh.randbytes(STATE), "little"))
        self._fresh = fresh
        return fresh

    def _whole(self, draw: Callable[[], R]) -> R:
        look = self._sysgenid.look
        lock = self._lock.mine()
        with lock:
            if self._drawing is lock:
                # A draw that is part of another one, by this thread, which looks at the end.
                return draw()
            self._drawing = lock
            try:
                for _ in range(ATTEMPTS):
                    fresh = self._fresh
                    if fresh is None or look() != fresh.seen:
                        fresh = self._reseed()
                    result = draw()
                    if look() == fresh.seen:
                        return result
            finally:
                self._drawing = None
        raise Unsettled(ATTEMPTS)

    def random(self) -> float:
        """From 0, and less than 1."""
        return self._whole(super().random)

    def getrandbits(self, k: int) -> int:
        """An integer of ``k`` random bits."""
        draw = super().getrandbits
        return self._whole(lambda: draw(k))

    def randbytes(self, n: int) -> bytes:
        """That many random bytes."""
        return self.getrandbits(n * 8).to_bytes(n, "little")

    def getstate(self) -> tuple[Any, ...]:
        """Raises :exc:`NotImplementedError`."""
        raise NotImplementedError("the state of a generator that heeds clones must not come twice")

    def setstate(self, state: tuple[Any, ...]) -> None:
        """Raises :exc:`NotImplementedError`."""
        raise NotImplementedError("the state of a generator that heeds clones must not come twice")


def _gauss(self: random.Random, mu: float = 0.0, sigma: float = 1.0) -> float:
    """As :meth:`random.Random.gauss`, but the second number that each computation gives is not kept
    for the next call, which may come in a clone."""
    radius = math.sqrt(-2.0 * math.log(1.0 - self.random()))
    return mu + math.cos(self.random() * math.tau) * radius * sigma


def _heeding(name: str, inherited: Callable[..., Any]) -> None:
    """Has a method that draws several times do all of it again if the machine was cloned
    meanwhile."""

    @functools.wraps(inherited)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._whole(lambda: inherited(self, *args, **kwargs))

    for heeding in (SystemRandom, Random):
        setattr(heeding, name, method)


_heeding("gauss", _gauss)


# The others draw once, or until a draw fits: what they return is of one that was looked after.
for _name in (
    "betavariate",
    "binomialvariate",
    "choices",
    "gammavariate",
    "lognormvariate",
    "normalvariate",
    "sample",
    "shuffle",
    "vonmisesvariate",
):
    # Not each version of Python has all of them.
    if hasattr(random.Random, _name):
        _heeding(_name, getattr(random.Random, _name))
