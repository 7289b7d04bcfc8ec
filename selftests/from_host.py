# SPDX-License-Identifier: MIT OR Apache-2.0

"""Calls sysgenctl serve in guests from the host, as an orchestrator does.

The lab says where guests are found: `lab clone --vsock DIR` has a Unix socket in that directory for
each of them, which wants a line "CONNECT PORT" first (as Firecracker's and Cloud Hypervisor's do),
or a file NAME.cid with the guest's number, where the kernel of this machine has a vsock device.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

PORT = 974
# Where the guests of tests listen: what is said there belongs to the test.
ASIDE = 975
# How long an answer may take, and how long a guest may take to start, where much has to be built
# before: these are for what hangs.
PATIENCE = 300
MUCH = 1800


def connect(directory, name, port):
    """A connection to a port of a guest."""
    path = os.path.join(directory, name)
    if os.path.exists(f"{path}.cid"):
        with open(f"{path}.cid", encoding="ascii") as file:
            cid = int(file.read())
        connection = socket.socket(socket.AF_VSOCK)
        connection.settimeout(PATIENCE)
        connection.connect((cid, port))
        return connection
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(path)
    connection.sendall(f"CONNECT {port}\n".encode())
    said = b""
    while not said.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionRefusedError(f"nobody listens at port {port} of {name}")
        said += byte
    if not said.startswith(b"OK "):
        raise ConnectionError(f"{name} says {said!r}")
    return connection


class Connection(http.client.HTTPConnection):
    """To the service in a guest."""

    def __init__(self, directory, name):
        super().__init__("localhost")
        self.place = directory, name

    def connect(self):
        self.sock = connect(*self.place, PORT)


class Guest:
    """A guest, or a clone of one."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name

    def call(self, method, path, body=None):
        """Calls the service; returns the status and what was answered."""
        connection = Connection(self.directory, self.name)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            said = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(said) if is_json else said

    def answers(self):
        """Whether the service does."""
        try:
            return self.call("GET", "/v1/status")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


class Lab:
    """A `lab clone` in the background, with all that it and its guests say."""

    def __init__(self, *arguments):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [os.environ["LAB"], "clone", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines, self.times = [], []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def read(self):
        """Keeps the lines, and when they came."""
        for line in self.process.stdout:
            self.times.append(time.monotonic())
            self.lines.append(line.rstrip("\n"))
            if line.startswith("lab: "):
                print(line, end="", file=sys.stderr, flush=True)

    def until(self, what, condition, pause=0.05):
        """Waits until the condition holds, for as long as the lab runs, but not for ever."""
        end = time.monotonic() + MUCH
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                print("\n".join(self.lines), file=sys.stderr)
                raise TimeoutError(f"in vain waited for: {what}")
            time.sleep(pause)

    def time_of(self, start):
        """When the first line came that begins so, or nothing."""
        for line, when in zip(self.lines, self.times):
            if line.startswith(start):
                return when
        return None

    def end(self):
        """Waits for its end; returns its exit status."""
        status = self.process.wait(PATIENCE)
        self.thread.join()
        return status

    def said_by(self, name):
        """The lines of one guest. Those of the one that was saved have no name in front."""
        prefix = f"{name}| "
        lines = list(self.lines)
        if name == "guest":
            return [line for line in lines if not line.startswith(("clone", "lab: "))]
        return [line[len(prefix) :] for line in lines if line.startswith(prefix)]

    def notes(self, name, key):
        """What a guest has noted under a name, in lines "# name value"."""
        start = f"# {key} "
        lines = self.said_by(name)
        return [line[len(start) :] for line in lines if line.startswith(start)]
