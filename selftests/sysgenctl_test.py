#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Tests sysgenctl, and what its manual pages say. Prints TAP.

    sysgenctl_test.py sysgenid.ko

Wants to be root, a guest in which nobody else uses the module, and the manual
pages in /usr/share/man. The module is loaded anew now and then.
"""

import contextlib
import ctypes
import datetime
import fcntl
import glob
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from sysgenctl_common import (
    NODE,
    Background,
    Failed,
    Watcher,
    become_nobody,
    check,
    check_equal,
    check_has,
    make_hook,
    read,
    rows_of,
    run_tests,
    sysgenctl,
    until,
)

MODULE = sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: sysgenctl_test.py sysgenid.ko")
PAGES = sorted(glob.glob("/usr/share/man/man8/sysgenctl*.8"))
HOOKS = "/tmp/hooks"
STATE = "/tmp/state"
SNAPSHOT = ("--hooks-dir", HOOKS, "--state", STATE)
# Those that open the node.
VERBS = (
    ("status",),
    ("watch",),
    ("exec", "true"),
    ("wait",),
    ("settle",),
    ("trigger",),
    ("snapshot-hooks", "pre"),
)

# The keys that were seen in JSON, by verb.
seen_keys = {}


def keys_of(value):
    """All keys in there, without those of what another page documents."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    inner = [keys_of(item) for key, item in value.items() if key != "waited"]
    return set(value).union(*inner)


def json_of(verb, *arguments, **options):
    """What it prints as JSON. The keys are kept for when they are compared with the manual."""
    value = sysgenctl(verb, "--json", *arguments, **options).json()
    seen_keys.setdefault(verb, set()).update(keys_of(value))
    return value


def generation():
    """The generation."""
    return json_of("status")["generation"]


def reload():
    """Loads the module anew."""
    subprocess.run(["rmmod", "sysgenid"], check=True)
    subprocess.run(["insmod", MODULE], check=True)


# status


def never_changed():
    """A generation that has never changed."""
    reload()
    status = json_of("status")
    check_equal(status["generation"], 0, "the generation")
    check_equal(status["epoch"], 0, "the epoch")
    check_equal(status["source"], "none", "the source")
    check_equal(status["reseeded"], True, "reseeded")
    check_equal((status["changed_at"], status["changed_at_unknown"]), (None, None))
    check_equal(status["pending"], False, "pending")
    check_equal(status["vmgenid"], "readable", "vmgenid")
    check_equal(status["watchers"], [], "the watchers")
    check_has(sysgenctl("status").out, "changed       never, since the driver was loaded\n")


def says_when_it_changed():
    """The time of the last change, to about a second."""
    sysgenctl("trigger")
    before = time.time()
    sysgenctl("trigger")
    after = time.time()
    time.sleep(2.5)
    status = json_of("status")
    check_equal(status["source"], "ioctl", "the source")
    changed = datetime.datetime.fromisoformat(status["changed_at"]).timestamp()
    check(before - 2 <= changed <= after + 1, f"{changed}, not in {before} to {after}")
    check(status["changed_at_unknown"] is None, "that is known")


def says_that_the_log_cannot_be_read():
    """An ordinary user where the kernel's log is root's."""
    with open("/proc/sys/kernel/dmesg_restrict", "w", encoding="utf-8") as restrict:
        restrict.write("1")
    sysgenctl("trigger")
    status = json_of("status", nobody=True)
    check_equal(status["changed_at"], None, "the time")
    check_has(status["changed_at_unknown"], "/dev/kmsg cannot be read", "not permitted")
    text = sysgenctl("status", nobody=True).out
    check_has(text, "changed       by ioctl, when is unknown: /dev/kmsg cannot be read")


def table_of_watchers():
    """Tracked, outdated, and neither."""
    with Watcher(tracked=True) as first, Watcher() as second, Watcher(tracked=True) as third:
        old = generation()
        sysgenctl("trigger")
        first.ack()
        status = json_of("status")
        found = [row for row in status["watchers"] if row["pid"] == os.getpid()]
        command = found[0]["command"]
        check_has(command, "sysgenctl_test.py")
        columns = [(first, True, False), (second, False, True), (third, True, True)]
        expected = [
            {
                "pid": os.getpid(),
                "fd": watcher.fd,
                "tracked": tracked,
                "acked": old if outdated else old + 1,
                "outdated": outdated,
                "command": command,
            }
            for watcher, tracked, outdated in columns
        ]
        check_equal(found, expected, "the table")
        check_equal((status["tracked_watchers"], status["outdated_watchers"]), (2, 1))
        check_equal((status["unseen_watchers"], status["unreadable_processes"]), (0, 0))
        lines = sysgenctl("status").out.splitlines()
        check("tracked       2, 1 outdated" in lines, lines)
        row = rf"{os.getpid()} +{third.fd} +yes +{old} +yes +.*sysgenctl_test.py"
        check(any(re.match(row, line) for line in lines), lines)
    check_equal(rows_of(os.getpid()), [], "the watchers, when they are closed")


def root_sees_the_watchers_of_others():
    """A watcher of an ordinary user."""
    with Background("watch", "--track", nobody=True) as watcher:
        check_equal(watcher.row()["tracked"], True, "tracked")
        check_equal(json_of("status")["unseen_watchers"], 0, "the number of those not seen")


def others_see_how_many_they_do_not_see():
    """An ordinary user sees that there is a watcher, and not whose."""
    with Watcher(tracked=True), Background("watch", "--track", nobody=True) as own:
        status = json_of("status", nobody=True)
        check_equal([row["pid"] for row in status["watchers"]], [own.process.pid])
        check_equal(status["tracked_watchers"], 2, "the number of tracked watchers")
        check_equal(status["unseen_watchers"], 1, "the number of those not seen")
        check(status["unreadable_processes"] > 0, "some processes cannot be looked at")
        check_equal(status["vmgenid"], "forbidden", "vmgenid")
        text = sysgenctl("status", nobody=True).out
        check_has(text, "not shown: 1 tracked watcher, in ", "root sees them", "not readable by")


def says_that_there_is_no_id():
    """No /dev/vmgenid."""
    os.rename("/dev/vmgenid", "/dev/elsewhere")
    try:
        check_equal(json_of("status")["vmgenid"], "absent", "vmgenid")
        check_has(sysgenctl("status").out, "/dev/vmgenid  absent: only the generation")
    finally:
        os.rename("/dev/elsewhere", "/dev/vmgenid")


def on_a_terminal(*arguments, columns):
    """What it prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    environment = dict(os.environ, TERM="xterm")
    command = ["sysgenctl", *arguments]
    subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        pass  # That is how a terminal says that nobody is left at the other end.
    os.close(ours)
    return text.decode()


def colours_are_for_terminals():
    """And so is the width of the table."""
    with Watcher(tracked=True):
        sysgenctl("trigger")
        plain = sysgenctl("status").out
        check("\x1b" not in plain, f"colours: {plain!r}")
        coloured = on_a_terminal("status", columns=60)
        check_has(coloured, "\x1b[")
        table = re.sub(r"\x1b\[[0-9;]*m", "", coloured).split("PID ")[1]
        row = table.splitlines()[1]
        check_equal(len(row), 60, f"the width of {row!r}")
        check(row.endswith("…"), row)
        check("\x1b" not in on_a_terminal("status", "--json", columns=60), "colours in JSON")


# wait and trigger


def nobody_to_wait_for():
    """An outdated watcher that is not tracked is not waited for."""
    with Watcher():
        sysgenctl("trigger")
        check_equal(json_of("wait", "--timeout", "30s")["all_acked"], True)
        check_has(sysgenctl("wait").out, "no tracked watcher is outdated, of 0")


def time_over_names_who_is_left():
    """The exit status is 3."""
    with Watcher(tracked=True) as left, Watcher(tracked=True) as acked:
        sysgenctl("trigger")
        acked.ack()
        start = time.monotonic()
        waited = json_of("wait", "--timeout", "1s 500ms", status=3)
        check(time.monotonic() - start >= 1.5, "it has not waited")
        check_equal(waited["all_acked"], False, "all_acked")
        check_equal([row["fd"] for row in waited["watchers"]], [left.fd], "who is left")
        check_equal((waited["tracked_watchers"], waited["outdated_watchers"]), (2, 1))
        ended = sysgenctl("wait", "--timeout", "10ms", status=3)
        check_has(ended.out, "sysgenctl_test.py", f"{os.getpid()} ")
        check_has(ended.err, "sysgenctl: after 10ms not all ", "1 of 2 are outdated")
        hidden = json_of("wait", "--timeout", "10ms", status=3, nobody=True)
        check_equal((hidden["watchers"], hidden["unseen_watchers"]), ([], 1))


def an_ack_ends_the_wait():
    """Without a timeout."""
    with Watcher(tracked=True) as watcher:
        sysgenctl("trigger")
        with subprocess.Popen(["sysgenctl", "wait"], stdout=subprocess.DEVNULL) as waiting:
            time.sleep(1)
            check(waiting.poll() is None, "it has not waited")
            watcher.ack()
            check_equal(waiting.wait(timeout=60), 0, "the exit status")


def nothing_to_settle():
    """This machine is no clone, and it takes no privilege to say so."""
    settled = {"generation": generation(), "pending": False, "reseeded": True}
    check_equal(json_of("settle", "--timeout", "30s"), settled, "settled")
    ended = sysgenctl("settle", nobody=True)
    check_equal(ended.out, f"generation {generation()}, no change is due\n", "what it printed")


def trigger_changes():
    """By one, or to more."""
    old = generation()
    check_equal(json_of("trigger"), {"generation": old + 1, "waited": None})
    check_equal(sysgenctl("trigger", "--min", str(old + 50)).out, f"generation {old + 50}\n")
    check_equal(json_of("trigger", "--min", "7")["generation"], old + 51, "the generation")
    sysgenctl("trigger", "--min", "4294967296", status=2)
    check_equal(generation(), old + 51, "the generation after a wrong one")


def trigger_takes_entropy():
    """Of a file, or of standard input; as much as nobody guesses, and no more than is meant."""
    old = generation()
    with open("/tmp/entropy", "wb") as file:
        file.write(os.urandom(100))
    check_equal(json_of("trigger", "--entropy", "/tmp/entropy")["generation"], old + 1, "of a file")
    with open("/tmp/entropy", "rb") as file:
        ended = subprocess.run(["sysgenctl", "trigger", "--entropy", "-"], check=False, stdin=file)
    check_equal(ended.returncode, 0, "of standard input: the exit status")
    check_equal(generation(), old + 2, "of standard input")
    for name, said in ("/dev/null", "fewer"), ("/dev/zero", "more"), ("/no/such", "cannot open"):
        check_has(sysgenctl("trigger", "--entropy", name, status=1).err, said)
    check_equal(generation(), old + 2, "the generation after a wrong one")


def trigger_waits():
    """And says who is left."""
    with Watcher(tracked=True) as watcher:
        waited = json_of("trigger", "--wait", "--timeout", "200ms", status=3)["waited"]
        check_equal([row["fd"] for row in waited["watchers"]], [watcher.fd], "who is left")
    check_equal(json_of("trigger", "--wait")["waited"]["all_acked"], True, "all_acked")


def trigger_takes_a_privilege():
    """The exit status is 5."""
    old = generation()
    ended = sysgenctl("trigger", status=5, nobody=True)
    check_has(ended.err, "CAP_CHECKPOINT_RESTORE", "root")
    check_equal(ended.out, "", "what it printed")
    check_equal(generation(), old, "the generation")


def wrong_command_lines():
    """The exit status is 2."""
    ended = sysgenctl("wait", "--timeout", "30", status=2)
    check_has(ended.err, "say the unit, as in 30s")
    check_has(sysgenctl("trigger", "--timeout", "1s", status=2).err, "--wait")
    check_has(sysgenctl("snapshot-hooks", "pre", "--timeout", "1s", status=2).err, "is for post")
    sysgenctl(status=2)


# watch


def a_line_for_each_change():
    """Acked once it is printed."""
    with Background("watch") as watch:
        old = generation()
        for number in 1, 2:
            sysgenctl("trigger")
            until("a line", lambda n=number: watch.said().count("\n") == n)
        lines = [line.split(" ", 1) for line in watch.said().splitlines()]
        expected = [f"generation {old + n} -> {old + n + 1}, source ioctl, reseeded" for n in (0, 1)]
        check_equal([line[1] for line in lines], expected, "the lines")
        for line in lines:
            check(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", line[0]), line)
        until("the ack", lambda: not watch.row()["outdated"])
        check_equal(watch.row()["tracked"], False, "tracked")


def the_command_acks_by_succeeding():
    """With the old and the new generation in its environment."""
    script = 'echo "$SYSGENID_OLD $SYSGENID_NEW"; sleep 1'
    with Background("watch", "--once", "--track", "--exec", "sh", "-c", script) as watch:
        old = generation()
        check_equal(watch.row()["tracked"], True, "tracked")
        sysgenctl("trigger")
        until("the command", lambda: f"\n{old} {old + 1}\n" in watch.said())
        check_equal(watch.row()["outdated"], True, "outdated, while the command runs")
        check_equal(watch.process.wait(timeout=60), 0, "the exit status")


def a_failed_command_leaves_it_outdated():
    """Until it succeeds for a later change. The old generation is the one that was acked last."""
    script = 'echo "$SYSGENID_OLD $SYSGENID_NEW"; test -e /tmp/mended'
    with Background("watch", "--track", "--exec", "sh", "-c", script) as watch:
        old = generation()
        sysgenctl("trigger")
        until("the failure", lambda: "stays outdated" in watch.said())
        check_has(watch.said(), f"\n{old} {old + 1}\n", "failed for generation", "exit status 1")
        check_equal((watch.row()["outdated"], watch.row()["acked"]), (True, old))
        # It does not run again by itself.
        time.sleep(1.5)
        check_equal(watch.said().count("stays outdated"), 1, "how often it has failed")
        with open("/tmp/mended", "w", encoding="utf-8"):
            sysgenctl("trigger", "--wait", "--timeout", "60s")
        check_has(watch.said(), f"\n{old} {old + 2}\n")
        check_equal(watch.row()["acked"], old + 2, "the generation that it has acked")


def a_failed_command_is_the_exit_status():
    """It is 6, with --once; a command that is not there has failed, too."""
    for command, why in ("false", "exit status 1"), ("/no/such", "cannot be started: No such"):
        with Background("watch", "--once", "--exec", command) as watch:
            sysgenctl("trigger")
            check_equal(watch.process.wait(timeout=60), 6, "the exit status")
            check_has(watch.said(), f"the command {command} failed for generation ", why)


def a_change_during_the_command_runs_it_again():
    """What it did may be outdated."""
    script = "sleep 1; echo ran for $SYSGENID_NEW"
    with Background("watch", "--track", "--once", "--exec", "sh", "-c", script) as watch:
        old = generation()
        sysgenctl("trigger")
        until("the command", lambda: "->" in watch.said())
        sysgenctl("trigger")
        check_equal(watch.process.wait(timeout=60), 0, "the exit status")
        check_has(watch.said(), f"ran for {old + 1}\n", f"ran for {old + 2}\n")


def watch_in_json():
    """A line for each event, and nothing of the command between them."""
    with Background("watch", "--json", "--exec", "sh", "-c", "exit $((SYSGENID_NEW % 2))") as watch:
        old = generation()
        for number in 2, 4:
            sysgenctl("trigger")
            until("two lines", lambda n=number: watch.said().count('"event"') == n)
        lines = [line for line in watch.said().splitlines() if not line.startswith("sysgenctl: ")]
        events = [json.loads(line) for line in lines]
    seen_keys["watch"] = set().union(*map(keys_of, events))
    kinds = [event["event"] for event in events]
    check_equal(kinds, ["change", "command"] * 2, "the events")
    for event in events[1::2]:
        failed = event["generation"] % 2
        check_equal((event["status"], event["acked"]), (failed, not failed), "status and acked")
    check_equal((events[2]["old"], events[2]["new"]), (old + 1, old + 2))


def the_commands_output_is_not_among_the_json():
    """It goes to standard error."""
    command = ["sysgenctl", "watch", "--json", "--once", "--exec", "echo", "spoken"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as watch:
        until("a watcher", lambda: rows_of(watch.pid))
        sysgenctl("trigger")
        out, err = watch.communicate(timeout=60)
    check_equal(err, "spoken\n", "standard error")
    check_equal(out.count("spoken"), 0, "how often the command is on standard output")


def a_closed_pipe_is_no_mishap():
    """Whoever reads it may have seen enough."""
    command = ["sysgenctl", "watch"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as watch:
        until("a watcher", lambda: rows_of(watch.pid))
        watch.stdout.close()
        sysgenctl("trigger")
        watch.wait(timeout=60)
        check_equal(watch.stderr.read(), "", "standard error")


# snapshot-hooks


def with_hooks(pre, post, thaw=None):
    """Makes hooks that log what they see and then do that."""
    shutil.rmtree(HOOKS, ignore_errors=True)
    for path in STATE, "/tmp/log":
        if os.path.exists(path):
            os.remove(path)
    for directory, hooks in ("pre.d", pre), ("thaw.d", thaw or {}), ("post.d", post):
        os.makedirs(os.path.join(HOOKS, directory))
        for name, then in hooks.items():
            environment = '"$SYSGENID_PHASE" "$SYSGENID" "$SYSGENID_BEFORE"'
            script = f"echo {name} {environment} >>/tmp/log\necho {name} speaks\n{then}"
            make_hook(os.path.join(HOOKS, directory), name, script)


def logged():
    """The names and the phases of the hooks that were run."""
    return [line.split()[:2] for line in read("/tmp/log").splitlines()] if os.path.exists("/tmp/log") else []


def hooks_run_in_order():
    """With what they need to know; what is no hook is named. Back, in the reverse order."""
    with_hooks({"20-b.sh": "", "10-a": ""}, {"80-y": "", "90-z": ""}, {"50-x": ""})
    make_hook(f"{HOOKS}/pre.d", "README", "", mode=0o644)
    ended = sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    for line in (
        "  10-a     ok in ",
        "  README   not run: it is not executable\n",
        "quiesced by 2 hooks\n",
        "    10-a speaks\n",
    ):
        check_has(ended.out, line)
    now = generation()
    check_equal(read("/tmp/log"), f"10-a pre {now} \n20-b.sh pre {now} \n", "the log")
    check_equal(read(STATE), f"{now}\n", "the note")
    ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT)
    check_has(ended.out, "as before the snapshot: this is no clone\n", "  90-z  ok in ", "3 hooks\n")
    expected = f"50-x thaw {now} {now}\n90-z post {now} {now}\n80-y post {now} {now}\n"
    check_has(read("/tmp/log"), expected)
    check(not os.path.exists(STATE), "the note is still there")


def what_would_not_run_is_found_before():
    """Somebody relies on it, so that there is no snapshot; post runs all others."""
    def leftover():
        make_hook(f"{HOOKS}/post.d", "30-c.dpkg-old", "")

    def writable():
        os.chmod(f"{HOOKS}/pre.d/10-a", 0o757)

    def of_somebody():
        os.chown(f"{HOOKS}/thaw.d/50-x", 65534, 0)

    def in_somebodys_directory():
        os.chmod(f"{HOOKS}/post.d", 0o777)

    for spoil, why in (
        (leftover, "post.d/30-c.dpkg-old would not be run: it is executable, and by its name a leftover"),
        (writable, "pre.d/10-a would not be run: others than its owner can write it (mode 0757)"),
        (of_somebody, "thaw.d/50-x would not be run: it belongs to the user with the number 65534"),
        (in_somebodys_directory, "post.d is run: others than its owner can write it (mode 0777)"),
    ):
        with_hooks({"10-a": ""}, {"90-z": ""}, {"50-x": ""})
        spoil()
        check_has(sysgenctl("snapshot-hooks", "pre", *SNAPSHOT, status=1).err, why)
        check_equal((logged(), os.path.exists(STATE)), ([], False), "what was done")
    with_hooks({}, {"80-y": "", "90-z": ""})
    leftover()
    ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT, status=6)
    check_has(ended.err, "the hook 30-c.dpkg-old failed: all others were run")
    check_equal(logged(), [["90-z", "post"], ["80-y", "post"]], "the log")
    missing = ("--hooks-dir", "/no/such", "--state", STATE)
    for phase in "pre", "post":
        ended = sysgenctl("snapshot-hooks", phase, *missing, status=1)
        check_has(ended.err, "there is no directory /no/such: no hook was run")


def hooks_in_json():
    """With what they print."""
    with_hooks({"10-a": "", "b": "exit 3"}, {"90-z": ""}, {"50-x": ""})
    make_hook(f"{HOOKS}/pre.d", "README", "", mode=0o644)
    done = json_of("snapshot-hooks", "pre", *SNAPSHOT, status=6)
    check_equal([hook["name"] for hook in done["hooks"]], ["10-a", "README", "b"], "the hooks")
    check_equal(done["hooks"][0]["output"], "10-a speaks\n", "what it says")
    check_equal(done["hooks"][1]["skipped"], "it is not executable", "README")
    check_equal((done["hooks"][2]["status"], done["hooks"][2]["succeeded"]), (3, False))
    check_equal([hook["name"] for hook in done["undone"]], ["50-x", "90-z"], "what was undone")
    with_hooks({}, {"90-z": ""}, {"50-x": ""})
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    old = generation()
    new = sysgenctl("trigger", "--json").json()["generation"]
    done = json_of("snapshot-hooks", "post", *SNAPSHOT)
    check_equal((done["generation_before"], done["generation"]), (old, new), "generations")
    check_equal([hook["name"] for hook in done["early"]], ["50-x"], "what came early")
    waited = {key: done["waited"][key] for key in ("all_acked", "watchers", "unreadable_processes")}
    check_equal(waited, {"all_acked": True, "watchers": [], "unreadable_processes": 0}, "waited")


def a_failed_pre_thaws():
    """All of thaw.d and post.d, whichever fails, in the phase undo."""
    with_hooks({"1": "", "2": "exit 9", "3": ""}, {"a": "", "b": "exit 1"}, {"x": ""})
    ended = sysgenctl("snapshot-hooks", "pre", *SNAPSHOT, status=6)
    check_has(ended.out, "failed after ", "exit status 9", "thawing again\n")
    check_has(ended.err, "take no snapshot: the hook 2 failed; thawing again, so did: b")
    now = generation()
    expected = f"1 pre {now} \n2 pre {now} \nx undo {now} \nb undo {now} \na undo {now} \n"
    check_equal(read("/tmp/log"), expected, "the log")
    check(not os.path.exists(STATE), "the note is still there")


def a_failed_post_thaws_what_it_can():
    """And can be called again."""
    with_hooks({"1": ""}, {"a": "", "b": "exit 1", "c": ""})
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT, status=6)
    check_has(ended.err, "the hook b failed: all others were run")
    check_equal([name for name, _ in logged()], ["1", "c", "b", "a"], "the log")
    check(not os.path.exists(STATE), "the note is still there")
    make_hook(f"{HOOKS}/post.d", "b", "")
    check_has(sysgenctl("snapshot-hooks", "post", *SNAPSHOT).out, "thawed by 3 hooks")
    # A directory whose hooks may not be run is as one that fails.
    with_hooks({"1": ""}, {"a": ""}, {"x": ""})
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    for name in "pre.d", "post.d":
        os.chmod(f"{HOOKS}/{name}", 0o777)
    ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT, status=6)
    check_has(ended.err, "the hook post.d failed")
    check_has(ended.out, "post.d  not run: no hook of ", "others than its owner can write it")
    check_equal(logged(), [["1", "pre"], ["x", "thaw"]], "the log")


def what_is_noted_by_others_keeps_nobody_from_thawing():
    """It is said, and no more."""
    with_hooks({}, {"a": ""})
    for make in (lambda: make_hook("/tmp", os.path.basename(STATE), "odd"), lambda: os.mkdir(STATE)):
        make()
        status = 1 if os.path.isdir(STATE) else 0
        ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT, status=status)
        check_has(ended.out, f"what {STATE} notes is not heeded: ")
        check_equal(logged()[-1], ["a", "post"], "the log")
        if os.path.isdir(STATE):
            check_has(ended.err, f"cannot remove {STATE}: ")
            os.rmdir(STATE)
    check_equal(len(logged()), 2, "how often it was run")


def standard_output_stops_nothing():
    """Whether nobody reads it, nothing can be written, or the file system is frozen."""
    with_hooks({"1": "", "2": "exit 9"}, {"a": ""})
    command = ["sysgenctl", "snapshot-hooks", "pre", *SNAPSHOT]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    check_equal(ended.returncode, 6, "the exit status with a full disk")
    check_has(ended.stderr, "cannot tell what was done", "take no snapshot")
    check_equal([name for name, _ in logged()], ["1", "2", "a"], "the log")
    with_hooks({"1": "", "2": ""}, {"a": ""})
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(command, stdout=closed, stderr=subprocess.DEVNULL, check=False)
    check_equal(ended.returncode, 0, "the exit status with a closed pipe")
    with open("/dev/full", "wb") as full:
        command[2] = "post"
        ended = subprocess.run(command, stdout=full, stderr=full, check=False)
    check_equal(ended.returncode, 0, "the exit status with nothing to say it to")
    check_equal([name for name, _ in logged()], ["1", "2", "a"], "the log")
    # Nobody can write to a file in a frozen file system, and who tries cannot even be ended.
    os.makedirs("/tmp/stuck", exist_ok=True)
    make_hook("/tmp/stuck", "cat", "echo $$ >/tmp/stuck.pid; exec sleep 1000")
    command[2] = "pre"
    with open("/tmp/report", "w+", encoding="utf-8") as report:
        stuck = {**os.environ, "PATH": f"/tmp/stuck:{os.environ['PATH']}"}
        ended = subprocess.run(command, stdout=report, timeout=60, env=stuck, check=False)
        check_equal((ended.returncode, read("/tmp/report")), (0, ""), "what is told")
        os.kill(int(read("/tmp/stuck.pid")), signal.SIGKILL)
        os.remove(STATE)
        subprocess.run(command, stdout=report, timeout=60, check=True)
        check_has(read("/tmp/report"), "quiesced by 2 hooks\n")
        os.remove(STATE)
        # A signal that comes meanwhile is from somebody who thinks that nothing is quiesced.
        os.remove("/tmp/stuck.pid")
        with subprocess.Popen(command, stdout=report, stderr=subprocess.PIPE, env=stuck) as running:
            until("who writes", lambda: read("/tmp/stuck.pid").strip())
            running.send_signal(signal.SIGTERM)
            _, err = running.communicate(timeout=60)
        check_equal(running.returncode, 9, "the exit status")
        check_has(err.decode(), "take no snapshot: signal 15", "the system was thawed again")
        check_equal(logged()[-1], ["a", "undo"], "the log")
    shutil.rmtree("/tmp/stuck")
    # Whoever reads what it says only when it has ended.
    with_hooks({"1": "yes | head -c 60000", "2": "yes | head -c 60000"}, {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        check_equal(running.wait(timeout=60), 0, "the exit status")
        check_has(running.stdout.read(), "quiesced by 2 hooks\n")


def a_signal_undoes_all():
    """The hook that runs is ended, with what it has started."""
    for signal_number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        with_hooks({"1": "", "2": "sleep 1000 & echo $! >/tmp/pid; sleep 1000"}, {"a": ""})
        with subprocess.Popen(
            ["sysgenctl", "snapshot-hooks", "pre", *SNAPSHOT],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            until("the hook", lambda: os.path.exists("/tmp/pid") and read("/tmp/pid").strip())
            running.send_signal(signal_number)
            _, err = running.communicate(timeout=60)
        check_equal(running.returncode, 9, "the exit status")
        number = int(signal_number)
        check_has(err, f"take no snapshot: signal {number} has come; the system was thawed again")
        check_equal(logged(), [["1", "pre"], ["2", "pre"], ["a", "undo"]], "the log")
        check(not os.path.exists(f"/proc/{read('/tmp/pid').strip()}"), "something of the hook lives on")
        os.remove("/tmp/pid")


def a_hook_has_a_limit():
    """As long as it takes itself, or with all others."""
    for option in "--hook-timeout", "--hooks-timeout":
        with_hooks({"1": "sleep 1000"}, {"a": ""})
        ended = sysgenctl("snapshot-hooks", "pre", option, "1s", *SNAPSHOT, status=6)
        check_has(ended.out, "1  failed after ", "not done after 1s, and made to end\n")
        check_equal(logged(), [["1", "pre"], ["a", "undo"]], "the log")
    # One that thaws is run, whatever the others have taken.
    with_hooks({"1": "exit 1"}, {"a": "echo late >>/tmp/log"}, {"x": "sleep 2", "y": "sleep 2"})
    sysgenctl("snapshot-hooks", "pre", "--hooks-timeout", "1s", *SNAPSHOT, status=6)
    ran = [["1", "pre"], ["y", "undo"], ["x", "undo"], ["a", "undo"], ["late"]]
    check_equal(logged(), ran, "the log")


def one_run_at_a_time():
    """The second one says who is at it."""
    with_hooks({"1": "sleep 1000"}, {})
    with subprocess.Popen(["sysgenctl", "snapshot-hooks", "pre", *SNAPSHOT]) as running:
        until("the hook", lambda: logged() == [["1", "pre"]])
        for phase in "pre", "post":
            ended = sysgenctl("snapshot-hooks", phase, *SNAPSHOT, status=1)
            check_has(ended.err, f"is running (process {running.pid}): it holds {STATE}.lock")
        running.send_signal(signal.SIGTERM)
        check_equal(running.wait(timeout=60), 9, "the exit status")
    # Nobody else can hold it.
    check_equal(os.stat(f"{STATE}.lock").st_mode & 0o777, 0o600, "the mode of the lock")


def what_is_quiesced_stays_so():
    """Nobody thaws it but post: not another one's pre that fails."""
    with_hooks({"1": ""}, {"a": ""})
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    make_hook(f"{HOOKS}/pre.d", "1", "exit 1")
    ended = sysgenctl("snapshot-hooks", "pre", *SNAPSHOT, status=1)
    check_has(ended.err, f"the system is quiesced already, as {STATE} notes")
    check_equal(logged(), [["1", "pre"]], "the log")
    sysgenctl("snapshot-hooks", "post", *SNAPSHOT)
    make_hook(f"{HOOKS}/pre.d", "1", "")
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)


def what_was_looked_at_is_run():
    """Wherever a link leads then that somebody else can turn."""
    with_hooks({"1": "ln -sfn /tmp/theirs /tmp/app/current"}, {"a": ""})
    for name in "ours", "theirs":
        make_hook(f"/tmp/{name}", "hook", f"echo {name} >>/tmp/log")
    os.makedirs("/tmp/app")
    os.symlink("/tmp/ours", "/tmp/app/current")
    os.chown("/tmp/app", 65534, 65534)
    os.symlink("/tmp/app/current/hook", f"{HOOKS}/pre.d/2")
    sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
    check_equal(os.readlink("/tmp/app/current"), "/tmp/theirs", "the link")
    check_equal(logged()[1:], [["ours"]], "the log")
    for name in "ours", "theirs", "app":
        shutil.rmtree(f"/tmp/{name}")


def post_waits_for_watchers():
    """The system stays quiesced while one is outdated, but for what programs need."""
    with_hooks({}, {"a": ""}, {"x": ""})
    with Watcher(tracked=True) as watcher:
        sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
        sysgenctl("trigger")
        ended = sysgenctl("snapshot-hooks", "post", "--timeout", "1s", *SNAPSHOT, status=3)
        check_has(ended.err, "after 1s ", "; no hook of post.d was run, and the system stays quiesced")
        check_has(ended.out, "sysgenctl_test.py", " -> ", "source ioctl")
        check_equal(logged(), [["x", "thaw"]], "the log")
        options = ("--timeout", "1s", "--on-timeout", "thaw")
        ended = sysgenctl("snapshot-hooks", "post", *options, *SNAPSHOT, status=3)
        check_has(ended.err, "the system was thawed all the same, as --on-timeout says")
        check_equal(logged(), [["x", "thaw"], ["x", "thaw"], ["a", "post"]], "the log")
        watcher.ack()
        sysgenctl("snapshot-hooks", "post", "--timeout", "60s", *SNAPSHOT)
        check_equal(logged()[-2:], [["x", "thaw"], ["a", "post"]], "the log")


def post_gives_programs_what_they_need():
    """A watcher that can acknowledge only when a hook has thawed something."""
    acks = 'until [ -e /tmp/thawed ]; do sleep 0.1; done; sleep 0.2'
    with_hooks({}, {"a": ""}, {"x": "touch /tmp/thawed"})
    with Background("watch", "--track", "--exec", "sh", "-c", acks):
        sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
        sysgenctl("trigger")
        sysgenctl("snapshot-hooks", "post", "--timeout", "60s", *SNAPSHOT)
        check_equal(logged(), [["x", "thaw"], ["a", "post"]], "the log")
    os.remove("/tmp/thawed")


def become_blind():
    """Makes this process one that cannot look into those of others, when it runs a program."""
    pr_capbset_drop, cap_sys_ptrace = 24, 19
    if ctypes.CDLL(None, use_errno=True).prctl(pr_capbset_drop, cap_sys_ptrace, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def post_can_leave_out_the_unprivileged():
    """Anybody can track and never acknowledge."""
    with_hooks({}, {"a": ""})
    privileged = ("--timeout", "1s", "--privileged-only")
    with Background("watch", "--track", "--exec", "false", nobody=True) as watch:
        sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
        sysgenctl("trigger")
        until("the failure", lambda: "stays outdated" in watch.said())
        sysgenctl("snapshot-hooks", "post", "--timeout", "1s", *SNAPSHOT, status=3)
        named = (*privileged, "--user", "nobody")
        sysgenctl("snapshot-hooks", "post", *named, *SNAPSHOT, status=3)
        ended = sysgenctl("snapshot-hooks", "post", *privileged, *SNAPSHOT)
        check_has(ended.out, "no tracked watcher is outdated that is waited for; of others, 1 are")
        check_equal(logged(), [["a", "post"]], "the log")
        with Watcher(tracked=True):
            sysgenctl("trigger")
            sysgenctl("snapshot-hooks", "post", *privileged, *SNAPSHOT, status=3)
    # What cannot be looked at could be root's.
    with_hooks({}, {"a": ""})
    with Background("watch", "--track", "--exec", "false", nobody=True) as watch:
        sysgenctl("trigger")
        until("the failure", lambda: "stays outdated" in watch.said())
        command = ["sysgenctl", "snapshot-hooks", "post", *privileged, *SNAPSHOT]
        ended = subprocess.run(command, check=False, preexec_fn=become_blind)
        check_equal(ended.returncode, 3, "the exit status")
    wrong = (*privileged, "--user", "no-such-user")
    ended = sysgenctl("snapshot-hooks", "post", *wrong, *SNAPSHOT, status=1)
    check_has(ended.err, "there is no user no-such-user")
    sysgenctl("snapshot-hooks", "post", "--user", "nobody", *SNAPSHOT, status=2)
    for option in ("--privileged-only",), ("--on-timeout", "stay"):
        sysgenctl("snapshot-hooks", "pre", *option, *SNAPSHOT, status=2)


# What follows a change


class Systemd:
    """In the place of the real one, which another guest has: as much of it as is asked."""

    PLACE = "/tmp/systemd"
    PROGRAM = """
! [ -e {PLACE}/broken ] || { echo "no answer" >&2; exit 1; }
case "$*" in
*--property=Wants*) cat {PLACE}/wants ;;
"is-active -- sysgenid-changed.path") cat {PLACE}/path ;;
is-active*) cat {PLACE}/run ;;
*list-unit-files*) cat {PLACE}/files ;;
show*) cat {PLACE}/units ;;
*) exit 1 ;;
esac""".replace("{PLACE}", PLACE)

    def __enter__(self):
        os.makedirs("/run/systemd/system")
        os.makedirs(self.PLACE)
        make_hook("/usr/local/bin", "systemctl", self.PROGRAM)
        self.says(wants="a.service b.service", path="active")
        self.runs("inactive")
        self.says(files="sysgenid-changed.path static -\nsysgenid-dhcp.service disabled -")
        self.units(a="inactive success", b="inactive success")
        return self

    def __exit__(self, *_):
        os.remove("/usr/local/bin/systemctl")
        shutil.rmtree(self.PLACE)
        shutil.rmtree("/run/systemd")
        shutil.rmtree("/run/sysgenid", ignore_errors=True)

    def says(self, **words):
        """That is what it is to answer."""
        for name, word in words.items():
            with open(f"{self.PLACE}/{name}", "w", encoding="utf-8") as file:
                file.write(f"{word}\n")

    def runs(self, state):
        """What has been started for a change, and the target."""
        self.says(run=f"{state}\ninactive")

    def units(self, **states):
        """The states and results of units."""
        blocks = []
        for name, state in states.items():
            active, result = state.split()
            blocks.append(
                f"Result={result}\nId={name}.service\nLoadState=loaded\n"
                f"ActiveState={active}\nConditionResult=yes\nAssertResult=yes\n"
                "ConditionTimestampMonotonic=7\n"
            )
        self.says(units="\n".join(blocks))

    def serves(self):
        """The last change."""
        epoch = json_of("status")["epoch"]
        os.makedirs("/run/sysgenid", exist_ok=True)
        with open("/run/sysgenid/served", "w", encoding="utf-8") as file:
            file.write(f"{os.stat('/sys/class/misc/sysgenid').st_ino} {epoch} 0\n")


def what_follows_a_change_is_waited_for():
    """From the change on until it has ended."""
    with Systemd() as systemd:
        ended = sysgenctl("trigger", "--wait", "--timeout", "1s", status=3)
        check_has(ended.err, "has not ended: sysgenid-changed.service has not begun it")
        with subprocess.Popen(["sysgenctl", "wait"], stdout=subprocess.PIPE, text=True) as waiting:
            for change in (
                # Whoever is asked to look has not done so.
                lambda: None,
                lambda: (open("/run/sysgenid-changed", "wb").close(), systemd.serves()),
                lambda: (systemd.runs("activating"), os.remove("/run/sysgenid-changed")),
                # As when it is executed anew.
                lambda: systemd.says(broken=""),
                lambda: (
                    systemd.units(a="activating success"),
                    systemd.runs("inactive"),
                    os.remove(f"{systemd.PLACE}/broken"),
                ),
            ):
                change()
                time.sleep(1)
                check_equal(waiting.poll(), None, "the exit status of who waits")
            systemd.units(a="inactive success", b="inactive exec-condition")
            out, _ = waiting.communicate(timeout=60)
            check_equal(waiting.returncode, 0, "the exit status")
            check_has(out, "a.service: done\n", "b.service: skipped (it says that it is not due)")
        # Whoever waits for units waits for the watchers of a change that comes meanwhile.
        sysgenctl("trigger")
        with Watcher(tracked=True) as watcher, subprocess.Popen(["sysgenctl", "wait"]) as waiting:
            sysgenctl("trigger")
            watcher.ack()
            time.sleep(1)
            sysgenctl("trigger")
            systemd.serves()
            time.sleep(1)
            check_equal(waiting.poll(), None, "the exit status of who waits")
            watcher.ack()
            check_equal(waiting.wait(timeout=60), 0, "the exit status")
        systemd.says(broken="")
        ended = sysgenctl("wait", "--timeout", "1s", status=3)
        check_has(ended.err, "systemd does not say how far", "exit status 1: no answer")
        os.remove(f"{systemd.PLACE}/broken")
        # Of another driver than the one that was served last, nothing has been served.
        reload()
        sysgenctl("wait")
        sysgenctl("trigger")
        sysgenctl("wait", "--timeout", "1s", status=3)


def a_unit_that_fails_is_named():
    """By whoever waits for it, and only if it is waited for."""
    with Systemd() as systemd:
        sysgenctl("trigger")
        systemd.serves()
        systemd.units(a="failed exit-code", b="inactive success")
        waited = json_of("wait", status=6)
        failed = {"name": "a.service", "result": "failed", "reason": "exit-code"}
        check_equal(waited["units"][0], failed, "the unit")
        check_has(sysgenctl("wait", status=6).err, "the change has failed: a.service; journalctl")
        check_equal(json_of("wait", "--no-units")["units"], None, "the units")
        # Nothing would ever begin.
        sysgenctl("trigger", "--wait", "--no-units")
        systemd.says(path="inactive")
        ended = sysgenctl("trigger", "--wait", status=6)
        check_has(ended.err, "does not begin, for sysgenid-changed.path is not active")
        systemd.says(wants="")
        check_has(sysgenctl("wait").out, "wants no unit: nothing follows a change by itself")


def post_waits_for_units():
    """They are done before others are served; one that fails keeps nobody frozen."""
    with Systemd() as systemd:
        with_hooks({}, {"a": ""}, {"x": ""})
        sysgenctl("snapshot-hooks", "pre", *SNAPSHOT)
        sysgenctl("trigger")
        ended = sysgenctl("snapshot-hooks", "post", "--timeout", "1s", *SNAPSHOT, status=3)
        check_has(ended.err, "what follows the change has not ended", "the system stays quiesced")
        check_equal(logged(), [["x", "thaw"]], "the log")
        options = ("--timeout", "1s", "--on-timeout", "thaw")
        sysgenctl("snapshot-hooks", "post", *options, *SNAPSHOT, status=3)
        check_equal(logged()[2:], [["a", "post"]], "the log")
        systemd.serves()
        systemd.units(a="failed timeout", b="inactive success")
        done = json_of("snapshot-hooks", "post", *SNAPSHOT, status=6)
        check_equal([unit["result"] for unit in done["units"]], ["failed", "done"], "the units")
        check_equal(logged()[3:], [["x", "thaw"], ["a", "post"]], "the log")
        with_hooks({}, {"a": "exit 1"}, {"x": ""})
        ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT, status=6)
        check_has(ended.err, "has failed: a.service; journalctl", "says why; the hook a failed")
        sysgenctl("snapshot-hooks", "post", "--no-units", *SNAPSHOT, status=6)
        with_hooks({}, {"a": ""}, {"x": ""})
        sysgenctl("snapshot-hooks", "post", "--no-units", *SNAPSHOT)
        sysgenctl("snapshot-hooks", "pre", "--no-units", *SNAPSHOT, status=2)


def doctor_knows_the_units():
    """Whether they will do anything, and did."""
    with Systemd() as systemd:

        def found(status=0, **says):
            systemd.says(**says)
            return diagnosed(status=status, systemd=True)["units"]

        check_equal(found()["found"], "systemd waits for a change; enabled: a.service, b.service")
        check_equal(found()["verdict"], "ok", "the verdict")
        check_has(found(8, path="inactive")["advice"], "udevadm trigger --action=change")
        systemd.units(a="failed timeout")
        failed = found(8, path="active")
        check_equal(failed["found"], "a.service: failed (timeout)", "what was found")
        check_has(failed["advice"], "and then: systemctl restart a.service")
        systemd.units()
        os.makedirs("/run/sysgenid")
        with open("/run/sysgenid/ssh-fence", "wb"):
            check_has(found(8)["found"], "the SSH server is kept from starting")
        os.remove("/run/sysgenid/ssh-fence")
        check_has(found(8, broken="")["found"], "systemd does not answer")
        os.remove(f"{systemd.PLACE}/broken")
        check_has(found(8, wants="")["advice"], "systemctl enable sysgenid-clock.service ")
        open("/etc/sysgenid/no-template", "wb").close()
        try:
            check_equal(found()["verdict"], "remark", "the verdict")
        finally:
            os.remove("/etc/sysgenid/no-template")
        files = "sysgenid-changed.path static -\nsysgenid-dhcp.service masked -"
        check_has(found(files=files)["found"], "masked: sysgenid-dhcp.service")
        check_has(found(8, files="")["found"], "not installed")
        with without(RULE):
            check_equal(diagnosed(status=8, systemd=True)["rule"]["verdict"], "fault", "the rule")


def post_without_pre():
    """It does what it can."""
    with_hooks({}, {"a": ""})
    ended = sysgenctl("snapshot-hooks", "post", *SNAPSHOT)
    check_has(ended.out, "with no note of the one before the snapshot")
    check_equal(read("/tmp/log"), f"a post {generation()} \n", "the log")


def nothing_is_quiesced_without_a_note():
    """An ordinary user cannot write it: the exit status is 5."""
    with_hooks({"1": ""}, {})
    arguments = ("--hooks-dir", HOOKS, "--state", "/run/sysgenid/snapshot")
    ended = sysgenctl("snapshot-hooks", "pre", *arguments, status=5, nobody=True)
    check_has(ended.err, "cannot write /run/sysgenid/snapshot.lock: Permission denied")
    check_equal(logged(), [], "the log")


# doctor


def modules_of_openssl():
    """Where OpenSSL looks for modules."""
    command = ["openssl", "version", "-m"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.fullmatch('MODULESDIR: "(.*)"\n', said)[1]


PROVIDER = f"{modules_of_openssl()}/sysgenid.so"
DROP_IN = "/etc/ssl/sysgenid.cnf"
RULE = "/usr/lib/udev/rules.d/60-sysgenid.rules"
OPENSSL_CNF = "/etc/ssl/openssl.cnf"


@contextlib.contextmanager
def without(*paths):
    """While these files are not there."""
    for path in paths:
        os.rename(path, f"{path}.elsewhere")
    try:
        yield
    finally:
        for path in paths:
            os.rename(f"{path}.elsewhere", path)


@contextlib.contextmanager
def mode_of(path, mode):
    """While a file has that mode."""
    before = os.stat(path).st_mode
    os.chmod(path, mode)
    try:
        yield
    finally:
        os.chmod(path, before)


@contextlib.contextmanager
def on_for_all():
    """While the provider is on in the system's configuration."""
    before = read(OPENSSL_CNF)
    sysgenctl("openssl", "enable")
    try:
        yield
    finally:
        sysgenctl("openssl", "disable")
        check_equal(read(OPENSSL_CNF), before, "what is left")


def configuration(text):
    """A configuration with that text, for the environment."""
    with open("/tmp/own.cnf", "w", encoding="utf-8") as file:
        file.write(text)
    return {"OPENSSL_CONF": "/tmp/own.cnf"}


def diagnosed(status=0, systemd=False, **options):
    """What doctor finds, by subject; the text says the same."""
    report = json_of("doctor", status=status, **options)
    check_equal(report["ready"], status == 0, "ready")
    findings = report["findings"]
    for finding in findings:
        check_equal(finding["advice"] is None, finding["verdict"] == "ok", f"{finding}")
    text = sysgenctl("doctor", status=status, **options)
    lines = text.out.splitlines()
    if status == 0:
        check_has(lines.pop(), "this system is ready for clones")
    else:
        check_has(text.err, "this system is not ready for clones; mend: ")
    check_equal(len(lines), len(findings), f"the number of lines of {text.out}")
    for line, finding in zip(lines, findings):
        check(line.startswith(f"{finding['verdict']} "), line)
        said = [finding["found"], finding["advice"]]
        check(line.endswith("  " + ": ".join(filter(None, said))), f"{line}, {finding}")
    found = {finding["subject"]: finding for finding in findings}
    if not systemd:
        # The same in all tests here.
        units = found.pop("units")
        check_equal(units["verdict"], "remark", "the verdict on units")
        check_has(units["found"], "systemd does not run here")
    return found


def verdicts(findings):
    """In short: what is not well."""
    return {name: found["verdict"] for name, found in findings.items() if found["advice"]}


def doctor_finds_it_well():
    """Everything that there is."""
    reload()
    with mode_of("/dev/vmgenid", 0o444), on_for_all():
        found = diagnosed()
        check_equal(verdicts(found), {}, "what is not well")
        subjects = ["kernel", "driver", "generation", "vmgenid", "rule", "openssl", "provider"]
        check_equal(list(found), subjects + ["system", "drop_in"], "what was looked at")
        check_equal(found["kernel"]["found"], os.uname().release, "the kernel")
        check_equal(found["generation"]["found"], "generation 0, never changed")
        check_equal(found["provider"]["found"], PROVIDER, "the provider")
        check_has(sysgenctl("doctor").out, "\nthis system is ready for clones, with 1 remark\n")
        sysgenctl("trigger")
        check_equal(diagnosed()["generation"]["found"], "generation 1, changed last by ioctl")
        with without(DROP_IN):
            check_equal(list(diagnosed()), subjects + ["system"], "what was looked at")
        check_equal(list(diagnosed(nobody=True)), subjects + ["system", "drop_in"])


def doctor_is_content_with_the_drop_in():
    """As it is installed."""
    found = diagnosed()
    check_equal(verdicts(found), {"vmgenid": "remark", "system": "remark"}, "what is not well")
    check_has(found["vmgenid"]["found"], "not by others (mode 0400)")
    check_has(found["system"]["found"], "off in /usr/lib/ssl/openssl.cnf, so that only ")
    check_equal(found["drop_in"]["found"], f"on in {DROP_IN}", "the drop-in")
    found = diagnosed(nobody=True)
    check_equal(verdicts(found), {"vmgenid": "remark", "system": "remark"}, "what is not well")
    check_has(found["vmgenid"]["found"], "not readable by this user")
    check_equal(found["drop_in"]["found"], f"on in {DROP_IN}, without /dev/vmgenid")


def doctor_misses_the_provider():
    """Not installed, or on nowhere: the exit status is 8."""
    with without(PROVIDER):
        found = diagnosed(status=8)
        check_equal(verdicts(found), {"vmgenid": "remark", "provider": "fault"})
        check_has(found["provider"]["found"], f"there is no {PROVIDER}")
    with without(DROP_IN):
        found = diagnosed(status=8)
        expected = {"vmgenid": "remark", "system": "fault", "drop_in": "fault"}
        check_equal(verdicts(found), expected, "what is not well")
        check_has(found["drop_in"]["found"], f"there is no {DROP_IN}")
        check_has(sysgenctl("doctor", status=8).err, "mend: openssl.cnf, sysgenid.cnf\n")
    # What cannot be loaded is as good as none.
    with without(PROVIDER):
        try:
            with open(PROVIDER, "w", encoding="utf-8"):
                found = diagnosed(status=8)
        finally:
            os.remove(PROVIDER)
        check_equal(found["drop_in"]["found"], f"off in {DROP_IN}", "the drop-in")


def doctor_looks_at_the_environment():
    """At the configuration that OPENSSL_CONF names."""
    own = configuration(read(DROP_IN))
    with without(DROP_IN):
        found = diagnosed(environment=own)
        check_equal(verdicts(found), {"vmgenid": "remark", "system": "remark"})
        check_equal(found["environment"]["found"], "on in /tmp/own.cnf")
    # The one that is looked at anyway.
    check("environment" not in diagnosed(environment={"OPENSSL_CONF": DROP_IN}), "twice")
    unused = read(DROP_IN).replace("random = sysgenid_random", "")
    for text, says in (
        (unused, "loaded in /tmp/own.cnf, but 0 of 3 generators are its"),
        ("# nothing\n", "off in /tmp/own.cnf"),
        # What OpenSSL cannot read it passes over.
        ("[ not closed\n", "off in /tmp/own.cnf"),
    ):
        found = diagnosed(status=8, environment=configuration(text))
        expected = {"vmgenid": "remark", "system": "remark", "environment": "fault"}
        check_equal(verdicts(found), expected, f"what is not well with {text}")
        check_has(found["environment"]["found"], says)


def doctor_misses_the_rule():
    """That is the administrator's choice."""
    with without(RULE):
        found = diagnosed()
        expected = {name: "remark" for name in ("vmgenid", "rule", "system")}
        check_equal(verdicts(found), expected, "what is not well")
        check_has(found["rule"]["found"], "not installed, so that /dev/vmgenid is for root only")
    os.makedirs("/etc/udev/rules.d", exist_ok=True)
    mask = "/etc/udev/rules.d/60-sysgenid.rules"
    os.symlink("/dev/null", mask)
    try:
        check_has(diagnosed()["rule"]["found"], f"masked by {mask}")
    finally:
        os.remove(mask)
    check_equal(diagnosed()["rule"]["found"], RULE, "the rule")


def doctor_knows_another_build():
    """The module that is installed is not the one that runs, or not the same build."""
    directory = f"/lib/modules/{os.uname().release}"
    os.makedirs(f"{directory}/updates")
    try:
        with open(f"{directory}/modules.dep", "w", encoding="utf-8") as file:
            file.write("updates/sysgenid.ko:\n")
        installed = f"{directory}/updates/sysgenid.ko"
        shutil.copy(MODULE, installed)
        check_equal(diagnosed()["driver"]["found"], "running", "the same build")
        with open(installed, "rb") as file:
            image = file.read()
        with open("/sys/module/sysgenid/notes/.note.gnu.build-id", "rb") as file:
            build = file.read()[16:]
        check_equal(image.count(build), 1, "how often its build ID is in the file")
        with open(installed, "wb") as file:
            file.write(image.replace(build, bytes(len(build))))
        found = diagnosed()["driver"]
        check_equal(found["verdict"], "remark", "the verdict on another build")
        check_has(found["found"], f"another build of it is installed ({installed})")
    finally:
        shutil.rmtree(directory)


def doctor_without_openssl():
    """That is a remark: nothing can be asked."""
    with without("/usr/bin/openssl"):
        found = diagnosed()
        check_equal(verdicts(found), {"vmgenid": "remark", "openssl": "remark"})
        check_equal(list(found)[-1], "openssl", "the last thing that was looked at")
        check_has(found["openssl"]["found"], "there is no program openssl")


@contextlib.contextmanager
def another_openssl(script):
    """While that is the program openssl, and the real one is openssl.elsewhere."""
    with without("/usr/bin/openssl"):
        make_hook("/usr/bin", "openssl", script)
        try:
            yield
        finally:
            os.remove("/usr/bin/openssl")


def doctor_with_another_openssl():
    """One before there were providers, and one that fails."""
    with another_openssl('[ $# = 1 ] || exit 1; echo "OpenSSL 1.1.1w  11 Sep 2023"'):
        found = diagnosed()
        check_equal(found["openssl"]["verdict"], "remark", "the verdict")
        check_has(found["openssl"]["found"], "no providers (OpenSSL 1.1.1w  11 Sep 2023)")
    fails = '[ $1 = list ] || exec openssl.elsewhere "$@"; echo out of order >&2; exit 3'
    with another_openssl(fails):
        found = diagnosed(status=8)
        expected = {"vmgenid": "remark", "system": "fault", "drop_in": "fault"}
        check_equal(verdicts(found), expected, "what is not well")
        why = "(openssl list -providers fails (exit status: 3): out of order)"
        check_has(found["drop_in"]["found"], f"not known of {DROP_IN} {why}")


def doctor_finds_no_device():
    """The module is not loaded: the exit status is 8, and not 4."""
    subprocess.run(["rmmod", "sysgenid"], check=True)
    try:
        found = diagnosed(status=8)
    finally:
        subprocess.run(["insmod", MODULE], check=True)
    faults = {name: "fault" for name in ("driver", "generation", "drop_in")}
    check_equal(verdicts(found), {**faults, "vmgenid": "remark", "system": "remark"})
    check_has(found["driver"]["found"], "the module is not installed for this kernel")
    check_equal(found["generation"]["found"], "not there", "the generation")
    check_has(found["drop_in"]["found"], "looks at nothing (there is no /dev/sysgenid)")


def doctor_says_what_is_with_the_node():
    """Not in this /dev, not for this user, not the device."""
    with without(NODE):
        found = diagnosed(status=8)
        check_equal(found["driver"]["verdict"], "ok", "the driver")
        check_has(found["generation"]["advice"], "--device /dev/sysgenid")
        os.symlink("/dev/null", NODE)
        try:
            found = diagnosed(status=8)
        finally:
            os.remove(NODE)
        check_has(found["generation"]["found"], "/dev/sysgenid is not the device")
    with mode_of(NODE, 0o600):
        found = diagnosed(status=8, nobody=True)
        check_has(found["generation"]["found"], "may not be opened: Permission denied")
        check_has(found["generation"]["advice"], "look at its mode")
        check_equal(diagnosed()["generation"]["verdict"], "ok", "for root")
    with without("/dev/vmgenid"):
        found = diagnosed()
        check_equal(verdicts(found), {"vmgenid": "remark", "system": "remark"})
        check_has(found["vmgenid"]["advice"], "-device vmgenid")
        check_equal(found["drop_in"]["found"], f"on in {DROP_IN}, without /dev/vmgenid")


# doctor, of processes


class Program:
    """A program in Python, from when it has done what it is told to."""

    def __init__(self, script, environment=None, program=sys.executable, before=None):
        # pylint: disable=consider-using-with
        text = f"{script}\nprint(flush=True)\nimport time\ntime.sleep(1000)"
        inherited = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
        self.process = subprocess.Popen(
            [program, "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**inherited, **(environment or {})},
            preexec_fn=before,
        )
        self.pid = self.process.pid
        check_equal(self.process.stdout.readline(), b"\n", "what it says")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def row(self, status, **options):
        """What doctor finds."""
        report = json_of("doctor", "--pid", str(self.pid), status=status, **options)
        check_equal(len(report["processes"]), 1, "the number of processes")
        row = report["processes"][0]
        check_equal(row["pid"], self.pid, "the process")
        check_equal(report["ready"], status == 0, "ready")
        return row

    def reasons(self):
        """Why it has no protection."""
        row = self.row(8)
        check_equal((row["verdict"], row["found"]), ("fault", "has libcrypto and no protection"))
        text = sysgenctl("doctor", "--pid", str(self.pid), status=8)
        check_has(text.err, "sysgenctl: 1 process has libcrypto and no protection")
        for reason in row["reasons"]:
            check_has(text.out, f"{reason['found']}: {reason['advice']}\n")
        return "\n".join(reason["found"] for reason in row["reasons"])


DRAWS = "import ssl\nssl.RAND_bytes(16)"
WITH_PROVIDER = {"OPENSSL_CONF": DROP_IN}
LIBRARY = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"


def load(path):
    """A script that has that library, and another one only if that one needs it."""
    return f"import ctypes\nctypes.CDLL({path!r})"


def doctor_finds_processes_with_the_provider():
    """They are protected, also from their start on."""
    with Program(DRAWS, WITH_PROVIDER) as program:
        row = program.row(0)
        check_equal((row["verdict"], row["found"]), ("ok", "protected by the provider"))
        check_equal(row["libraries"], [{"path": LIBRARY, "kind": "system"}], "the libraries")
        check_has(row["name"], "python3")
        said = sysgenctl("doctor", "--all").out
        check_has(said, f"  {program.pid}", "1 process has libcrypto, as far as can be seen\n")
    with on_for_all(), Program(DRAWS) as program:
        check_equal(program.row(0)["verdict"], "ok", "the verdict")
    # A library that was loaded and not used reads no configuration.
    with Program(load(LIBRARY), WITH_PROVIDER) as program:
        row = program.row(0)
        check_equal(row["verdict"], "remark", "the verdict")
        check_has(row["found"], "has not used OpenSSL yet")
    with Program("pass") as program:
        row = program.row(0)
        check_equal((row["verdict"], row["found"]), ("ok", "no libcrypto that can be seen"))
        check_equal(sysgenctl("doctor", "--all").out.splitlines()[-1][:11], "0 processes")


def doctor_says_which_configuration_a_process_has():
    """And how to switch the provider on in that."""
    with Program(DRAWS) as program:
        system = "it has the system's configuration, /usr/lib/ssl/openssl.cnf, which does not"
        check_has(program.reasons(), system)
        check_has(program.row(8)["reasons"][0]["advice"], "sysgenctl openssl enable, or OPENSSL_CONF=")
        # The start of a process is known to a second.
        time.sleep(2)
        sysgenctl("openssl", "enable")
        try:
            check_has(program.reasons(), "started before its configuration was last changed")
        finally:
            sysgenctl("openssl", "disable")
        with Program(DRAWS, WITH_PROVIDER):
            said = sysgenctl("doctor", "--all", status=8)
            check_has(said.out, "2 processes have libcrypto")
            check_has(said.err, "sysgenctl: 1 process has libcrypto and no protection")
    with Program(DRAWS, {"OPENSSL_CONF": ""}) as program:
        check_has(program.reasons(), "OPENSSL_CONF is empty")
    with Program(DRAWS, configuration("# nothing\n")) as program:
        check_has(program.reasons(), "OPENSSL_CONF names /tmp/own.cnf, which does not switch on")
    with Program(DRAWS, {"OPENSSL_CONF": "/no/such/file"}) as program:
        check_has(program.reasons(), "/no/such/file, which cannot be read")
    # It is not opened to be looked at: nobody would ever write.
    os.mkfifo("/tmp/fifo.cnf")
    with Program(load(LIBRARY), {"OPENSSL_CONF": "/tmp/fifo.cnf"}) as program:
        check_has(program.reasons(), "/tmp/fifo.cnf, which cannot be read (it is no regular file)")
    os.remove("/tmp/fifo.cnf")


def doctor_knows_who_gained_rights():
    """OpenSSL believes no environment there."""
    program = "/usr/bin/gains-rights"
    shutil.copy(os.path.realpath(sys.executable), program)
    os.chown(program, 65534, 65534)
    os.chmod(program, 0o4755)
    try:
        with Program(DRAWS, WITH_PROVIDER, program) as started:
            check_has(started.reasons(), "or has file capabilities) and ignores OPENSSL_CONF")
        with on_for_all(), mode_of("/dev/vmgenid", 0o444):
            with Program(DRAWS, WITH_PROVIDER, program) as started:
                check_equal(started.row(0)["verdict"], "ok", "the verdict")
    finally:
        os.remove(program)


def doctor_finds_copies_of_openssl():
    """What packages bring along, and what is part of other files; also when the file is gone."""
    os.makedirs("/opt/wheel")
    bundled, part = "/opt/wheel/libcrypto-81d66ed9.so.3", "/opt/wheel/_rust.abi3.so"
    for path in (bundled, part):
        shutil.copy(LIBRARY, path)
    with Program(load(bundled), WITH_PROVIDER) as one, Program(load(part), WITH_PROVIDER) as other:
        for _ in ("there", "gone"):
            check_equal(one.reasons(), f"{bundled} is an OpenSSL of its own", "what is found")
            check_equal(one.row(8)["libraries"], [{"path": bundled, "kind": "bundled"}])
            check_equal(other.reasons(), f"OpenSSL is part of {part}", "what is found")
            check_equal(other.row(8)["libraries"], [{"path": part, "kind": "static"}])
            shutil.rmtree("/opt/wheel", ignore_errors=True)
    # Beside the distribution's, it is one too many.
    os.makedirs("/opt/wheel")
    shutil.copy(LIBRARY, bundled)
    with Program(f"{DRAWS}\n{load(bundled)}", WITH_PROVIDER) as program:
        row = program.row(0)
        check_equal((row["verdict"], row["found"]), ("remark", "looks at the generation"))
    shutil.rmtree("/opt/wheel")


def own_dev():
    """Before a program: it gets a /dev without the nodes."""
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "-o", "bind", "/tmp", "/dev"], check=True)


def doctor_sees_what_a_process_sees():
    """A /dev without the node, and a node that is not for it."""
    with Program(DRAWS, WITH_PROVIDER, before=own_dev) as program:
        check_has(program.reasons(), "its /dev has no sysgenid (it is in a container")
    with mode_of(NODE, 0o600), Program(DRAWS, WITH_PROVIDER, before=become_nobody) as program:
        check_has(program.reasons(), "its /dev/sysgenid is not open to all")
    with Program(DRAWS, WITH_PROVIDER, before=become_nobody) as program:
        row = program.row(0)
        check_equal(row["verdict"], "remark", "the verdict")
        check_has(row["reasons"][0]["found"], "does not look at the hypervisor's ID")
    with without(PROVIDER), Program(DRAWS, WITH_PROVIDER) as program:
        check_has(program.reasons(), f"there is no {PROVIDER} where it looks")


def doctor_knows_who_came_first():
    """A process that was started before the driver, and one for which there is none."""
    subprocess.run(["rmmod", "sysgenid"], check=True)
    try:
        program = Program(DRAWS, WITH_PROVIDER)
        check_has(program.reasons(), "there is no /dev/sysgenid on this system")
        # The start of a process is known to a second.
        time.sleep(2)
    finally:
        subprocess.run(["insmod", MODULE], check=True)
    with program:
        check_has(program.reasons(), "it has the provider, and was started before the driver")


def doctor_says_of_whom_it_knows_nothing():
    """That is never well: the exit status is 5."""
    with Program(DRAWS, WITH_PROVIDER) as program:
        report = json_of("doctor", "--pid", str(program.pid), status=5, nobody=True)
        check_equal((report["ready"], report["unreadable_processes"]), (False, 1))
        check_equal(report["processes"], [], "what is said of others")
        said = sysgenctl("doctor", "--pid", str(program.pid), status=5, nobody=True)
        check_has(said.out, "not known of 1 process, which this user cannot look into: root can\n")
        check_has(said.err, "sysgenctl: cannot look into 1 process: ")
    check_has(sysgenctl("doctor", "--pid", str(program.pid), status=1).err, "there is no process")
    check_has(sysgenctl("doctor", "--unit", "x.service", status=1).err, "systemd knows no process")
    sysgenctl("doctor", "--all", "--pid", "1", status=2)


# openssl


def openssl(action, *arguments):
    """What sysgenctl openssl says as JSON."""
    return json_of("openssl", action, *arguments)


def became(report):
    """What became of the file."""
    return report["enabled"], report["changed"], report["provider"]


def draws_from():
    """Of which providers the generators are, for a program with the system's configuration."""
    command = ["openssl", "list", "-random-instances"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall("@ (.*)", said))


@contextlib.contextmanager
def replaced(path, text):
    """While a file has another text."""
    before = read(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        yield
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(before)


def openssl_is_switched_on_and_off():
    """Twice is once, and what is left are the very bytes."""
    before, mode = read(OPENSSL_CNF), os.stat(OPENSSL_CNF).st_mode
    backup = f"{OPENSSL_CNF}.before-sysgenid"
    report = openssl("status")
    check_equal(became(report), (False, False, "off"))
    check_equal((report["file"], report["backup"]), (OPENSSL_CNF, None), "the files")
    report = openssl("enable")
    check_equal(became(report), (True, True, "on"))
    check_equal((report["backup"], read(backup)), (backup, before), "the backup")
    check_equal(draws_from(), {"sysgenid"}, "what is drawn from")
    after = read(OPENSSL_CNF)
    check(after.startswith(before), "the file was changed")
    report = openssl("enable")
    check_equal(became(report), (True, False, "on"))
    check_equal(read(OPENSSL_CNF), after, "what is there")
    check_equal(openssl("status")["enabled"], True, "enabled")
    report = openssl("disable")
    check_equal(became(report), (False, True, "off"))
    check_equal(read(OPENSSL_CNF), before, "what is left")
    check(not os.path.exists(backup), "the backup is still there")
    check_equal(openssl("disable")["changed"], False, "changed")
    check_equal(draws_from(), {"default"}, "what is drawn from")
    check_equal(os.stat(OPENSSL_CNF).st_mode, mode, "the mode")
    check(not glob.glob("/etc/ssl/.sysgenctl*"), "something is left behind")


def openssl_keeps_edits():
    """What is edited while it is on stays."""
    before = read(OPENSSL_CNF)
    with replaced(OPENSSL_CNF, before):
        openssl("enable")
        edited = read(OPENSSL_CNF).replace("[ req ]\n", "[ req ]\n# edited\n", 1) + "# behind\n"
        with open(OPENSSL_CNF, "w", encoding="utf-8") as file:
            file.write(edited)
        openssl("disable")
        expected = before.replace("[ req ]\n", "[ req ]\n# edited\n", 1) + "# behind\n"
        check_equal(read(OPENSSL_CNF), expected, "what is left")
        os.remove(f"{OPENSSL_CNF}.before-sysgenid")


def openssl_leaves_links_owners_and_modes():
    """The file is replaced, and nothing else of it."""
    os.makedirs("/tmp/cnf")
    shutil.copy(OPENSSL_CNF, "/tmp/cnf/real.cnf")
    os.chown("/tmp/cnf/real.cnf", 1, 2)
    os.chmod("/tmp/cnf/real.cnf", 0o640)
    os.setxattr("/tmp/cnf/real.cnf", "trusted.test", b"kept")
    os.symlink("real.cnf", "/tmp/cnf/link.cnf")
    for action in ("enable", "disable"):
        report = openssl(action, "--config", "/tmp/cnf/link.cnf")
        check_equal((report["file"], report["changed"]), ("/tmp/cnf/real.cnf", True))
        found = os.lstat("/tmp/cnf/real.cnf")
        check_equal((found.st_mode, found.st_uid, found.st_gid), (0o100640, 1, 2), "owner and mode")
        check_equal(os.getxattr("/tmp/cnf/real.cnf", "trusted.test"), b"kept")
        check_equal(os.readlink("/tmp/cnf/link.cnf"), "real.cnf", "the link")
    check_equal(read("/tmp/cnf/real.cnf"), read(OPENSSL_CNF), "what is left")
    shutil.rmtree("/tmp/cnf")


def openssl_refuses_what_others_chose():
    """And what it does not understand, and leaves the file as it is."""
    stock = read(OPENSSL_CNF)
    mine = stock.replace("[provider_sect]", "random = mine\n[mine]\nrandom = HASH-DRBG\n[provider_sect]")
    check(mine != stock, "no section for providers")
    for text, why in (
        (mine, "“random = mine”: somebody has chosen OpenSSL's generators already"),
        (f"{stock}\n.include relative.cnf\n", "that is not the plain path of a file"),
        (f"{stock}\nnonsense\n", "“nonsense” sets nothing"),
        (f"{stock}\n# sysgenctl openssl: begin\n", "not once each"),
    ):
        with replaced(OPENSSL_CNF, text):
            ended = sysgenctl("openssl", "enable", status=1)
            check_has(ended.err, f"{OPENSSL_CNF} is left as it is: ", why)
            check_equal((read(OPENSSL_CNF), ended.out), (text, ""), "what is left")
    with without(PROVIDER):
        check_has(sysgenctl("openssl", "enable", status=1).err, "OpenSSL does not load the provider")
    check_equal(read(OPENSSL_CNF), stock, "what is left")
    check_has(sysgenctl("openssl", "enable", status=5, nobody=True).err, "Permission denied")
    check(not os.path.exists(f"{OPENSSL_CNF}.before-sysgenid"), "a backup of nothing")
    with without("/usr/bin/openssl"):
        check_has(sysgenctl("openssl", "enable", status=1).err, "there is no program openssl")


def openssl_knows_lines_of_others():
    """As this page's documentation once had them appended."""
    stock = read(OPENSSL_CNF)
    lines = read(DROP_IN).split(f".include {OPENSSL_CNF}\n")[1]
    with replaced(OPENSSL_CNF, f"{stock}\n{lines}"):
        report = openssl("enable")
        check_equal(became(report), (False, False, "on"))
        check_has(sysgenctl("openssl", "disable", status=1).err, "take them out by hand")


# What Node.js does when it starts, by the letter of its source: it names its own section, and ends if there
# is any error in the queue.
AS_NODE_JS = """
import ctypes
crypto = ctypes.CDLL("libcrypto.so.3")
pointers = ("OPENSSL_INIT_new", "RAND_get0_primary", "EVP_RAND_CTX_get0_rand", "EVP_RAND_get0_provider")
for name in pointers:
    getattr(crypto, name).restype = ctypes.c_void_p
crypto.OSSL_PROVIDER_get0_name.restype = ctypes.c_char_p
crypto.ERR_peek_error.restype = ctypes.c_ulong
IGNORE_MISSING_FILE, LOAD_CONFIG = 0x10, 0x40
settings = ctypes.c_void_p(crypto.OPENSSL_INIT_new())
crypto.OPENSSL_INIT_set_config_appname(settings, b"nodejs_conf")
crypto.OPENSSL_INIT_set_config_file_flags(settings, ctypes.c_ulong(IGNORE_MISSING_FILE))
crypto.OPENSSL_init_crypto(ctypes.c_uint64(LOAD_CONFIG), settings)
errors = crypto.ERR_peek_error()
value = None
for name in pointers[1:]:
    value = ctypes.c_void_p(getattr(crypto, name)(value))
print(crypto.OSSL_PROVIDER_get0_name(value).decode(), errors)
"""


def as_node_js(environment=None):
    """Whose generators a program has that starts as Node.js does, and its first error."""
    inherited = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    command = [sys.executable, "-c", AS_NODE_JS]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**inherited, **(environment or {})}
    )
    return done.stdout.strip()


def openssl_reaches_node_js():
    """By a section of its own, in both configurations; what cannot be loaded is no error."""
    check_equal(as_node_js(), "default 0", "by the system's configuration")
    check_equal(as_node_js(WITH_PROVIDER), "sysgenid 0", "by the drop-in")
    with on_for_all():
        check_equal(as_node_js(), "sysgenid 0", "by the system's configuration, switched on")
        with without(PROVIDER):
            check_equal(as_node_js(), "default 0", "without the provider")
            check_equal(as_node_js(WITH_PROVIDER), "default 0", "without the provider")


# What can be in the way


def unit_notes_whom_to_freeze():
    """Without systemd, and nobody is tracked then."""
    path = "/etc/sysgenid/freeze.d/x.service"
    report = json_of("unit", "--freeze", "--dry-run", "x")
    check_equal((report["changed"], report["dry_run"], report["frozen"]), (True, True, False))
    check(not os.path.exists(path), "there is the file")
    for changed in True, False:
        report = json_of("unit", "--freeze", "x")
        check_equal((report["changed"], report["frozen"]), (changed, True), "the report")
        check_equal(report["files"][0]["path"], path, "the path")
    check(os.path.exists(path), "there is no file")
    check(not json_of("unit", "--remove", "x.service")["frozen"], "it is frozen")
    check(not os.path.exists(path), "there is the file")
    sysgenctl("unit", "--freeze", "../x", status=1)
    sysgenctl("unit", "--track", "x", status=1)


def no_permission():
    """A node that may not be opened: the exit status is 5."""
    os.chmod(NODE, 0o600)
    try:
        for verb in VERBS:
            ended = sysgenctl(*verb, status=5, nobody=True)
            check_has(ended.err, "/dev/sysgenid may not be opened", "look at its mode")
            check_equal(ended.out, "", "standard output")
    finally:
        os.chmod(NODE, 0o666)


def no_node():
    """The driver runs, and this /dev has no node: the exit status is 4."""
    os.rename(NODE, "/dev/elsewhere")
    try:
        check_has(sysgenctl("status", status=4).err, "--device /dev/sysgenid")
    finally:
        os.rename("/dev/elsewhere", NODE)


def another_device():
    """Something else has the name: the exit status is 7."""
    os.rename(NODE, "/dev/elsewhere")
    try:
        os.symlink("/dev/null", NODE)
        check_has(sysgenctl("status", status=7).err, "/dev/sysgenid is not the device")
    finally:
        os.rename("/dev/elsewhere", NODE)


def no_device():
    """The module is not loaded: the exit status is 4, and it says what to do."""
    subprocess.run(["rmmod", "sysgenid"], check=True)
    try:
        for verb in VERBS:
            ended = sysgenctl(*verb, status=4)
            check_has(ended.err, "sysgenctl: there is no /dev/sysgenid: ", "modprobe sysgenid")
            check_has(ended.err, os.uname().release)
            check_equal(ended.out, "", "standard output")
    finally:
        subprocess.run(["insmod", MODULE], check=True)


# The manual


def unescaped(text):
    """What roff makes of it."""
    for escape, character in ("\\-", "-"), ("\\(aq", "'"), ("\\&", ""), ("\\e", "\\"):
        text = text.replace(escape, character)
    return text


def masked(text):
    """Without what is another thing each time."""
    masks = (
        (r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"(?m)^\d+ +(\d+ +(yes|no) )", r"PID \1"),
        (r"ioctl \d+s ago", "ioctl N ago"),
        (r"(in|after) \d+\.\d s", r"\1 N s"),
        (r"this kernel \([^)]*\)", "this kernel (RELEASE)"),
        (r"(?m)(kernel +)\d\S*$", r"\1RELEASE"),
        (r"(OpenSSL +)\d\S*", r"\1VERSION"),
        (r"(?m)^(ok|remark|fault) +\d+ ", r"\1 PID "),
        (r" {2,}", "  "),
    )
    for pattern, replacement in masks:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def blocks_of(page):
    """The examples of a page: what to do before each, and its lines."""
    before, block, found = [], None, []
    for line in read(page).split('.SH EXAMPLES\n')[1].splitlines():
        if line.startswith('.\\" '):
            before.append(line[4:])
        elif line == ".EX":
            block = []
        elif line == ".EE":
            found.append((before, block))
            before, block = [], None
        elif block is not None:
            block.append(unescaped(line))
    return found


def check_block(block):
    """Does what an example does, and compares."""
    prompt = block[0][:2]
    check(prompt in ("# ", "$ "), f"an example begins with {block[0]!r}")
    expected = []
    for line in block:
        if line.startswith(prompt):
            expected.append((line[2:], []))
        else:
            expected[-1][1].append(line)
    script = "".join(f"echo '@@@'; {command}\n" for command, _ in expected)
    with open("/tmp/example", "w+", encoding="utf-8") as said:
        # A session of its own: with what is in the background, it is ended as a whole.
        with subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=become_nobody if prompt == "$ " else None,
        ) as shell:
            try:
                shell.wait(timeout=120)
            finally:
                end_group(shell.pid)
        said.seek(0)
        parts = said.read().split("@@@\n")[1:]
    check_equal(len(parts), len(expected), "the number of commands")
    for (command, lines), part in zip(expected, parts):
        check_equal(masked(part), masked("\n".join(lines)), f"what {command!r} says")


def end_group(group):
    """Ends what is left of a process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # Nothing is.


def examples_of(page):
    """Does what a page shows, beginning with a module that was loaded just now."""
    reload()
    started = []
    try:
        for before, block in blocks_of(page):
            for line in before:
                word, command = line.split(": ", 1)
                if word == "background":
                    started.append(Background(*command.split()[1:]))
                else:
                    check_equal(word, "before", "the word")
                    subprocess.run(["sh", "-c", command], check=True)
            check_block(block)
    finally:
        for background in started:
            background.__exit__()
        if not os.path.exists(NODE):
            subprocess.run(["insmod", MODULE], check=True)
        until("nobody watches", lambda: not sysgenctl("status", "--json").json()["watchers"])


def examples_do_what_they_show():
    """Of all pages."""
    check_equal(len(PAGES), 12, "the number of pages")
    wrong = []
    for page in PAGES:
        try:
            check(blocks_of(page), "no example")
            examples_of(page)
        except Failed as error:
            wrong.append(f"{os.path.basename(page)}: {error}")
    check(not wrong, "\n".join(wrong))


def json_has_the_documented_keys():
    """All of them, and no others, in what the tests before this one have seen."""
    for page in PAGES:
        verb = os.path.basename(page)[len("sysgenctl-") : -len(".8")]
        section = re.search(r"(?s)\n\.SH JSON\n(.*?)\n\.SH ", read(page))[1]
        documented = set(re.findall(r"(?m)^\.TP\n\.B (\w+)$", section))
        if verb:
            # The rows are those of status.
            rows = set() if verb == "status" else {"pid", "fd", "tracked", "acked", "command"}
            rows |= set() if verb in ("status", "watch") else {"outdated"}
            # Those of the units are those of wait.
            rows |= {"result", "reason"} if verb == "snapshot-hooks" else set()
            rows -= documented
            check_equal(seen_keys.get(verb, set()) - rows, documented, f"the keys of {verb}")


run_tests(
    [
        never_changed,
        says_when_it_changed,
        says_that_the_log_cannot_be_read,
        table_of_watchers,
        root_sees_the_watchers_of_others,
        others_see_how_many_they_do_not_see,
        says_that_there_is_no_id,
        colours_are_for_terminals,
        nobody_to_wait_for,
        time_over_names_who_is_left,
        an_ack_ends_the_wait,
        nothing_to_settle,
        trigger_changes,
        trigger_takes_entropy,
        trigger_waits,
        trigger_takes_a_privilege,
        wrong_command_lines,
        a_line_for_each_change,
        the_command_acks_by_succeeding,
        a_failed_command_leaves_it_outdated,
        a_failed_command_is_the_exit_status,
        a_change_during_the_command_runs_it_again,
        watch_in_json,
        the_commands_output_is_not_among_the_json,
        a_closed_pipe_is_no_mishap,
        hooks_run_in_order,
        what_would_not_run_is_found_before,
        hooks_in_json,
        a_failed_pre_thaws,
        a_failed_post_thaws_what_it_can,
        what_is_noted_by_others_keeps_nobody_from_thawing,
        standard_output_stops_nothing,
        a_signal_undoes_all,
        a_hook_has_a_limit,
        one_run_at_a_time,
        what_is_quiesced_stays_so,
        what_was_looked_at_is_run,
        post_waits_for_watchers,
        post_gives_programs_what_they_need,
        post_can_leave_out_the_unprivileged,
        what_follows_a_change_is_waited_for,
        a_unit_that_fails_is_named,
        post_waits_for_units,
        post_without_pre,
        nothing_is_quiesced_without_a_note,
        doctor_finds_it_well,
        doctor_is_content_with_the_drop_in,
        doctor_misses_the_provider,
        doctor_looks_at_the_environment,
        doctor_misses_the_rule,
        doctor_knows_the_units,
        doctor_knows_another_build,
        doctor_without_openssl,
        doctor_with_another_openssl,
        doctor_finds_no_device,
        doctor_says_what_is_with_the_node,
        doctor_finds_processes_with_the_provider,
        doctor_says_which_configuration_a_process_has,
        doctor_knows_who_gained_rights,
        doctor_finds_copies_of_openssl,
        doctor_sees_what_a_process_sees,
        doctor_knows_who_came_first,
        doctor_says_of_whom_it_knows_nothing,
        openssl_is_switched_on_and_off,
        openssl_keeps_edits,
        openssl_leaves_links_owners_and_modes,
        openssl_refuses_what_others_chose,
        openssl_knows_lines_of_others,
        openssl_reaches_node_js,
        unit_notes_whom_to_freeze,
        no_permission,
        no_node,
        another_device,
        no_device,
        json_has_the_documented_keys,
        examples_do_what_they_show,
    ]
)
