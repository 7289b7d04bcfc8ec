# SPDX-License-Identifier: MIT OR Apache-2.0

"""What can go wrong, in words that say what to do."""

from __future__ import annotations

import errno
import os


class Error(Exception):
    """What this package raises. The texts are for the operator."""


class DeviceError(Error, OSError):
    """A node cannot be used. ``errno`` and ``filename`` are set, as in any :exc:`OSError`."""

    def __str__(self) -> str:
        return str(self.strerror)


class NoDevice(DeviceError, FileNotFoundError):
    """There is no such node."""


class Forbidden(DeviceError, PermissionError):
    """The node is there, and this process may not open it."""


class NotTheDevice(DeviceError):
    """What has the node's name is something else."""


class Superseded(Error):
    """An acknowledgement came too late: the generation has changed again."""


class Changed(Error):
    """The machine was cloned, the generation was changed, or the process was forked."""


class Unsettled(Error):
    """The generation changed each time before the work was done."""

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"the generation changed during each of {attempts} attempts: somebody changes it all "
            "the time (sysgenctl watch shows who)"
        )


def no_device(node: str) -> NoDevice:
    """Where nothing has that name."""
    return NoDevice(
        errno.ENOENT,
        f"there is no {node}: load the module sysgenid (modprobe sysgenid), or boot a kernel that "
        "has it; a program that is to run without says allow_missing=True",
        node,
    )


def io_error(action: str, node: str, error: OSError) -> DeviceError:
    """What the kernel said when that was tried with a node."""
    number = error.errno or errno.EIO
    why = os.strerror(number)
    if isinstance(error, PermissionError):
        return Forbidden(
            number,
            f"{node} may not be opened: {why}; look at its mode, and at what confines this process "
            "(a container, a sandbox, a security module)",
            node,
        )
    return DeviceError(number, f"cannot {action} {node}: {why}", node)


def not_the_device(node: str, what: str) -> NotTheDevice:
    """Where that name belongs to something else."""
    text = f"{node} is not the device of that name: it {what}"
    return NotTheDevice(errno.ENODEV, text, node)
