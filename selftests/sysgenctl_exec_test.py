#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Has programs that know nothing of generations take part. Prints TAP.

Wants to be root in a guest (lab run --systemd). With an argument it is such a program.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from sysgenctl_common import (
    check,
    check_equal,
    check_has,
    read,
    rows_of,
    run_tests,
    sysgenctl,
    until,
)

HERE = "/tmp/exec"
HOLD = f"{HERE}/hold"
LOG = f"{HERE}/log"
UNIT = "exec-test.service"
UNITS = "/etc/systemd/system"
DROP_IN = f"{UNITS}/{UNIT}.d/zz-sysgenid-track.conf"


# The program


def note(line):
    """Writes a line at the end of the log."""
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def say(line):
    """Tells whoever has started it, if he wants to know."""
    if name := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(line.encode(), name.replace("@", "\0", 1))


def get_ready():
    """When nobody holds it up."""
    while os.path.exists(HOLD):
        time.sleep(0.05)
    note("ready")
    say("READY=1")


def reload(*_):
    """As services of the type notify-reload do."""
    note("reload")
    say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    get_ready()


def program():
    """Gets ready, and does what signals ask for, as a real one does."""
    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    # Without the one by which they are listed.
    found = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    note(f"start {os.getpid()} {' '.join(sorted(found))}")
    get_ready()
    while True:
        signal.pause()


if len(sys.argv) > 1:
    program()


# The tests


def starts():
    """The process of each program that was started, the last one last."""
    words = [line.split() for line in read(LOG).splitlines()]
    return [int(line[1]) for line in words if line[0] == "start"]


def ends(process):
    """The process is gone, or has ended."""
    until(
        f"the end of {process}",
        lambda: ") Z " in (read(f"/proc/{process}/stat") or ") Z "),
    )


def is_ready(number):
    """So many times it was."""
    until(f"ready {number}", lambda: read(LOG).splitlines().count("ready") == number)


class Program:
    """One that sysgenctl exec runs, from when it is ready."""

    def __init__(self, *options, command=("python3", __file__, "run")):
        shutil.rmtree(HERE, ignore_errors=True)
        os.makedirs(HERE)
        # pylint: disable=consider-using-with
        # It is read while it is written.
        self.out = open(f"{HERE}/out", "a+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["sysgenctl", "exec", *options, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=subprocess.STDOUT,
        )
        is_ready(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(FileNotFoundError):
            os.remove(HOLD)
        self.process.kill()
        self.process.wait()
        self.out.close()
        for process in starts():
            ends(process)

    def said(self):
        """All that it has said."""
        return read(f"{HERE}/out")

    def status(self):
        """How it ends."""
        return self.process.wait(timeout=60)

    def tracked(self):
        """Its tracked watcher."""
        found = [row for row in rows_of(self.process.pid) if row["tracked"]]
        check_equal(len(found), 1, "the number of its tracked watchers")
        return found[0]


def hold():
    """From now on, nobody gets ready."""
    with open(HOLD, "w", encoding="utf-8"):
        pass


def go():
    """Whoever was held up gets ready."""
    os.remove(HOLD)


def wait(timeout="60s", status=0):
    """Waits for watchers, as an overseer does."""
    return sysgenctl("wait", "--no-units", "--timeout", timeout, status=status)


def trigger():
    """Changes the generation."""
    return sysgenctl("trigger", "--json").json()["generation"]


def an_overseer_waits_until_it_is_ready_again():
    """Another one by then, and the one before is gone."""
    with Program("--notify") as it:
        hold()
        new = trigger()
        until("another one", lambda: len(starts()) == 2)
        check_has(wait("1s", status=3).out, str(it.process.pid), "sysgenctl exec --notify")
        go()
        wait()
        first, second = starts()
        check(not os.path.exists(f"/proc/{first}"), "the first one is there, if only as a zombie")
        check(os.path.exists(f"/proc/{second}"), "the second one is gone")
        check_equal(it.tracked()["acked"], new, "what is acknowledged")
        check_has(it.said(), f"python3 is up, and generation {new} is acknowledged")


def who_never_gets_ready_holds_the_overseer():
    """Until the time is over: then it ends, and has not acknowledged."""
    with Program("--notify", "--start-timeout", "4s") as it:
        hold()
        new = trigger()
        wait("1s", status=3)
        check_equal(it.status(), 3, "the exit status")
        check_has(it.said(), f"that it is up, and generation {new} is not acknowledged")
        wait()


def changes_in_a_row_are_one():
    """The latest is acknowledged, by the one that was started last."""
    with Program("--notify") as it:
        hold()
        trigger()
        until("another one", lambda: len(starts()) == 2)
        new = trigger()
        until("one more", lambda: len(starts()) == 3)
        check(it.tracked()["outdated"], "it is not outdated")
        go()
        wait()
        check_equal(it.tracked()["acked"], new, "what is acknowledged")
        check_equal(read(LOG).splitlines().count("ready"), 2, "how often it was ready")


def a_signal_will_do():
    """When it has said that it has done what that asked for."""
    with Program("--notify", "--signal", "HUP") as it:
        hold()
        new = trigger()
        until("it reloads", lambda: "reload" in read(LOG))
        wait("1s", status=3)
        go()
        wait()
        check_equal(it.tracked()["acked"], new, "what is acknowledged")
        check_equal(len(starts()), 1, "how often it was started")


def who_says_nothing_is_up_after_a_moment():
    """And there is no socket."""
    with Program("--up-after", "2s") as it:
        trigger()
        wait("500ms", status=3)
        wait()
        # It may be up before it has done anything.
        until("another one", lambda: len(starts()) == 2)
        check("NOTIFY_SOCKET" not in read(f"/proc/{starts()[1]}/environ"), "there is a socket")
        it.process.terminate()
        check_equal(it.status(), 7, "the exit status")


def its_status_is_the_programs():
    """Or says what has become of it."""
    for script, status in ("exit 5", 5), ("kill -KILL $$", 137):
        sysgenctl("exec", "sh", "-c", script, status=status)
    check_has(sysgenctl("exec", "/no/such/program", status=127).err, "/no/such/program")
    sysgenctl("exec", "/etc", status=126)


def signals_are_passed_on():
    """And how the program ends by one is how it ends."""
    with Program("--notify") as it:
        os.kill(it.process.pid, signal.SIGHUP)
        until("it reloads", lambda: "reload" in read(LOG))
        os.kill(it.process.pid, signal.SIGTERM)
        check_equal(it.status(), 7, "the exit status")
        ends(starts()[0])


def who_is_killed_takes_the_program_along():
    """And nobody waits for it."""
    with Program("--notify") as it:
        it.process.kill()
        ends(starts()[0])
        trigger()
        wait()


def no_descriptor_is_handed_down():
    """But for the three that everybody has."""
    with Program("--notify"):
        line = read(LOG).splitlines()[0].split()
        check_equal(line[2:], ["0", "1", "2"], "its descriptors")


def systemctl(*arguments):
    """Has it succeed, and returns what it says."""
    done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
    check_equal(done.returncode, 0, f"systemctl {arguments}: {done.stderr}")
    return done.stdout.strip()


def show(key):
    """What systemd says of the unit."""
    return systemctl("show", "--value", f"--property={key}", UNIT)


def a_service_takes_part():
    """Of which systemd knows when it is ready, and which is as it was in the end."""
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    with open(f"{UNITS}/{UNIT}", "w", encoding="utf-8") as unit:
        unit.write("[Service]\nType=notify\nPrivateDevices=yes\nKillSignal=SIGTERM\n")
        unit.write("SuccessExitStatus=7\nEnvironment=WORD=run\n")
        unit.write(f"ExecStart=/usr/bin/python3 \\\n  {__file__} ${{WORD}}\n")
    systemctl("daemon-reload")
    check_has(sysgenctl("unit", "--track", "--dry-run", UNIT).out, "exec --notify", "${WORD}")
    check(not os.path.exists(DROP_IN), "there is a drop-in")
    check_has(sysgenctl("unit", "--track", "--reload", UNIT, status=1).err, "notify-reload")
    for changed in True, False:
        report = sysgenctl("unit", "--track", "--json", UNIT).json()
        check_equal((report["tracked"], report["changed"]), (True, changed), "the report")
    systemctl("start", UNIT)
    main = int(show("MainPID"))
    is_ready(1)
    check([row for row in rows_of(main) if row["tracked"]], "it is not tracked")
    sysgenctl("trigger", "--wait", "--no-units", "--timeout", "60s")
    check_equal(len(starts()), 2, "how often it was started")
    check_equal((int(show("MainPID")), show("ActiveState")), (main, "active"), "the service")
    systemctl("stop", UNIT)
    check_equal(show("Result"), "success", "the result")
    for process in starts():
        ends(process)


def what_the_unit_says_now_is_missed():
    """As after an upgrade; and all of it goes."""
    with open(f"{UNITS}/{UNIT}", "a", encoding="utf-8") as unit:
        unit.write("ExecStart=\nExecStart=/bin/sleep 5\n")
    systemctl("daemon-reload")
    check_has(sysgenctl("unit", UNIT).out, "is tracked", "has another command line since")
    sysgenctl("unit", "--track", UNIT)
    check("since" not in sysgenctl("unit", UNIT).out, "it is missed")
    check_has(read(DROP_IN), "KillMode=mixed", "DeviceAllow=/dev/sysgenid rw")
    sysgenctl("unit", "--remove", UNIT)
    check(not os.path.exists(os.path.dirname(DROP_IN)), "there is a drop-in")
    check_has(show("ExecStart"), "path=/bin/sleep")
    check_equal(show("KillMode"), "control-group", "the mode")


run_tests(
    [
        an_overseer_waits_until_it_is_ready_again,
        who_never_gets_ready_holds_the_overseer,
        changes_in_a_row_are_one,
        a_signal_will_do,
        who_says_nothing_is_up_after_a_moment,
        its_status_is_the_programs,
        signals_are_passed_on,
        who_is_killed_takes_the_program_along,
        no_descriptor_is_handed_down,
        a_service_takes_part,
        what_the_unit_says_now_is_missed,
    ]
)
