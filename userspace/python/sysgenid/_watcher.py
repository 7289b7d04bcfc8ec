# SPDX-License-Identifier: MIT OR Apache-2.0

"""A descriptor that becomes readable when the generation changes."""

from __future__ import annotations

import errno
import math
import os
import select
import struct
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, AsyncIterator, Optional

from . import _device, _errors
from ._sysgenid import Path

if TYPE_CHECKING:
    import asyncio

_WORD = struct.Struct("=I")


class Watcher:
    """One open ``/dev/sysgenid``, for a program that wants to be told.

    It is *acked* when it is opened. When the generation changes it becomes *outdated*: readable, for
    an event loop (:meth:`fileno`), until the program has acknowledged. The order is:

    1. :meth:`wait`, or an event loop and then :meth:`outdated`, which returns the generation;
    2. build anew what must be unique;
    3. :meth:`ack` that generation. If it has changed again (:exc:`Superseded`), start again.

    With asyncio, :meth:`changes` does all of that but the second.

    With ``tracked=True`` overseers wait for this watcher: the system may be held up until it has
    acknowledged, or was closed.

    The descriptor is non-blocking, and is closed on ``exec()``. Copies of it, and those in forked
    processes, share one watcher: who acknowledges, does so for all of them.
    """

    def __init__(self, *, node: Path = _device.NODE, tracked: bool = False) -> None:
        self._node = os.fspath(node)
        self._fd = _device.open_node(self._node, os.O_RDWR, _device.SET_WATCHER_TRACKING)
        self._close = weakref.finalize(self, os.close, self._fd)
        if tracked:
            self.set_tracked(True)

    def close(self) -> None:
        """Closes it; again is harmless. Whoever awaits a change is to be cancelled before."""
        self._close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return not self._close.alive

    def fileno(self) -> int:
        """The descriptor, for any event loop: it polls readable while this watcher is outdated."""
        if self.closed:
            raise ValueError("this watcher is closed")
        return self._fd

    def outdated(self) -> Optional[int]:
        """The current generation if this watcher is outdated, and None if it is acked.

        Does not wait, and does not acknowledge.
        """
        try:
            data = os.read(self.fileno(), _WORD.size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _errors.io_error("read", self._node, error) from None
        if len(data) != _WORD.size:
            raise _errors.not_the_device(self._node, f"gives {len(data)} bytes")
        generation: int = _WORD.unpack(data)[0]
        return generation

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Sleeps until this watcher is outdated, and returns the generation; None when so many
        seconds are over. A signal does not end the wait, unless its handler raises."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            generation = self.outdated()
            if generation is not None:
                return generation
            if deadline is None:
                poll.poll()
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            # What the system call takes at most is 24 days.
            poll.poll(min(math.ceil(left * 1000), 0x7FFFFFFF))

    def ack(self, generation: int) -> None:
        """Acknowledges a generation: everything that depends on it has been rebuilt.

        Raises :exc:`Superseded` if it is not the current one: nothing was acknowledged.
        """
        try:
            os.write(self.fileno(), _WORD.pack(generation))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise _errors.Superseded(
                    f"{generation} is not the current generation: read it again, rebuild what it "
                    "guards, and acknowledge that one"
                ) from None
            raise _errors.io_error("acknowledge on", self._node, error) from None

    def set_tracked(self, tracked: bool) -> None:
        """Asks overseers to wait for this watcher, or no longer to do so."""
        try:
            _device.ioctl(self.fileno(), _device.SET_WATCHER_TRACKING, int(tracked))
        except OSError as error:
            raise _errors.io_error("set the tracking of", self._node, error) from None

    async def changed(self) -> int:
        """Waits until this watcher is outdated, and returns the generation. Does not acknowledge.

        Several tasks may wait, in several event loops.
        """
        # It takes long to import, and most programs that draw numbers have no use for it.
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            generation = self.outdated()
            if generation is not None:
                return generation
            # A loop has one reader for each descriptor, so each who waits has one of his own. It is
            # another name of the same watcher.
            fd = os.dup(self.fileno())
            readable = loop.create_future()

            def wake(future: asyncio.Future[None] = readable) -> None:
                if not future.done():
                    future.set_result(None)

            try:
                loop.add_reader(fd, wake)
                await readable
            finally:
                loop.remove_reader(fd)
                os.close(fd)

    async def changes(self) -> AsyncIterator[int]:
        """All changes, as the generation that each has made; several at once count as one::

            async for generation in watcher.changes():
                rebuild()

        When the body has come to its end, the generation is acknowledged. It is not if the body
        breaks out, or raises. Until then, further changes wait.
        """
        while True:
            generation = await self.changed()
            yield generation
            try:
                self.ack(generation)
            except _errors.Superseded:
                # The next one is there already.
                pass

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watcher {self._node}{' closed' if self.closed else ''}>"
