#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""`lab demo-overseer`: what an orchestrator calls, and what comes of it in three clones at once.

It is the orchestrator. A machine in which nginx serves TLS is prepared, saved, and resumed three times
at the same time; each clone is called by vsock, with entropy of its own. In each of them something is
wrong at first, and is mended: so what holds a clone up, and that it serves nothing meanwhile, is seen
beside what a clone goes through that is brought back. At the end each claim is checked.

overseer_guest.py is what runs in the guest.

usage: LAB=/path/to/lab overseer.py
"""

import base64
import math
import os
import sys
import tempfile
import textwrap
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
sys.path.insert(0, f"{TOP}/selftests")

# pylint: disable=wrong-import-position
from from_host import ASIDE, Guest, Lab, connect

NGINX = f"{TOP}/userspace/openssl-provider/tests"
# How long a clone is looked at that is held, and how often.
HELD = 2
LOOKS = 0.25
# So many handshakes of each clone are waited for.
ENOUGH = 3
# A watcher is late after so many seconds; nothing else is waited for that long.
LATE = 15
DEADLINE = 100

WIDTH = 58
BOLD, RED, GREEN = 1, 31, 32

# What is wrong in each clone, the answer to the first call, and what it has to name.
PARTS = {
    "clone1": ("watcher", (504, "watchers_late"), "new-session-keys"),
    "clone2": ("hook", (500, "hook_failed"), "10-database"),
    "clone3": ("same", (409, "is_a_clone"), ""),
}
TITLES = {
    "watcher": "a tracked watcher does not acknowledge",
    "hook": "a hook fails",
    "same": "the orchestrator believes that it is the machine that was saved",
}


def paint(text, colour):
    """In that colour, for who can see it."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\033[{colour}m{text}\033[0m"
    return text


class Call:
    """A call of `resumed`, and its answer."""

    def __init__(self, guest, body):
        self.expect = body["expect"]
        self.began = time.monotonic()
        self.status, self.answer = guest.call("POST", "/v1/resumed", body)
        self.ended = time.monotonic()
        self.error = self.answer.get("error", {})
        report = self.answer if self.status == 200 else self.answer.get("report")
        self.report = report or {}

    def code(self):
        """The status, and the word."""
        return self.status, self.error.get("code", self.report.get("outcome"))


class Clone(threading.Thread):
    """A clone, and the orchestrator's part in it."""

    def __init__(self, name, directory, token):
        super().__init__()
        self.guest = Guest(directory, name)
        self.name, self.token = name, token
        self.part = PARTS.get(name, ("",))[0]
        self.calls, self.looks = [], []
        self.started = self.failure = None

    def tell(self, word):
        """Has the guest do what is no business of the service."""
        with connect(self.guest.directory, self.name, ASIDE) as aside:
            aside.sendall(f"{word}\n".encode())
            while aside.recv(100):
                pass

    def resumed(self, expect, deadline):
        """Calls it, with entropy that no other call has."""
        body = {"token": self.token, "expect": expect, "deadline": deadline}
        body["entropy"] = base64.b64encode(os.urandom(64)).decode()
        self.calls.append(Call(self.guest, body))

    def look(self):
        """Asks whether it is ready."""
        status, _ = self.guest.call("GET", "/ready")
        self.looks.append((time.monotonic(), status))
        return status

    def handshakes(self):
        """What the server has drawn, and when, by the guest's clock."""
        notes = [note.split() for note in lab.notes(self.name, "handshake")]
        return [(float(when), random, key) for when, random, key in notes]

    def bring_back(self):
        """From the resume to the end."""
        lab.until(f"{self.name} answers", self.guest.answers)
        self.started = lab.time_of(f"lab: {self.name}: resumed")
        self.look()
        self.tell("mended" if self.part == "same" else self.part)
        late = LATE if self.part == "watcher" else DEADLINE
        self.resumed("same" if self.part == "same" else "clone", late)
        end = time.monotonic() + HELD
        while time.monotonic() < end:
            self.look()
            time.sleep(LOOKS)
        if self.part != "same":
            self.tell("mended")
        self.resumed("clone", DEADLINE)
        lab.until(f"{self.name} serves", lambda: len(self.handshakes()) >= ENOUGH)
        self.look()
        self.tell("end")

    def run(self):
        try:
            self.bring_back()
        except (OSError, ValueError, KeyError) as error:
            self.failure = f"{type(error).__name__}: {error}"


def claims(before, clones, prepared, status):
    """What is claimed, and whether it held."""
    yield "the machine was quiesced, and nginx stood still", (
        [group["name"] for group in prepared["frozen"]] == ["nginx.service"]
    )
    drawn = [before] + [clone.handshakes() for clone in clones]
    for kind, place in ("random bytes", 1), ("key", 2):
        values = [one[place] for machine in drawn for one in machine]
        yield f"no handshake had the {kind} of another one", len(values) == len(set(values))
    for clone in clones:
        name, (_, code, named) = clone.name, PARTS[clone.name]
        yield f"{name} was spoken with to the end ({clone.failure})", not clone.failure
        if clone.failure or len(clone.calls) != 2:
            continue
        first, second = clone.calls
        yield f"{name} was refused with {code}", first.code() == code
        yield f"the answer of {name} named who held it up", named in first.error.get("message", "")
        held = [status for when, status in clone.looks if when < second.began]
        yield f"{name} was not ready then, each time that it was asked", set(held) == {503}
        yield f"{name} was brought back by the next call", second.code() == (200, "ready")
        yield f"{name} is ready", clone.looks[-1][1] == 200
        change = [second.report.get(when) for when in ("generation_before", "generation")]
        yield f"the generation of {name} went from 0 to 1", change == [0, 1]
        served = [when for when, _, _ in clone.handshakes()]
        thaw = lab.notes(name, "thaw")
        yield f"{name} served nothing before nginx went on", (
            len(served) >= ENOUGH and bool(thaw) and min(served) >= float(thaw[0])
        )
    yield "the lab has nothing to complain about", status == 0


class Picture:
    """The time lines of all clones, on one scale."""

    def __init__(self, clones):
        ends = [lab.times[-1] - clone.started for clone in clones]
        self.scale = WIDTH / max(ends)

    def column(self, seconds):
        """Where a moment is."""
        return min(WIDTH - 1, max(0, int(seconds * self.scale)))

    def bar(self, start, end, mark):
        """From one moment to another one."""
        first, last = self.column(start), self.column(end)
        return " " * first + mark * (last - first + 1)

    def marks(self, moments):
        """Single moments, with what is shown of each."""
        row = [" "] * WIDTH
        for when, mark in moments:
            row[self.column(when)] = mark
        return "".join(row).rstrip()

    def axis(self):
        """The seconds."""
        row = ""
        step = max(1, math.ceil(9 / self.scale))
        for second in range(0, int(WIDTH / self.scale) + 1, step):
            row = row.ljust(self.column(second)) + f"|{second} s"
        return row[: WIDTH + 4]

    def show(self, clone):
        """One clone."""
        since = lambda moment: moment - clone.started
        line = lambda label, row: print(f"    {label:<32}{row}".rstrip())
        print(f"\n  {paint(f'{clone.name}: {TITLES[clone.part]}', BOLD)}")
        line("since it was resumed", self.axis())
        for call in clone.calls:
            status, code = call.code()
            label = f"resumed, expect: {call.expect}"
            row = self.bar(since(call.began), since(call.ended), "▓")
            line(f"{label:<22}{call.ended - call.began:6.2f} s", row)
            at = since(call.began)
            for step in call.report.get("steps", []):
                word, seconds = step["outcome"], step["seconds"]
                row = self.bar(at, at + seconds, "━")
                text = f"  {step['step']:<11} {word:<8}{seconds:7.2f} s"
                line(text, paint(row, RED) if word == "failed" else row)
                at += seconds
            said = call.error.get("message") or f"generation {call.report['generation']}"
            colour = GREEN if status == 200 else RED
            first, *more = textwrap.wrap(f"{status} {code}: {said}", 90)
            print(f"      {paint(first, colour)}")
            for text in more:
                print(f"        {text}")
            for hook in failed_hooks(call.report):
                print(f"        {hook['name']} said: {hook['output'].strip()}")
        ready = [(since(when), "●" if status == 200 else "○") for when, status in clone.looks]
        line("GET /ready: ○ 503  ● 200", self.marks(ready))
        prefix = f"{clone.name}| # handshake "
        lines = zip(lab.lines, lab.times)
        served = [(since(when), "■") for text, when in lines if text.startswith(prefix)]
        line("TLS handshakes of nginx", self.marks(served))
        random = clone.handshakes()[0][1]
        print(f"    {'the first one began with':<32}{random:.32}…")


def failed_hooks(report):
    """The hooks that have failed in the last step."""
    for step in report.get("steps", []):
        if step["outcome"] == "failed" and step["step"].endswith("_hooks"):
            for hook in step["detail"]:
                if not hook["succeeded"]:
                    yield hook


def prepare(directory):
    """Has the machine quiesced, and shows it; returns the answer."""
    guest = Guest(directory, "guest")
    lab.until("the guest answers", guest.answers)
    body = {"deadline": DEADLINE, "freeze": ["nginx.service"]}
    status, prepared = guest.call("POST", "/v1/prepare", body)
    if status != 200:
        raise ValueError(f"prepare is answered with {status}: {prepared}")
    hooks = ", ".join(f"{hook['name']} ({hook['output'].strip()})" for hook in prepared["hooks"])
    print(f"\n  {paint('One machine, quiesced and saved; three clones, resumed at once', BOLD)}")
    print("    nginx serves TLS, and a client shakes hands with it all the time")
    print(f"    POST /v1/prepare: {status} in {prepared['seconds']:.2f} s; hooks: {hooks};")
    frozen = ", ".join(group["name"] for group in prepared["frozen"])
    print(f"      {frozen} stands still; the token is {prepared['token']}", flush=True)
    with connect(directory, "guest", ASIDE) as aside:
        aside.sendall(b"save\n")
        aside.recv(100)
    return prepared


def play(directory):
    """All of it; returns what it exits with."""
    prepared = prepare(directory)
    clones = [Clone(name, directory, prepared["token"]) for name in PARTS]
    for clone in clones:
        clone.start()
    for clone in clones:
        clone.join()
    status = lab.end()
    before = Clone.handshakes(Clone("guest", directory, None))
    if not any(clone.failure for clone in clones):
        picture = Picture(clones)
        for clone in clones:
            picture.show(clone)
    checked = list(claims(before, clones, prepared, status))
    failed = [claim for claim, held in checked if not held]
    print()
    for claim in failed:
        print(f"  {paint('did not hold:', RED)} {claim}")
    if failed:
        print("\n".join(lab.lines), file=sys.stderr)
        return 1
    print(f"  {paint('All of it held', GREEN)} ({len(checked)} claims, each checked)")
    return 0


with (
    tempfile.TemporaryDirectory() as sockets,
    Lab(
        *["--clones=3", "--at-once", "--systemd", f"--vsock={sockets}"],
        *[f"--add={HERE}/overseer_guest.py", f"--add={NGINX}/server_hello.py"],
        *[f"--add={NGINX}/nginx.conf", "--", "python3", "/overseer_guest.py"],
    ) as lab,
):
    sys.exit(play(sockets))
