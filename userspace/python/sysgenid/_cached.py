# SPDX-License-Identifier: MIT OR Apache-2.0

"""Values that are built anew when the machine was cloned."""

from __future__ import annotations

from typing import Callable, Generic, Optional, TypeVar

from ._errors import Unsettled
from ._fresh import Fresh, Seen
from ._process import ForkLock
from ._sysgenid import SysGenId

# How often work is done again because the generation has changed meanwhile.
ATTEMPTS = 16

T = TypeVar("T")
R = TypeVar("R")


class Cached(Generic[T]):
    """A value that must not be shared with a clone of this machine: the state of a random number
    generator, a UUID node, a token. It is built when it is used first, and built anew when the
    machine was cloned, the generation was changed, or the process was forked.

    ``build`` draws what it needs from the :class:`Fresh` that it is given, or from
    :func:`os.urandom`, which is fresh by then; not from a generator that was seeded earlier. What it
    raises is raised by the use, and the next use tries again.

    Threads take turns. A use within a use, by the same thread, is allowed.
    """

    def __init__(self, sysgenid: SysGenId, build: Callable[[Fresh], T]) -> None:
        self._sysgenid = sysgenid
        self._build = build
        self._lock = ForkLock()
        # The value, and what was seen when it was built.
        self._built: Optional[tuple[T, Seen]] = None

    def use(self, function: Callable[[T], R]) -> R:
        """Uses the value, and returns what ``function`` makes of it.

        It looks before the use and after it. If the machine was cloned before or while the function
        ran, then the value and what it returned are thrown away, the value is built anew, and the
        function runs again. So it should have no effect besides what it returns: what it sends,
        writes or prints may be sent by a clone as well.

        A function that raises costs the value: it is built anew at the next use.

        Raises :exc:`Unsettled` if the generation changes all the time.
        """
        look = self._sysgenid.look
        for _ in range(ATTEMPTS):
            with self._lock.mine():
                built = self._built
                if built is None or built[1] != look():
                    # The old value goes first: nothing may come of it any more.
                    built = self._built = None
                    fresh = self._sysgenid.settle()
                    # Whether the machine was cloned while it was built shows at the next look.
                    built = self._built = (self._build(fresh), fresh.seen)
                value, seen = built
                try:
                    result = function(value)
                except BaseException:
                    # It may have left the value inconsistent.
                    self._built = None
                    raise
                if look() == seen:
                    return result
        raise Unsettled(ATTEMPTS)

    def get(self) -> T:
        """The value itself. Look again (:meth:`SysGenId.guard`) before what is made of it leaves the
        program, or :meth:`use` it instead."""
        return self.use(lambda value: value)

    def __repr__(self) -> str:
        # Without the value, which may be a secret.
        return f"<Cached {self._sysgenid!r}>"
