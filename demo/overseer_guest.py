#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""The guest's part of the overseer's demonstration.

nginx, which is Debian's and has the provider for OpenSSL by configuration, serves TLS. A client shakes
hands with it all the time, and notes what the server drew, in a line for each handshake:

    # handshake SECONDS RANDOM KEY

with the time since the guest has booted, the server's random bytes, and its ephemeral public key.

At port 975, where only root can listen, the host says, one word a connection:

    save        print READY, as soon as no handshake is under way: the machine is saved now. In a clone,
                watchers wait until they are told what is theirs
    watcher     from now on, a watcher does not come to acknowledge
    hook        from now on, a hook fails
    mended      neither is so any more
    end         print "# thaw SECONDS", when it was last known that nginx was about to go on, and end
"""

import os
import socket
import subprocess
import threading
import time

from server_hello import server_hello

HERE = "/run/overseer"
ASIDE = 975
HOST = 2
WARM = 3
QUIET = 1

FILES = {
    "/run/systemd/system/nginx.service.d/demo.conf": """\
[Service]
Type=exec
PIDFile=
Environment=OPENSSL_CONF=/etc/ssl/sysgenid.cnf
ExecStartPre=
ExecStart=
ExecStart=/usr/sbin/nginx -c /nginx.conf -g 'daemon off;'
""",
    # D-Bus, by which the units that follow a change are started, is not in this guest.
    "/run/systemd/system/sysgenid-serve.service.d/demo.conf": """\
[Service]
ExecStart=
ExecStart=sysgenctl serve --no-units
""",
    "/etc/sysgenid/pre.d/10-flush": """\
#!/bin/sh
echo "everything is on its disk"
""",
    "/etc/sysgenid/thaw.d/10-database": f"""\
#!/bin/sh
if [ "$(cat {HERE}/part)" = hook ]; then
	echo "the database does not answer"
	exit 1
fi
""",
    # The last thing before control groups go on.
    "/etc/sysgenid/thaw.d/90-note": f"""\
#!/bin/sh
read -r now _ </proc/uptime
echo "$now" >{HERE}/thaw
""",
    "/etc/sysgenid/post.d/10-announce": """\
#!/bin/sh
echo "the load balancer knows"
""",
    # What a watcher does before it acknowledges.
    "/run/overseer/new-session-keys": f"""\
#!/bin/sh
while [ "$(cat {HERE}/part)" != mended ] && [ "$(cat {HERE}/part)" != hook ]; do
	sleep 0.2
done
""",
}


def write(path, text, mode=0o755):
    """Writes a file, with its directories."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def run(*command):
    """Has it succeed."""
    subprocess.run(command, check=True)


def shake_hands():
    """What the server drew for a handshake, or nothing."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", "127.0.0.1:443"]
        + ["-tls1_3", "-groups", "X25519", "-msg"],
        input="\n",
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return server_hello(done.stdout)
    except ValueError:
        return None


def be_a_client():
    """Shakes hands again and again, whatever comes of it."""
    while True:
        drawn = shake_hands()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if drawn:
            print(f"# handshake {now:.2f} {drawn[0]} {drawn[1]}", flush=True)
            served.append(now)
        else:
            time.sleep(0.1)


def listen():
    """The words that the host says."""
    with socket.socket(socket.AF_VSOCK) as aside:
        aside.bind((socket.VMADDR_CID_ANY, ASIDE))
        aside.listen()
        run("systemctl", "start", "sysgenid-serve-vsock.socket")
        while True:
            connection, (cid, _) = aside.accept()
            with connection:
                word = connection.recv(100).decode().strip() if cid == HOST else ""
                if word in ("watcher", "hook", "mended"):
                    write(f"{HERE}/part", word)
                connection.sendall(b"done\n")
            yield word


for name, content in FILES.items():
    write(name, content)
write(f"{HERE}/part", "mended")
# Hooks run as a user of their own.
os.chmod(HERE, 0o777)
run("systemctl", "daemon-reload")
run(
    *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    *["-quiet", "-subj", "/CN=localhost", "-keyout", "/tmp/key.pem", "-out", "/tmp/certificate.pem"],
)
run("systemctl", "start", "nginx.service")
run(
    *["systemd-run", "--quiet", "--unit=session-keys", "sysgenctl", "watch", "--track"],
    *["--exec", f"{HERE}/new-session-keys"],
)
served = []
threading.Thread(target=be_a_client, daemon=True).start()
while len(served) < WARM:
    time.sleep(0.1)
for said in listen():
    if said == "save":
        # nginx stands still; what it had drawn before is noted by then.
        while time.clock_gettime(time.CLOCK_BOOTTIME) < served[-1] + QUIET:
            time.sleep(0.1)
        write(f"{HERE}/part", "unknown")
        print("READY", flush=True)
    elif said == "end":
        with open(f"{HERE}/thaw", encoding="utf-8") as noted:
            print(f"# thaw {noted.read().strip()}", flush=True)
        # The client has nothing to finish.
        os._exit(0)
