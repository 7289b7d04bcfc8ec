#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What a template's clone has of its own, before and after: prints notes, "# NAME VALUE". The template is
# quiesced before it is saved; what a clone has is noted as soon as it is said to be ready. Exits with a
# status that is not 0 if a clone does not come so far.

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time

# Seconds.
DEADLINE = 240


def note(name, value):
    print(f"# {name} {value}", flush=True)


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def generation():
    with open("/dev/sysgenid", "rb") as node:
        for line in contents(f"/proc/self/fdinfo/{node.fileno()}").splitlines():
            key, _, value = line.partition(b":\t")
            if key == b"sysgenid-generation":
                return int(value)
    sys.exit("fdinfo has no generation")


def keys():
    """All host keys, in short."""
    names = sorted(name for name in os.listdir("/etc/ssh") if name.endswith("_key"))
    if not names:
        sys.exit("there are no host keys")
    everything = b"".join(contents(f"/etc/ssh/{name}") for name in names)
    return hashlib.sha256(everything).hexdigest()


def wait_until(what, holds):
    end = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > end:
            journal = subprocess.run(["journalctl", "-b", "-o", "cat", "-n", "40"], check=False,
                                     capture_output=True, text=True)
            sys.exit(f"in vain waited until {what}:\n{journal.stdout}")
        time.sleep(0.2)


class Connection(http.client.HTTPConnection):
    """To sysgenctl serve."""

    def __init__(self):
        super().__init__("localhost", timeout=DEADLINE)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/run/sysgenid-serve.socket")


def call(path, body):
    """What the service answers, if it says that it has done it."""
    connection = Connection()
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    said = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"{path} is answered with {answer.status}: {said}")
    return json.loads(said)


def identity(report):
    """How the step has ended, and each of the units that a template has enabled."""
    step = next(step for step in report["steps"] if step["step"] == "identity")
    results = {unit["name"]: unit["result"] for unit in step["detail"]["units"] or []}
    names = ["sysgenid-machine-id.service", "sysgenid-ssh-host-keys.service"]
    return " ".join([step["outcome"]] + [results.get(name, "missing") for name in names])


# The generator is seeded, and the next draw comes from its state.
ssl.RAND_bytes(16)
note("machine-id", contents("/etc/machine-id").decode().strip())
note("ssh-host-keys", keys())
note("openssl-random", ssl.RAND_bytes(16).hex())
subprocess.run(["systemctl", "start", "sysgenid-serve.socket"], check=True)
token = call("/v1/prepare", {"deadline": DEADLINE})["token"]
before = generation()

print("READY", flush=True)
wait_until("the generation changes", lambda: generation() != before)
note("openssl-random", ssl.RAND_bytes(16).hex())
with open("/var/tmp/mine", "wb") as mine:
    mine.write(os.urandom(16))
    os.fsync(mine.fileno())
# Something that only this clone has, as an orchestrator would bring it along.
entropy = base64.b64encode(hashlib.sha256(contents("/dev/vmgenid")).digest()).decode()
request = {"token": token, "entropy": entropy, "expect": "clone", "deadline": DEADLINE}
note("identity", identity(call("/v1/resumed", request)))
note("machine-id", contents("/etc/machine-id").decode().strip())
note("ssh-host-keys", keys())
# From the disk, and not from memory.
with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
    drop.write("3")
note("disk", contents("/var/tmp/mine").hex())
