#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Calls sysgenctl serve in a guest, and in a clone of it, from the host: by vsock, and at a
virtio-serial port. Prints TAP.

usage: LAB=/path/to/lab SCRATCH=/an/empty/directory sysgenctl_host_test.py
"""

import base64
import json
import os
import socket
import time

from from_host import ASIDE, PORT, Guest, Lab, connect
from sysgenctl_common import check, check_equal, run_tests

HERE = os.path.dirname(os.path.abspath(__file__))
SCRATCH = os.environ["SCRATCH"]
VSOCK = f"{SCRATCH}/vsock"
SERIAL = f"{SCRATCH}/serial"


class Port:
    """The host's end of the virtio-serial port."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(SERIAL)
        self.lines = self.socket.makefile("r", encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def say(self, text):
        """Sends it as it is."""
        self.socket.sendall(text.encode())

    def hear(self):
        """The next line."""
        return json.loads(self.lines.readline())

    def call(self, number, method, path, body=None):
        """Sends a request, and returns what is answered to it. What is answered to one who has gone
        since is heard by who comes next."""
        request = {"id": number, "method": method, "path": path, "body": body}
        self.say(f"{json.dumps(request)}\n")
        answer = self.hear()
        while answer["id"] != number:
            answer = self.hear()
        return answer["status"], answer["body"]


def resumed(token, **more):
    """What the service is called with after the resume."""
    entropy = base64.b64encode(os.urandom(64)).decode()
    return {"token": token, "entropy": entropy, "expect": "clone", "deadline": 60, **more}


def phase(guest):
    """Where the machine is."""
    status, body = guest.call("GET", "/v1/status")
    check_equal(status, 200, "the status")
    return body["phase"]


saved, clone = Guest(VSOCK, "guest"), Guest(VSOCK, "clone1")
prepared = {}


def the_host_calls_by_vsock():
    """And is answered."""
    lab.until("the service answers", saved.answers)
    check_equal(phase(saved), "idle", "the phase")
    check_equal(saved.call("GET", "/ready")[0], 200, "the status of /ready")
    check_equal(saved.call("GET", "/no/such")[0], 404, "the status of /no/such")


def nobody_listens_at_other_ports():
    """Which the device says at once."""
    try:
        connect(VSOCK, "guest", 973).close()
    except ConnectionError:
        return
    check(False, "somebody does")


def who_is_not_the_host_is_not_answered():
    """A process of the guest is connected, and hears nothing."""
    lab.until("the guest has called itself", lambda: lab.notes("guest", "local"))
    check_equal(lab.notes("guest", "local"), ["closed"], "what became of its call")


def the_host_calls_at_the_port():
    """A line each."""
    with Port() as port:
        status, body = port.call("one", "GET", "/v1/status")
        check_equal((status, body["phase"]), (200, "idle"), "the answer")
        status, body = port.call(2, "POST", "/v1/prepare", {"deadline": -1})
        check_equal((status, body["error"]["code"]), (400, "deadline_range"), "the answer")


def lines_that_are_none_are_refused():
    """Each by itself, and the next one counts."""
    with Port() as port:
        for line in "what", "{}", '{"method": 1}', '["GET", "/v1/status"]', "\0\1":
            port.say(f"{line}\n")
            answer = port.hear()
            check_equal((answer["id"], answer["status"]), (None, 400), f"the answer to {line!r}")
        port.say(" " * (1 << 18) + "\n")
        check_equal(port.hear()["status"], 413, "the status of a line that is too long")
        check_equal(port.call(3, "GET", "/ready")[0], 200, "the status")


def a_host_that_goes_away_changes_nothing():
    """In the middle of a line, or before the answer."""
    line = '{"id": 4, "method": "POST", "path": "/v1/prepare", "body": {"deadline": 60}}\n'
    with Port() as port:
        port.say(line[:40])
    # The guest learns of it, and then of the next one.
    time.sleep(1)
    with Port() as port:
        check_equal(port.call(5, "GET", "/v1/status")[1]["phase"], "idle", "the phase")
        port.say('{"id": 6, "method": "GET", "path": "/v1/watchers"}\n')
    time.sleep(1)
    with Port() as port:
        check_equal(port.call(7, "GET", "/v1/status")[0], 200, "the status")
    connection = connect(VSOCK, "guest", PORT)
    connection.sendall(b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    connection.close()
    check_equal(phase(saved), "idle", "the phase")


def the_host_has_it_quiesced():
    """By vsock; and both are told so."""
    status, body = saved.call("POST", "/v1/prepare", {"deadline": 60})
    check_equal(status, 200, f"the status ({body})")
    prepared["token"] = body["token"]
    connect(VSOCK, "guest", ASIDE).close()


def the_clone_is_reached():
    """By a device and a port that it did not have when it was saved, and by who calls as early as
    it can be found."""
    lab.until("the clone answers", clone.answers, pause=0)
    check_equal(phase(clone), "prepared", "the phase")
    check_equal(clone.call("GET", "/ready")[0], 503, "the status of /ready")


def what_is_wrong_is_refused_there():
    """At the port."""
    token = prepared["token"]
    with Port() as port:
        request = resumed(token, expect="same", entropy=None)
        status, body = port.call(1, "POST", "/v1/resumed", request)
        check_equal((status, body["error"]["code"]), (409, "is_a_clone"), "the answer")
        other = token[:-1] + ("1" if token[-1] == "0" else "0")
        status, body = port.call(2, "POST", "/v1/resumed", resumed(other))
        check_equal((status, body["error"]["code"]), (409, "token_of_another_snapshot"), "it")


def the_clone_is_brought_back():
    """By vsock."""
    status, report = clone.call("POST", "/v1/resumed", resumed(prepared["token"]))
    check_equal(status, 200, f"the status ({report})")
    check_equal((report["outcome"], report["generation"]), ("ready", 1), "the report")


def all_of_them_end_well():
    """The lab says whether the kernel had something to report."""
    check_equal(lab.end(), 0, "the exit status of the lab")


with Lab(
    "--clones=1",
    "--systemd",
    f"--vsock={VSOCK}",
    "--qemu-arg=-chardev",
    f"--qemu-arg=socket,id=serial,path={SERIAL},server=on,wait=off",
    "--qemu-arg=-device",
    "--qemu-arg=virtserialport,chardev=serial,name=org.sysgenid.0",
    f"--add={HERE}/sysgenctl_host_guest.py",
    f"--add={HERE}/sysgenctl_common.py",
    "--",
    "python3",
    "/sysgenctl_host_guest.py",
) as lab:
    run_tests(
        [
            the_host_calls_by_vsock,
            nobody_listens_at_other_ports,
            who_is_not_the_host_is_not_answered,
            the_host_calls_at_the_port,
            lines_that_are_none_are_refused,
            a_host_that_goes_away_changes_nothing,
            the_host_has_it_quiesced,
            the_clone_is_reached,
            what_is_wrong_is_refused_there,
            the_clone_is_brought_back,
            all_of_them_end_well,
        ]
    )
