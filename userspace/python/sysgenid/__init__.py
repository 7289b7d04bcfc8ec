# SPDX-License-Identifier: MIT OR Apache-2.0

"""Know when the machine was cloned.

A virtual machine that is saved once and resumed twice becomes two machines with one memory: the same
random pools, the same "unique" IDs, the same half-done transactions. The kernel's ``/dev/sysgenid``
has a number, the *generation*, which changes whenever that may have happened. Where the hypervisor's
own page can be seen, in ``/dev/vmgenid``, a clone has a new ID there from its first instruction on.
This package looks at both, and at the driver's answer to the ID.

* :class:`SystemRandom` and :class:`Random` are generators as in the module ``random``, which never
  give two clones the same.
* :class:`Cached` holds a value that is built anew when the machine was cloned.
* :class:`SysGenId` is what is below that: look, do the work, and look again. A :class:`Guard` does it
  for work that cannot be done again by calling a function.
* :class:`Watcher` is for a program that wants to be told, with or without asyncio.

What remains is a snapshot that is taken between a program's last look and its use of a secret. It
cannot be seen by the program; only an overseer that quiesces it before the snapshot can exclude it.
"""

from ._cached import Cached
from ._device import ID_NODE, NODE
from ._errors import (
    Changed,
    DeviceError,
    Error,
    Forbidden,
    NoDevice,
    NotTheDevice,
    Superseded,
    Unsettled,
)
from ._fresh import Fresh, Freshness, Seen
from ._random import Random, SystemRandom
from ._sysgenid import Guard, IdPage, SysGenId
from ._watcher import Watcher

__version__ = "0.1.0"

__all__ = [
    "ID_NODE",
    "NODE",
    "Cached",
    "Changed",
    "DeviceError",
    "Error",
    "Forbidden",
    "Fresh",
    "Freshness",
    "Guard",
    "IdPage",
    "NoDevice",
    "NotTheDevice",
    "Random",
    "Seen",
    "Superseded",
    "SysGenId",
    "SystemRandom",
    "Unsettled",
    "Watcher",
]
