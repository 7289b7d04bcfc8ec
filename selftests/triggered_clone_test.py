#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0

"""What clones draw that no hypervisor has given an ID, and that are only triggered.

    triggered_clone_test.py ioctl|sysgenctl

Says READY when the snapshot can be taken. All clones go on in the same way then: nothing tells them
apart but what the one who triggers brings along.
"""

import fcntl
import os
import subprocess
import sys
import time

TRIGGER_GEN_UPDATE = 0xE403


def generation(node):
    """The generation."""
    with open(f"/proc/self/fdinfo/{node}", encoding="ascii") as lines:
        for line in lines:
            key, _, value = line.partition(":\t")
            if key == "sysgenid-generation":
                return int(value)
    sys.exit("fdinfo has no generation")


node = os.open("/dev/sysgenid", os.O_RDWR)
os.getrandom(16)
print("READY", flush=True)
time.sleep(2)
if sys.argv[1] == "ioctl":
    fcntl.ioctl(node, TRIGGER_GEN_UPDATE, 0)
else:
    subprocess.run(["sysgenctl", "trigger"], check=True, stdout=subprocess.DEVNULL)
print(f"# generation {generation(node)}")
print(f"# drawn {os.getrandom(16).hex()}", flush=True)
