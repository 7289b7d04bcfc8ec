#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What a template's clone has of its own, before and after: prints notes, "# NAME VALUE". Exits with
# a status that is not 0 if a clone does not come so far.

import hashlib
import os
import ssl
import subprocess
import sys
import time


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
    end = time.monotonic() + 240
    while not holds():
        if time.monotonic() > end:
            journal = subprocess.run(["journalctl", "-b", "-o", "cat", "-n", "40"], check=False,
                                     capture_output=True, text=True)
            sys.exit(f"in vain waited until {what}:\n{journal.stdout}")
        time.sleep(0.2)


def is_idle():
    """Neither the service that follows a change runs, nor anything that it has started."""
    states = subprocess.run(
        ["systemctl", "show", "-P", "ActiveState", "sysgenid-changed.service",
         "sysgenid-machine-id.service", "sysgenid-ssh-host-keys.service"],
        check=True, capture_output=True, text=True)
    return "activating" not in states.stdout and not os.path.exists("/run/sysgenid-changed")


# The generator is seeded, and the next draw comes from its state.
ssl.RAND_bytes(16)
machine_id = contents("/etc/machine-id")
host_keys = keys()
note("machine-id", machine_id.decode().strip())
note("ssh-host-keys", host_keys)
note("openssl-random", ssl.RAND_bytes(16).hex())
before = generation()

print("READY", flush=True)
wait_until("the generation changes", lambda: generation() != before)
note("openssl-random", ssl.RAND_bytes(16).hex())
with open("/var/tmp/mine", "wb") as mine:
    mine.write(os.urandom(16))
    os.fsync(mine.fileno())
wait_until("the machine ID is another one", lambda: contents("/etc/machine-id") != machine_id)
wait_until("the host keys are other ones", lambda: keys() != host_keys)
wait_until("all is done", is_idle)
note("machine-id", contents("/etc/machine-id").decode().strip())
note("ssh-host-keys", keys())
# From the disk, and not from memory.
with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
    drop.write("3")
note("disk", contents("/var/tmp/mine").hex())
