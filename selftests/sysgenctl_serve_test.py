#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Calls sysgenctl serve as an orchestrator does, under the real systemd. Prints TAP.

Then it has the machine quiesced, says READY, and in each clone, or where the machine was resumed as
it was, has it brought back, with entropy of its own, and kills the service meanwhile. It
prints TAP again, and lines "# name value" for the host, which compares clones.

With --show it prints each call and its answer, too.

Wants to be root in a guest (lab clone --systemd).
"""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from sysgenctl_common import (
    check,
    check_equal,
    check_has,
    make_hook,
    read,
    run_tests,
    sysgenctl,
    until,
)

SOCKET = "/run/sysgenid-serve.socket"
STATE = "/run/sysgenid-serve/state"
HOOKS = "/etc/sysgenid"
LOG = "/run/serve_test.log"
UNIT = "serve-test-watcher.service"
UNAWARE = "serve-test-unaware.service"
# CAP_DAC_OVERRIDE, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_TIME
CAPABILITIES = 1 << 1 | 1 << 19 | 1 << 21 | 1 << 25
# How long a machine waits for its resume, and thereby for another ID.
PATIENCE = 4
SAID = "--show" in sys.argv


class Connection(http.client.HTTPConnection):
    """To the service's socket."""

    def __init__(self):
        super().__init__("localhost", timeout=120)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(SOCKET)


def call(method, path, body=None, status=200):
    """Calls, and wants this status."""
    connection = Connection()
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text)
    answer = connection.getresponse()
    said = answer.read().decode()
    connection.close()
    if SAID:
        print("".join(f"# > {line}\n" for line in [f"{method} {path} {text or ''}"]), end="")
        print("".join(f"# {line}\n" for line in said.splitlines()), end="", flush=True)
    check_equal(answer.status, status, f"the status of {path} ({said})")
    return json.loads(said) if answer.headers["content-type"] == "application/json" else said


def refused(path, body, status, code):
    """Calls, and wants to be refused with this word."""
    check_equal(call("POST", path, body, status)["error"]["code"], code, f"the code of {path}")


def systemctl(*arguments):
    """Has it succeed, and returns what it says."""
    done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
    check_equal(done.returncode, 0, f"systemctl {arguments}: {done.stderr}")
    return done.stdout.strip()


def main_pid(unit="sysgenid-serve.service"):
    """The service's process."""
    return int(systemctl("show", "--value", "--property=MainPID", unit))


def kill():
    """Ends it as nothing else would."""
    pid = main_pid()
    os.kill(pid, signal.SIGKILL)
    until("systemd starts it again", lambda: main_pid() not in (0, pid))


def is_frozen(unit=UNIT):
    """Whether it stands still."""
    path = systemctl("show", "--value", "--property=ControlGroup", unit)
    return "frozen 1" in read(f"/sys/fs/cgroup{path}/cgroup.events")


def resumed(token, **more):
    """What it is called with after the resume."""
    with open("/dev/vmgenid", "rb", buffering=0) as page:
        own = hashlib.sha512(page.read(16)).digest()
    entropy = base64.b64encode(own).decode()
    body = {"token": token, "entropy": entropy, "expect": "clone", "deadline": 100}
    return {**body, **more}


def prepare(**more):
    """Has the machine quiesced."""
    return call("POST", "/v1/prepare", {"deadline": 100, "freeze": [UNIT], **more})


def generation():
    """That of the device."""
    return call("GET", "/v1/status")["device"]["generation"]


def it_is_off_until_enabled():
    """Nothing listens."""
    for unit in "sysgenid-serve.socket", "sysgenid-serve-vsock.socket":
        done = subprocess.run(
            ["systemctl", "is-enabled", unit], check=False, capture_output=True, text=True
        )
        check_equal(done.stdout.strip(), "disabled", unit)
    check(not os.path.exists(SOCKET), "it listens")


def its_socket_starts_it():
    """As a user of its own, with four capabilities."""
    # Whoever is not root asks systemd over D-Bus, which is not in this guest.
    drop_in = "/run/systemd/system/sysgenid-serve.service.d/test.conf"
    os.makedirs(os.path.dirname(drop_in))
    with open(drop_in, "w", encoding="utf-8") as file:
        file.write("[Service]\nExecStart=\nExecStart=sysgenctl serve --no-units\n")
    systemctl("daemon-reload")
    systemctl("start", "sysgenid-serve.socket")
    check_equal(os.stat(SOCKET).st_mode & 0o777, 0o600, "the mode of the socket")
    check_equal(call("GET", "/v1/status")["phase"], "idle", "the phase")
    status = read(f"/proc/{main_pid()}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    check("0" not in fields["Uid"].split(), f"its users are {fields['Uid']}")
    for kind in "CapPrm", "CapEff", "CapBnd", "CapAmb":
        check_equal(int(fields[kind], 16), CAPABILITIES, kind)


def bad_requests_do_nothing():
    """Each has a word, and there is no trace of it."""
    own = read("/proc/self/cgroup").split("::")[1].strip()
    of_service = read(f"/proc/{main_pid()}/cgroup").split("::")[1].strip()
    for cgroup in own, of_service, os.path.dirname(of_service), "/init.scope":
        if cgroup != "/":
            refused("/v1/prepare", {"deadline": 9, "freeze": [cgroup]}, 403, "protected_cgroup")
    for name in "no-such.service", "/no/such", "/", "/../..":
        refused("/v1/prepare", {"deadline": 9, "freeze": [name]}, 400, "no_such_cgroup")
    for deadline in 0, 86401:
        refused("/v1/prepare", {"deadline": deadline}, 400, "deadline_range")
    token = "s1-1-2-3-" + "0" * 32
    refused("/v1/resumed", resumed(token), 409, "not_prepared")
    refused("/v1/resumed", resumed(token, entropy=None), 400, "entropy_missing")
    refused("/v1/resumed", resumed(token, time="1970-01-01T00:00:00Z"), 400, "time_range")
    refused("/v1/resumed", resumed(token, more=1), 400, "unknown_field")
    refused("/v1/resumed", resumed(token, entropy="A" * (1 << 20)), 413, "body_too_large")
    check_equal(read(LOG), "", "the log")
    check_equal(call("GET", "/v1/status")["phase"], "idle", "the phase")


def prepare_and_cancel():
    """What stood still goes on."""
    prepared = prepare()
    check(is_frozen(), "it does not stand still")
    check_equal([group["name"] for group in prepared["frozen"]], [UNIT], "what stands still")
    call("GET", "/ready", status=503)
    refused("/v1/prepare", {"deadline": 9}, 409, "already_prepared")
    call("POST", "/v1/cancel", {"token": prepared["token"]})
    check(not is_frozen(), "it stands still")
    refused("/v1/cancel", {"token": prepared["token"]}, 409, "token_spent")
    check_equal(read(LOG), "pre 0 \nundo 0 0\n", "the log")


def units_are_frozen_by_configuration():
    """Without a word from the caller; what does not run is left out."""
    subprocess.run(["sysgenctl", "unit", "--freeze", UNIT], check=True, stdout=subprocess.DEVNULL)
    for name in "no-such.service", "README":
        with open(f"{HOOKS}/freeze.d/{name}", "w", encoding="utf-8"):
            pass
    for freeze in [], [UNIT]:
        prepared = prepare(freeze=freeze)
        check_equal([group["name"] for group in prepared["frozen"]], [UNIT], "what stands still")
        check(is_frozen(), "it does not stand still")
        call("POST", "/v1/cancel", {"token": prepared["token"]})
    shutil.rmtree(f"{HOOKS}/freeze.d")


def it_is_one_or_the_other():
    """Neither touches what the other one has quiesced."""
    token = prepare()["token"]
    log = read(LOG)
    for phase in "pre", "post":
        ended = sysgenctl("snapshot-hooks", phase, status=1)
        check_has(ended.err, "sysgenctl serve has quiesced this machine", "/v1/cancel")
    check(is_frozen(), "it does not stand still")
    check_equal(read(LOG), log, "the log")
    call("POST", "/v1/cancel", {"token": token})
    sysgenctl("snapshot-hooks", "pre")
    refused("/v1/prepare", {"deadline": 9}, 409, "quiesced_elsewhere")
    sysgenctl("snapshot-hooks", "post", "--no-units")


def what_another_has_frozen_is_left_alone():
    """Nothing is quiesced, by itself or by the group that it is in."""
    log = read(LOG)
    path = systemctl("show", "--value", "--property=ControlGroup", UNIT)
    inner = f"/sys/fs/cgroup{path}/inner"
    os.mkdir(inner)
    for group in path, f"{path}/inner":
        for state in "1", "0":
            with open(f"/sys/fs/cgroup{path}/cgroup.freeze", "w", encoding="utf-8") as freezer:
                freezer.write(state)
            until("it does as it is told", lambda wanted=state == "1": is_frozen() == wanted)
            if state == "1":
                body = {"deadline": 9, "freeze": [group]}
                refused("/v1/prepare", body, 409, "already_frozen")
                check(is_frozen(), "it goes on")
    os.rmdir(inner)
    check_equal(read(LOG), log, "the log")
    check_equal(call("GET", "/v1/status")["phase"], "idle", "the phase")


def a_hook_that_fails_undoes_all():
    """And is named, with what it said."""
    make_hook(f"{HOOKS}/pre.d", "90-bad", "echo it is full; exit 3")
    answer = call("POST", "/v1/prepare", {"deadline": 100, "freeze": [UNIT]}, status=500)
    os.remove(f"{HOOKS}/pre.d/90-bad")
    check_equal(answer["error"]["code"], "hook_failed", "the code")
    check_has(answer["error"]["message"], "90-bad")
    check_equal(answer["report"]["hooks"][-1]["output"], "it is full\n", "what it said")
    check(not is_frozen(), "it stands still")


def killed_while_quiescing_it_undoes():
    """When it was started again, with nobody calling."""
    make_hook(f"{HOOKS}/pre.d", "90-slow", "sleep 60")
    connection = Connection()
    connection.request("POST", "/v1/prepare", json.dumps({"deadline": 100, "freeze": [UNIT]}))
    until("it runs hooks", lambda: call("GET", "/v1/status")["phase"] == "preparing")
    os.remove(f"{HOOKS}/pre.d/90-slow")
    kill()
    connection.close()
    until("it is undone", lambda: call("GET", "/v1/status")["phase"] == "idle")
    check_has(read(LOG).splitlines()[-1], "undo")


def killed_while_quiesced_it_stays_so():
    """And the token is good; the machine is the same one."""
    token = prepare()["token"]
    kill()
    check(is_frozen(), "it does not stand still")
    body = {"token": token, "expect": "same", "deadline": 100}
    report = call("POST", "/v1/resumed", body)
    check_equal((report["outcome"], report["generation"]), ("ready", 0), "the report")
    check(not is_frozen(), "it stands still")


def who_does_not_acknowledge_is_named():
    """And stands still again; the same call succeeds when it has ended."""
    subprocess.run(
        ["systemd-run", "--quiet", "--unit=serve-test-stubborn", "sysgenctl", "watch", "--track"]
        + ["--exec", "sleep", "1000"],
        check=True,
    )
    until("it watches", lambda: len(call("GET", "/v1/watchers")["watchers"]) == 2)
    token = prepare(freeze=[UNIT, "serve-test-stubborn.service"])["token"]
    answer = call("POST", "/v1/resumed", resumed(token, deadline=5), status=504)
    check_equal(answer["error"]["code"], "watchers_late", "the code")
    check_has(answer["error"]["message"], "sleep 1000")
    check_equal(answer["report"]["outcome"], "held", "the outcome")
    check(is_frozen(), "what comes after it goes on")
    path = systemctl("show", "--value", "--property=ControlGroup", "serve-test-stubborn.service")
    check_has(read(f"/sys/fs/cgroup{path}/cgroup.events"), "frozen 1")
    with open(f"/sys/fs/cgroup{path}/cgroup.kill", "w", encoding="utf-8") as file:
        file.write("1")
    report = call("POST", "/v1/resumed", resumed(token))
    check_equal(report["outcome"], "ready", "the outcome")
    check(not is_frozen(), "it stands still")


def numbers_for_prometheus():
    """Of the machine, and of what was done."""
    text = call("GET", "/metrics")
    check_has(text, "sysgenid_generation 1\n", "sysgenid_quiesced 0\n")
    check_has(text, 'sysgenid_changes_total{source="ioctl"} 1\n')
    check_has(text, 'sysgenid_resumes_total{outcome="held"} 1\n')
    check_has(text, "sysgenid_watchers_tracked 1\n", "sysgenid_watchers_outdated 0\n")
    call("GET", "/ready")


def what_knows_nothing_takes_part():
    """Frozen and tracked by a word each: another process runs when the caller is answered."""
    file = f"/run/systemd/system/{UNAWARE}"
    with open(file, "w", encoding="utf-8") as unit:
        unit.write("[Service]\nExecStart=/bin/sleep 1000\n")
    sysgenctl("unit", "--track", "--freeze", UNAWARE)
    systemctl("daemon-reload")
    systemctl("start", UNAWARE)
    wrapper = main_pid(UNAWARE)
    until(
        "it is tracked",
        lambda: any(
            watcher["pid"] == wrapper and watcher["tracked"]
            for watcher in call("GET", "/v1/watchers")["watchers"]
        ),
    )
    children = f"/proc/{wrapper}/task/{wrapper}/children"
    first = read(children)
    token = prepare(freeze=[])["token"]
    check(is_frozen(UNAWARE), "it does not stand still")
    report = call("POST", "/v1/resumed", resumed(token))
    check_equal(report["outcome"], "ready", "the outcome")
    check(first and read(children) not in ("", first), f"{first} is not another process now")
    check_equal(main_pid(UNAWARE), wrapper, "what watches in its place")
    systemctl("stop", UNAWARE)
    sysgenctl("unit", "--remove", UNAWARE)
    os.remove(file)
    systemctl("daemon-reload")


os.makedirs(f"{HOOKS}/pre.d", exist_ok=True)
with open(LOG, "w", encoding="utf-8"):
    os.chmod(LOG, 0o666)
for phase in "pre", "post":
    make_hook(
        f"{HOOKS}/{phase}.d", "hook", f'echo "$SYSGENID_PHASE $SYSGENID $SYSGENID_BEFORE" >>{LOG}'
    )
subprocess.run(
    ["systemd-run", "--quiet", f"--unit={UNIT}", "sysgenctl", "watch", "--track"]
    + ["--exec", "true"],
    check=True,
)
BEFORE = [
    it_is_off_until_enabled,
    its_socket_starts_it,
    bad_requests_do_nothing,
    prepare_and_cancel,
    units_are_frozen_by_configuration,
    it_is_one_or_the_other,
    what_another_has_frozen_is_left_alone,
    a_hook_that_fails_undoes_all,
    killed_while_quiescing_it_undoes,
    killed_while_quiesced_it_stays_so,
    who_does_not_acknowledge_is_named,
    numbers_for_prometheus,
    what_knows_nothing_takes_part,
]
# It ends with them.
child = os.fork()
if child == 0:
    run_tests(BEFORE)
os.waitpid(child, 0)

before = generation()
OLD = prepare()["token"]
call("POST", "/v1/cancel", {"token": OLD})
TOKEN = prepare()["token"]
# A hook that takes so long that the service can be killed in it.
make_hook(f"{HOOKS}/thaw.d", "slow", "sleep 5")
with open("/dev/vmgenid", "rb", buffering=0) as vmgenid:
    first = vmgenid.read(16)
    print("READY", flush=True)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and os.pread(vmgenid.fileno(), 16, 0) == first:
        pass
    CLONED = os.pread(vmgenid.fileno(), 16, 0) != first
print(f"# cloned {'yes' if CLONED else 'no'}", flush=True)


def tokens_of_before_are_refused():
    """Which leaves the machine quiesced."""
    refused("/v1/resumed", resumed(OLD), 409, "token_spent")
    other = TOKEN[:-1] + ("1" if TOKEN[-1] == "0" else "0")
    refused("/v1/resumed", resumed(other), 409, "token_of_another_snapshot")
    check(is_frozen(), "it does not stand still")


def a_clone_is_no_plain_resume():
    """And one that is none is one."""
    if CLONED:
        body = {"token": TOKEN, "expect": "same", "deadline": 100}
        refused("/v1/resumed", body, 409, "is_a_clone")
        check(is_frozen(), "it does not stand still")


def killed_while_resuming_it_finishes():
    """With nobody calling, and all has been renewed by then."""
    more = {"time": "2031-01-01T00:00:00Z"} if CLONED else {"expect": "same"}
    connection = Connection()
    connection.request("POST", "/v1/resumed", json.dumps(resumed(TOKEN, **more)))
    until("it runs hooks", lambda: call("GET", "/v1/status")["doing"] == "thaw_hooks")
    kill()
    connection.close()
    until("it is ready", lambda: call("GET", "/v1/status")["phase"] == "idle")
    last = call("GET", "/v1/status")["last"]
    check_equal((last["token"], last["outcome"]), (TOKEN, "ready"), "the report")
    check_equal(last["generation"], before + 1 if CLONED else before, "the generation")
    steps = [step["step"] for step in last["steps"]]
    names = "entropy clock change identity thaw_hooks watchers thaw post_hooks"
    check_equal(" ".join(steps), names, "the steps")
    check(not is_frozen(), "it stands still")
    check_equal(read(LOG).splitlines()[-1].split()[0], "post", "the last hook")
    call("GET", "/ready")
    if CLONED:
        check_equal(time.gmtime().tm_year, 2031, "the year")
    refused("/v1/resumed", resumed(TOKEN), 409, "token_spent")


def a_clone_can_be_a_template():
    """With a token of its own."""
    os.remove(f"{HOOKS}/thaw.d/slow")
    token = prepare()["token"]
    print(f"# token {token}")
    check(token != TOKEN, "it is the old token")
    check_equal(call("POST", "/v1/resumed", resumed(token))["outcome"], "ready", "the outcome")
    print(f"# random {os.urandom(16).hex()}")


run_tests(
    [
        tokens_of_before_are_refused,
        a_clone_is_no_plain_resume,
        killed_while_resuming_it_finishes,
        a_clone_can_be_a_template,
    ]
)
