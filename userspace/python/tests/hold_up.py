# SPDX-License-Identifier: MIT OR Apache-2.0

"""Keeps the kernel from hearing the hypervisor for a while.

What the hypervisor's notification makes the kernel do is done on processor 0. A process that never
sleeps there, and has precedence, holds it up, so that a program that is slow by itself, as one in
Python in an emulated machine is, can see the window after a resume at all.
"""

import contextlib
import os
import signal
import subprocess
import time

# For how long after the resume; seconds. What asks the driver to settle does not wait for that.
HOW_LONG = 2


@contextlib.contextmanager
def held_up(opened):
    """Holds up processor 0, and leaves the others to this process and the threads that it starts;
    nothing, where there is but one processor."""
    processors = os.sched_getaffinity(0)
    if len(processors) == 1:
        yield
        return
    # The kernel gives a processor to others now and then in spite of all.
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    write("/sys/kernel/debug/sched/fair_server/cpu0/runtime", 0)
    write("/proc/sys/kernel/sched_rt_runtime_us", -1)
    # What is printed here goes through the first process of the guest, which would wait for ever if it
    # had slept on that processor.
    os.sched_setaffinity(1, processors - {0})
    before = opened.look()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {0})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.write(writer, b"1")
        while opened.look().id == before.id:
            pass
        limit = time.monotonic() + HOW_LONG
        while time.monotonic() < limit:
            pass
        os._exit(0)
    os.read(reader, 1)
    os.sched_setaffinity(0, processors - {0})
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for process in 0, 1:
            os.sched_setaffinity(process, processors)


def write(path, number):
    """Sets what the kernel can be told by a file."""
    with open(path, "w", encoding="ascii") as file:
        file.write(str(number))
