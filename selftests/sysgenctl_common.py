# SPDX-License-Identifier: MIT OR Apache-2.0

"""What the tests of sysgenctl have in common."""

import fcntl
import json
import os
import subprocess
import sys
import time

NODE = "/dev/sysgenid"
SET_WATCHER_TRACKING = 0xE401
NOBODY = 65534


class Failed(Exception):
    """A test has failed, for this reason."""


def check(condition, why):
    """Fails the test unless the condition holds."""
    if not condition:
        raise Failed(why)


def check_equal(found, expected, what="it"):
    """Fails the test unless these are equal."""
    check(found == expected, f"{what} is {found!r}, expected {expected!r}")


def check_has(text, *words):
    """Fails the test unless the text has all these words."""
    for word in words:
        check(word in text, f"{word!r} is not in {text!r}")


class Ended:
    """How a command ended, and what it said."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def json(self):
        """What it printed, as one object on one line."""
        check_equal(self.out.count("\n"), 1, f"the number of lines of {self.out!r}")
        return json.loads(self.out)


def become_nobody():
    """Makes this process one without any privilege."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def sysgenctl(*arguments, status=0, nobody=False, environment=None):
    """Runs it to its end, which must be the expected one."""
    done = subprocess.run(
        ["sysgenctl", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
        preexec_fn=become_nobody if nobody else None,
    )
    said = f"{done.stdout}{done.stderr}"
    check_equal(done.returncode, status, f"the exit status of {arguments} ({said})")
    return Ended(done.returncode, done.stdout, done.stderr)


class Watcher:
    """A watcher of our own."""

    def __init__(self, tracked=False):
        self.fd = os.open(NODE, os.O_RDWR | os.O_NONBLOCK)
        if tracked:
            self.track(True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def track(self, tracked):
        """Asks to be waited for, or no longer."""
        fcntl.ioctl(self.fd, SET_WATCHER_TRACKING, int(tracked))

    def ack(self):
        """Acknowledges the current generation."""
        os.write(self.fd, os.read(self.fd, 4))


def until(what, condition):
    """Waits until the condition holds, but not for ever."""
    limit = time.monotonic() + 60
    while not condition():
        check(time.monotonic() < limit, f"in vain waited for: {what}")
        time.sleep(0.05)


def rows(*arguments, **options):
    """The watchers that status shows."""
    return sysgenctl("status", "--json", *arguments, **options).json()["watchers"]


def rows_of(pid):
    """Those of one process."""
    return [row for row in rows() if row["pid"] == pid]


class Background:
    """A sysgenctl that watches, from when it does."""

    def __init__(self, *arguments, nobody=False):
        # pylint: disable=consider-using-with
        # It is read from its beginning while it is written at its end.
        self.out = open(f"/tmp/out.{time.monotonic_ns()}", "a+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["sysgenctl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=subprocess.STDOUT,
            preexec_fn=become_nobody if nobody else None,
        )
        until("a watcher", lambda: rows_of(self.process.pid))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.out.close()

    def said(self):
        """All that it has said."""
        self.out.seek(0)
        return self.out.read()

    def row(self):
        """What status shows of it."""
        found = rows_of(self.process.pid)
        check_equal(len(found), 1, "the number of its watchers")
        return found[0]


def make_hook(directory, name, script, mode=0o755):
    """Makes a hook that is a shell script."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as hook:
        hook.write(f"#!/bin/sh\n{script}\n")
    os.chmod(path, mode)


def read(path):
    """The text of a file, which is empty if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def run_tests(tests):
    """Runs the functions as tests, prints TAP, and exits."""
    print(f"TAP version 13\n1..{len(tests)}", flush=True)
    failures = 0
    for number, test in enumerate(tests, 1):
        try:
            test()
            word = "ok"
        except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            for line in f"{type(error).__name__}: {error}".splitlines():
                print(f"# {line}")
            word = "not ok"
            failures += 1
        print(f"{word} {number} {test.__name__}", flush=True)
    print(f"# {failures} of {len(tests)} failed")
    sys.exit(failures > 0)
