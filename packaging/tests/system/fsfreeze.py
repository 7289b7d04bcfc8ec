#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Is frozen and thawed by the guest agent, whose host is told by files how far this is. Prints TAP.

Then it is frozen once more, and says READY. In each clone the host thaws it.
"""

import subprocess

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
    time,
    until,
)

PROGRESS = "/run/fsfreeze-test"
LOG = f"{PROGRESS}/log"
WRITTEN = f"{PROGRESS}/written"
CONFIGURATION = "/etc/qemu/qemu-ga.conf"
SCRIPT = "/etc/qemu/fsfreeze-hook"
HOOK = "/etc/qemu/fsfreeze-hook.d/sysgenid"
BAD = "/etc/sysgenid/pre.d/90-bad"


def configure(hook):
    """Has the agent run that hook, as the administrator's guide says it."""
    with open(CONFIGURATION, "w", encoding="utf-8") as file:
        file.write(f"[general]\nfsfreeze-hook={hook}\n")
    subprocess.run(["systemctl", "restart", "qemu-guest-agent.service"], check=True)


def let_host(step):
    """Has the host do that, and waits until it has."""
    with open(LOG, "w", encoding="utf-8"):
        pass
    with open(f"{PROGRESS}/{step}", "w", encoding="utf-8"):
        pass
    until(f"the host is over with {step}", lambda: os.path.exists(f"{PROGRESS}/{step}.over"))


def without_configuration_nobody_calls_a_hook():
    """But the package has it where QEMU's script looks for it."""
    check(os.access(HOOK, os.X_OK), "there is no hook")
    let_host("unconfigured")
    check_equal(read(LOG), "", "the log")


def by_the_script_a_failure_is_only_logged():
    """The machine is frozen, and not quiesced."""
    configure(SCRIPT)
    make_hook("/etc/sysgenid/pre.d", "90-bad", "echo it is full; exit 3")
    let_host("script")
    check_equal(read(LOG), "pre 0 \nundo 0 \nundo 0 \nthaw 0 \npost 0 \n", "the log")
    said = read("/var/log/qga-fsfreeze-hook.log")
    check_has(said, "it is full", f"Error: {HOOK} finished with status=6")


def by_itself_a_failure_keeps_it_from_freezing():
    """And what was quiesced is thawed again."""
    configure(HOOK)
    let_host("failing")
    check_equal(read(LOG), "pre 0 \nundo 0 \nundo 0 \n", "the log")
    check(not os.path.exists("/run/sysgenid/snapshot"), "there is a note")
    os.remove(BAD)


def the_same_machine_goes_on():
    """It is no clone, and nobody is waited for. The hook runs at each thaw, whatever was frozen."""
    let_host("same")
    check_equal(read(LOG), "pre 0 \nthaw 0 0\npost 0 0\nthaw 0 \npost 0 \n", "the log")


def a_failure_after_the_thaw_is_told():
    """And the next thaw does what is left."""
    once = f"{PROGRESS}/once"
    make_hook("/etc/sysgenid/post.d", "90-bad", f"[ -e {once} ] || {{ >{once}; exit 3; }}")
    let_host("thawing")
    check_equal(read(LOG), "pre 0 \nthaw 0 0\npost 0 0\nthaw 0 \npost 0 \n", "the log")


def write_on():
    """Writes to the disk without end, and says in memory how often it has."""
    number = 0
    while True:
        with open("/var/tmp/fsfreeze-test", "w", encoding="utf-8") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        number += 1
        with open(f"{WRITTEN}.new", "w", encoding="utf-8") as file:
            file.write(f"{number}\n")
        os.rename(f"{WRITTEN}.new", WRITTEN)
        time.sleep(0.02)


def is_frozen():
    """Whether the writer stands still, and does so in the kernel."""
    before = read(WRITTEN)
    time.sleep(1)
    return before == read(WRITTEN) != "" and "D (disk sleep)" in read(f"/proc/{WRITER}/status")


os.makedirs(PROGRESS)
for phase in "pre", "thaw", "post":
    script = f'echo "$SYSGENID_PHASE $SYSGENID $SYSGENID_BEFORE" >>{LOG}'
    make_hook(f"/etc/sysgenid/{phase}.d", "50-test", script)

# It ends with them.
child = os.fork()
if child == 0:
    run_tests(
        [
            without_configuration_nobody_calls_a_hook,
            by_the_script_a_failure_is_only_logged,
            by_itself_a_failure_keeps_it_from_freezing,
            the_same_machine_goes_on,
            a_failure_after_the_thaw_is_told,
        ]
    )
os.waitpid(child, 0)

# A watcher that needs what was thawed first.
ACK = f"until grep -q ^thaw {LOG}; do sleep 0.1; done; sleep 0.5"
watch = Background(
    "watch", "--track", "--exec", "sh", "-c", f'{ACK}; echo "acked $SYSGENID_OLD $SYSGENID_NEW" >>{LOG}'
)
WRITER = os.fork()
if WRITER == 0:
    write_on()
with open(LOG, "w", encoding="utf-8"):
    pass
with open(f"{PROGRESS}/saved", "w", encoding="utf-8"):
    pass
until("the disk is frozen", is_frozen)
print("READY", flush=True)
until("it is thawed", lambda: "post" in read(LOG))


def hooks_and_the_watcher():
    """In their order: the watcher is waited for, and it can go on before that."""
    check_equal(read(LOG), "pre 0 \nthaw 1 0\nacked 0 1\npost 1 0\n", "the log")


def the_watcher_has_acked():
    """Of its own accord."""
    row = watch.row()
    check_equal((row["acked"], row["outdated"], row["tracked"]), (1, False, True), "the watcher")


def what_was_to_be_written_is():
    """The disk is thawed."""
    before = read(WRITTEN)
    until("it writes on", lambda: read(WRITTEN) != before)


def nothing_is_left():
    """For the next snapshot."""
    sysgenctl("wait", "--timeout", "60s")
    until("no note", lambda: not os.path.exists("/run/sysgenid/snapshot"))


run_tests([hooks_and_the_watcher, the_watcher_has_acked, what_was_to_be_written_is, nothing_is_left])
