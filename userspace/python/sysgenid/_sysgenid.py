# SPDX-License-Identifier: MIT OR Apache-2.0

"""The generation and the hypervisor's ID, mapped."""

from __future__ import annotations

import enum
import logging
import os
import time
from types import TracebackType
from typing import NamedTuple, Optional, Union

from . import _device, _errors
from ._device import ID_NODE, NEEDS_FENCE, NODE, fence
from ._fresh import Fresh, Freshness, Seen
from ._process import process_number

Path = Union[str, "os.PathLike[str]"]

# How long settle() sleeps in all, unless somebody says otherwise. The change follows the resume by
# some tens of milliseconds. Where nobody notifies the kernel, the driver looks for itself every four
# seconds.
LIMIT = 5.0

# How long to sleep between two looks: an eighth of what was slept already, in these bounds.
SHORTEST = 0.001
LONGEST = 0.05

# How long a device that was not there is not looked for again.
LOOK_FOR = 1.0

_log = logging.getLogger("sysgenid")


class IdPage(enum.Enum):
    """Whether the hypervisor's page can be looked at."""

    MAPPED = "it is mapped: a clone is noticed at the first look after its resume"
    READ = (
        "it is not safe to map it, so that each look reads the ID by two system calls; a clone is "
        "noticed as soon as where it is mapped"
    )
    ABSENT = "there is none: no such device in this machine, or one whose page may not be seen"
    FORBIDDEN = "the node is there, and this process may not open it"
    FAILED = "the node can be opened, but not used"
    NOT_WANTED = "id_node=None said not to look"
    NO_DEVICE = "there is no driver"


class _Opened(NamedTuple):
    """What is looked at."""

    page: _device.GenerationPage
    id: Optional[_device.Id]
    id_page: IdPage
    id_error: Optional[_errors.DeviceError]


class SysGenId:
    """The generation and, where it may be seen, the hypervisor's ID, both mapped: a look makes no
    system call (but where :attr:`id_page` is ``READ``).

    Threads can share it. In a forked process, after ``chroot()`` and after privileges were dropped,
    it goes on working. It cannot be pickled.

    ``limit`` is how many seconds :meth:`settle` waits at most. With ``hasten`` it asks the driver
    for its answer, for which it opens the node by its path and makes an ioctl; without, it only
    sleeps and looks. ``id_node=None`` does not look at the hypervisor's ID.

    Where there is no device this raises :exc:`NoDevice`. With ``allow_missing=True`` it does not:
    then nothing is ever seen to change, but in a forked process; the device is looked for again once
    a second, when somebody looks, and from then on it is as if it had always been there. A node
    that is there and cannot be used is an error all the same.
    """

    def __init__(
        self,
        *,
        node: Path = NODE,
        id_node: Optional[Path] = ID_NODE,
        limit: float = LIMIT,
        hasten: bool = True,
        allow_missing: bool = False,
    ) -> None:
        self._node = os.fspath(node)
        self._id_node = None if id_node is None else os.fspath(id_node)
        self._limit = limit
        self._hasten = hasten
        self._looked_for = time.monotonic()
        self._opened: Optional[_Opened] = None
        try:
            self._opened = self._open()
        except _errors.NoDevice:
            if not allow_missing:
                raise

    def _open(self) -> _Opened:
        page = _device.open_generation(self._node)
        if self._id_node is None:
            return _Opened(page, None, IdPage.NOT_WANTED, None)
        try:
            found = _device.open_id(self._id_node)
        except _errors.NoDevice:
            return _Opened(page, None, IdPage.ABSENT, None)
        except _errors.Forbidden as error:
            return _Opened(page, None, IdPage.FORBIDDEN, error)
        except _errors.DeviceError as error:
            return _Opened(page, None, IdPage.FAILED, error)
        return _Opened(page, found, IdPage.MAPPED if found.is_mapped else IdPage.READ, None)

    def _find(self) -> Optional[_Opened]:
        """What is looked at; if there was no device, then whether there is one by now."""
        opened = self._opened
        if opened is not None:
            return opened
        now = time.monotonic()
        if now - self._looked_for >= LOOK_FOR:
            self._looked_for = now
            try:
                self._opened = self._open()
            except _errors.NoDevice:
                pass
            except _errors.DeviceError as error:
                # It came, and is of no use: it is as if it had not come, and said once.
                self._looked_for = float("inf")
                _log.warning("%s", error)
        return self._opened

    def look(self) -> Seen:
        """Looks: a few loads.

        If it is not equal to what was seen when a secret was made, then that secret must not be used
        any more: see :meth:`settle`. Look again before what was made with the secret leaves the
        program.
        """
        opened = self._opened or self._find()
        if opened is None:
            return Seen(None, 0, 0, process_number())
        return _look(opened)

    def settle(self) -> Fresh:
        """Before anything is derived for the first time, and after a look that differs from what was
        seen: waits until the driver has answered the hypervisor's ID, which says that the kernel has
        reseeded its random number generator for the machine that this is now. Returns what is
        needed to build anew.

        A program that has just been started may have been started in a clone that has just been
        resumed. So this comes before its first secret as well.

        It returns at once where the ID is answered already, and raises nothing: if there is no
        answer within the limit then :attr:`Fresh.freshness` says so, and a line in the log
        (``logging.getLogger("sysgenid")``). In a program with asyncio, call it by
        ``await asyncio.to_thread(sysgenid.settle)``.

        Throw away what was derived from the old state before calling this.
        """
        slept = 0.0
        hasten = self._hasten
        answered = False
        while True:
            opened = self._find()
            if opened is None:
                return Fresh(self.look(), Freshness.NO_DEVICE)
            # Who cannot see the ID can ask the driver, which sees it, whether it is answered.
            if opened.id is not None or not hasten:
                fresh = _settled(opened, answered)
                if fresh is not None:
                    return fresh
            left = self._limit - slept
            if left <= 0:
                _log.warning("is this machine a clone? %s", Freshness.TIMED_OUT.value)
                return Fresh(self.look(), Freshness.TIMED_OUT)
            if hasten:
                hasten = False
                said = _device.settle_by_ioctl(self._node, left)
                if said is False:
                    slept = self._limit
                answered = said is True
                if said is False and opened.id is None:
                    _log.warning("is this machine a clone? %s", Freshness.TIMED_OUT.value)
                    return Fresh(self.look(), Freshness.TIMED_OUT)
                continue
            # What was slept is counted, so that no clock has to be asked.
            nap = min(max(slept / 8, SHORTEST), LONGEST, left)
            time.sleep(nap)
            slept += nap

    @property
    def generation(self) -> int:
        """The generation at this moment; 0 where there is no device."""
        return self.look().generation

    @property
    def epoch(self) -> int:
        """The number of changes since the driver was loaded; 0 where nobody says it."""
        return self.look().epoch

    @property
    def is_settled(self) -> bool:
        """Whether nothing is due at this moment, as far as it can be seen: :meth:`settle` would
        return at once."""
        opened = self._find()
        return opened is None or _settled(opened, False) is not None

    @property
    def is_confirmed(self) -> bool:
        """Whether, at this moment, the kernel's random number generator is known to have been
        reseeded with the ID that is there. What was drawn before may be older."""
        opened = self._find()
        fresh = None if opened is None else _settled(opened, False)
        return fresh is not None and fresh.is_confirmed

    @property
    def id_page(self) -> IdPage:
        """Whether the hypervisor's ID is looked at (its ``value`` is a sentence).

        Where it is neither ``MAPPED`` nor ``READ``, a clone is noticed some milliseconds after its
        resume (seconds, where the hypervisor notifies nobody), and the random bytes that it has
        drawn until then are those of its sisters.
        """
        opened = self._find()
        return IdPage.NO_DEVICE if opened is None else opened.id_page

    @property
    def id_error(self) -> Optional[_errors.DeviceError]:
        """Why it is not looked at, where :attr:`id_page` is ``FORBIDDEN`` or ``FAILED``."""
        opened = self._find()
        return None if opened is None else opened.id_error

    def guard(self) -> Guard:
        """Remembers what is seen now, for work that must not cross a change."""
        return Guard(self)

    def __reduce__(self) -> str:
        raise TypeError("a SysGenId cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        return f"<SysGenId {self._node} {self.id_page.name}>"


def _look(opened: _Opened) -> Seen:
    # What was made before is made when this looks.
    if NEEDS_FENCE:
        fence()
    seen_id = opened.id.load() if opened.id is not None else None
    process = process_number()
    # The driver stores the epoch last: whoever sees a new one sees the generation of it.
    epoch = opened.page.epoch()
    if NEEDS_FENCE:
        fence()
    generation = opened.page.generation()
    # What is used or drawn after this look is that of what was seen, or newer. If the machine is
    # cloned between the loads, then what is seen is a mixture, which differs from what was
    # remembered, or from the next look.
    if NEEDS_FENCE:
        fence()
    return Seen(seen_id, generation, epoch, process)


def _settled(opened: _Opened, answered: bool) -> Optional[Fresh]:
    """What is needed to build anew, if the ID that is seen is answered, or if none can be seen.

    `answered` says that the driver, which sees it, has said so.
    """
    seen = _look(opened)
    if opened.id is None or seen.id is None:
        reseeded = opened.page.reseeded()
        if reseeded is None:
            return Fresh(seen, Freshness.NOT_SAID)
        if not reseeded:
            return Fresh(seen, Freshness.NOT_RESEEDED)
        return Fresh(seen, Freshness.RESEEDED if answered else Freshness.ID_NOT_SEEN)
    answer = opened.id.answer.load()
    if answer is None or answer[:3] != seen[:3]:
        return None
    return Fresh(seen, Freshness.RESEEDED if answer.reseeded else Freshness.NOT_RESEEDED)


class Guard:
    """Work that must not cross a change: it remembers what was seen when it was made. As a context
    manager it raises :exc:`Changed` at the end of a block that a change came into::

        with sysgenid.guard():
            transaction.submit()
        transaction.confirm()
    """

    def __init__(self, sysgenid: SysGenId) -> None:
        self._sysgenid = sysgenid
        self._seen = sysgenid.look()

    @property
    def seen(self) -> Seen:
        """What was seen when the guard was made."""
        return self._seen

    @property
    def has_changed(self) -> bool:
        """Whether anything has changed since the guard was made, or this is a process that was
        forked since."""
        return self._sysgenid.look() != self._seen

    def check(self) -> None:
        """Raises :exc:`Changed` if :attr:`has_changed`. :meth:`SysGenId.settle` tells when the
        kernel's random bytes can be trusted again."""
        if self.has_changed:
            raise _errors.Changed(
                "the generation has changed: undo what is half done, and start again"
            )

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is None:
            self.check()
