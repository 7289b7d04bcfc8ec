#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""The guest's part of sysgenctl_host_test.py: starts the service, and sees that only the host calls.

What became of a call from within the machine it notes for the host: "# local answered", or
"# local closed". It prints READY when somebody connects to the port 975, since only the host knows when
it has the answer to its call; and ends in each clone when that was brought back.
"""

import os
import socket
import subprocess
import time

from sysgenctl_common import read

PORT = 974
ASIDE = 975
LOCAL = 1


def called_from_here():
    """What becomes of a call of a process of this machine, which has another number than the host."""
    with socket.socket(socket.AF_VSOCK) as connection:
        connection.settimeout(60)
        connection.connect((LOCAL, PORT))
        try:
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return "answered" if connection.recv(1) else "closed"
        except ConnectionError:
            return "closed"


def is_in(phase):
    """Whether the service notes this phase."""
    return f'"phase":"{phase}"' in read("/run/sysgenid-serve/state")


DROP_IN = "/run/systemd/system/sysgenid-serve.service.d/test.conf"
os.makedirs(os.path.dirname(DROP_IN))
with open(DROP_IN, "w", encoding="utf-8") as file:
    # D-Bus, by which the units that follow a change are started, is not in this guest.
    file.write(
        "[Service]\nExecStart=\n"
        "ExecStart=sysgenctl serve --no-units --serial /dev/virtio-ports/org.sysgenid.0\n"
    )
for command in (
    ["systemctl", "daemon-reload"],
    ["modprobe", "vsock_loopback"],
    ["systemctl", "start", "sysgenid-serve-vsock.socket", "sysgenid-serve.service"],
):
    subprocess.run(command, check=True)
with socket.socket(socket.AF_VSOCK) as aside:
    aside.bind((socket.VMADDR_CID_ANY, ASIDE))
    aside.listen()
    print(f"# local {called_from_here()}", flush=True)
    aside.accept()[0].close()
print("READY", flush=True)
# For as long as the lab lets it run.
while not is_in("idle"):
    time.sleep(0.1)
