#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Brings clones back into service by sysgenctl. Prints TAP, in each clone.

It quiesces the machine, says READY when the snapshot can be taken, and thaws it after
the resume. Whether this is a clone then, which it notes, is by the hypervisor's ID.
"""

import time

from sysgenctl_common import (
    Background,
    check,
    check_equal,
    check_has,
    make_hook,
    os,
    read,
    run_tests,
    sysgenctl,
    until,
)

LOG = "/tmp/log"
SNAPSHOT = ("--hooks-dir", "/tmp/hooks")
# How long a machine waits for its resume, and thereby for another ID.
PATIENCE = 4
# What tells the driver of it: whichever is first.
SOURCES = ("vmfork", "vmgenid", "page")


def vm_id():
    """The hypervisor's ID of this machine, as it is now."""
    with open("/dev/vmgenid", "rb", buffering=0) as page:
        return page.read(16)


def quiesce():
    """What happens before the snapshot."""
    for phase in "pre", "post":
        script = f'echo "$SYSGENID_PHASE $SYSGENID $SYSGENID_BEFORE" >>{LOG}'
        make_hook(f"/tmp/hooks/{phase}.d", "hook", script)
    ack = f'sleep 0.5; echo "acked $SYSGENID_OLD $SYSGENID_NEW" >>{LOG}'
    watching = Background("watch", "--track", "--exec", "sh", "-c", ack)
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    return watching


watch = quiesce()
before = vm_id()
print("READY", flush=True)
limit = time.monotonic() + PATIENCE
while vm_id() == before and time.monotonic() < limit:
    pass
cloned = vm_id() != before
print(f"# cloned {'yes' if cloned else 'no'}", flush=True)


def post_thaws_a_clone():
    """When the generation has changed, and the watcher has acked."""
    done = sysgenctl("snapshot-hooks", "post", "--timeout", "60s", "--json", *SNAPSHOT).json()
    check_equal((done["generation_before"], done["generation"]), (0, 1), "generations")
    check_equal(done["waited"]["tracked_watchers"], 1, "the number of tracked watchers")
    # The hooks come after the ack, and not before.
    check_equal(read(LOG), "pre 0 \nacked 0 1\npost 1 0\n", "the log")


def post_thaws_what_is_no_clone():
    """Without waiting for a change that does not come."""
    start = time.monotonic()
    ended = sysgenctl("snapshot-hooks", "post", "--timeout", "60s", *SNAPSHOT)
    check(time.monotonic() - start < 30, "it has waited")
    check_has(ended.out, "generation 0, as before the snapshot: this is no clone")
    check_equal(read(LOG), "pre 0 \npost 0 0\n", "the log")


def the_watcher_has_acked():
    """In each clone."""
    row = watch.row()
    check_equal((row["acked"], row["outdated"]), (1 if cloned else 0, False), "acked and outdated")
    lines = watch.said().splitlines()
    check_equal(len(lines), 1 if cloned else 0, f"the number of lines of {lines}")
    if cloned:
        told = lines[0].split("generation ")[1]
        expected = [f"0 -> 1, source {source}, reseeded" for source in SOURCES]
        check(told in expected, f"{told}, expected one of {expected}")


def nobody_is_waited_for():
    """It is over."""
    sysgenctl("wait", "--timeout", "60s")


def status_says_what_happened():
    """And when."""
    status = sysgenctl("status", "--json").json()
    expected = SOURCES if cloned else ("none",)
    check(status["source"] in expected, f"the source {status['source']}, not one of {expected}")
    check_equal(status["epoch"], 1 if cloned else 0, "the epoch")
    check_equal(status["reseeded"], True, "reseeded")
    check_equal(status["pending"], False, "pending")
    check_equal(status["changed_at"] is not None, cloned, "a time is there")


def the_note_is_gone():
    """For the next snapshot."""
    until("no note", lambda: not os.path.exists("/run/sysgenid/snapshot"))


run_tests(
    [
        post_thaws_a_clone if cloned else post_thaws_what_is_no_clone,
        the_watcher_has_acked,
        nobody_is_waited_for,
        status_says_what_happened,
        the_note_is_gone,
    ]
)
