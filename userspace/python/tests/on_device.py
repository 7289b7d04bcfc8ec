# SPDX-License-Identifier: MIT OR Apache-2.0

"""The package on the real device. This wants a machine that has it, and root; each test changes the
generation."""

import asyncio
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

import sysgenid
from sysgenid import Freshness, IdPage, SysGenId, Watcher

from test_sysgenid import child

TRIGGER_GEN_UPDATE = 0xE403
NOBODY = 65534

# Seconds: a limit makes a failure of a hang, and the other is short enough to wait for in vain.
LIMIT = 60
SHORT = 0.05


def trigger():
    """Changes the generation, and returns the new one."""
    fd = os.open(sysgenid.NODE, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, TRIGGER_GEN_UPDATE, 0)
    finally:
        os.close(fd)
    return SysGenId().generation


def as_nobody(function):
    """What an unprivileged process makes of it, as a text."""

    def unprivileged():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return function()

    return child(unprivileged)


def descriptors():
    """Those that are open."""
    return sorted(os.listdir("/proc/self/fd"))


def fdinfo(watcher):
    """What the driver says of a watcher."""
    with open(f"/proc/self/fdinfo/{watcher.fileno()}", encoding="ascii") as file:
        return dict(line.rstrip().split(":\t") for line in file if ":\t" in line)


class Looks(unittest.TestCase):
    """SysGenId, and what heeds it."""

    def test_both_pages_are_mapped_for_root(self):
        opened = SysGenId()
        self.assertIs(opened.id_page, IdPage.MAPPED)
        self.assertIsNone(opened.id_error)
        with open(sysgenid.ID_NODE, "rb", buffering=0) as node:
            self.assertEqual(opened.look().id, node.read(16))
        self.assertTrue(opened.is_settled and opened.is_confirmed)

    def test_nothing_stays_open(self):
        before = descriptors()
        opened = SysGenId()
        self.assertTrue(opened.settle().is_confirmed)
        self.assertEqual(descriptors(), before)

    def test_a_trigger_is_seen_at_the_next_look(self):
        opened = SysGenId()
        seen = opened.look()
        new = trigger()
        self.assertNotEqual(opened.look(), seen)
        fresh = opened.settle()
        self.assertIs(fresh.freshness, Freshness.RESEEDED)
        self.assertEqual((opened.generation, opened.epoch), (new, seen.epoch + 1))
        self.assertEqual(fresh.seen, opened.look())
        self.assertEqual(fresh.seen.id, seen.id)

    def test_who_may_not_see_the_id(self):
        """The node is root's here. The driver, which sees it, is asked."""

        def settle():
            opened = SysGenId()
            asked = opened.settle().freshness.name
            blind = SysGenId(hasten=False).settle().freshness.name
            return opened.id_page.name, type(opened.id_error).__name__, asked, blind

        expected = "FORBIDDEN", "Forbidden", "RESEEDED", "ID_NOT_SEEN"
        self.assertEqual(as_nobody(settle), str(expected))

    def test_it_goes_on_without_privileges_and_files(self):
        opened = SysGenId()
        before = opened.look()
        trigger()

        def elsewhere():
            os.chroot("/proc/self/fdinfo")
            return opened.look() != before, opened.settle().is_confirmed

        self.assertEqual(child(elsewhere), "(True, True)")
        self.assertEqual(as_nobody(lambda: opened.settle().is_confirmed), "True")

    def test_a_cached_value_is_built_once_for_each_change(self):
        token = sysgenid.Cached(SysGenId(), lambda fresh: fresh.randbytes(16))
        tokens = set()
        for _ in range(3):
            tokens.add(token.get())
            self.assertEqual(len({*tokens, token.get()}), len(tokens))
            trigger()
        self.assertEqual(len(tokens), 3)

    def test_a_guard_notices_a_trigger(self):
        guard = SysGenId().guard()
        guard.check()
        trigger()
        with self.assertRaises(sysgenid.Changed):
            guard.check()

    def test_a_generator_is_seeded_once_for_each_change(self):
        for kind in sysgenid.SystemRandom, sysgenid.Random:
            generator = kind()
            generator.random()
            fresh = generator._fresh
            generator.random()
            self.assertIs(generator._fresh, fresh)
            new = trigger()
            generator.random()
            self.assertEqual(generator._fresh.seen.generation, new)
            self.assertIs(generator.freshness, Freshness.RESEEDED)

    def test_forked_processes_draw_something_else(self):
        opened = SysGenId()
        cached = sysgenid.Cached(opened, lambda fresh: fresh.randbytes(16).hex())
        draws = [cached.get]
        for kind in sysgenid.SystemRandom, sysgenid.Random:
            draws.append(lambda generator=kind(opened): generator.randbytes(16).hex())
        for draw in draws:
            draw()
            drawn = [child(draw), child(draw), as_nobody(draw), draw()]
            self.assertEqual(len(set(drawn)), 4, drawn)
            self.assertEqual({len(text) for text in drawn}, {32}, drawn)

    def test_threads_draw_while_the_generation_changes(self):
        generators = sysgenid.SystemRandom(), sysgenid.Random()
        over = threading.Event()
        drawn = [[] for _ in range(4)]
        failed = []

        def draws(number):
            try:
                while not over.is_set():
                    drawn[number].append(generators[number % 2].getrandbits(64))
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=draws, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            trigger()
            time.sleep(0.01)
        over.set()
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual(failed, [])
        for numbers in drawn:
            self.assertGreater(len(numbers), 20)
        numbers = sum(drawn, [])
        self.assertEqual(len(set(numbers)), len(numbers))

    def test_a_look_makes_no_system_call(self):
        """Neither does a draw from Random."""
        program = (
            "import os, sysgenid; random = sysgenid.Random(); look = sysgenid.SysGenId().look\n"
            "for _ in range(50): look(), random.random()\n"
            "os.getpgid(0)\n"
            "for _ in range(500): look(), random.random()\n"
            "os.getpgid(0)\n"
        )
        path = os.path.dirname(os.path.dirname(sysgenid.__file__))
        strace = ["strace", "-o", "/tmp/strace", sys.executable, "-c", program]
        subprocess.run(strace, check=True, env={**os.environ, "PYTHONPATH": path})
        with open("/tmp/strace", encoding="utf-8") as log:
            _, between, _ = log.read().split("getpgid(0)")
        calls = between.splitlines()[1:]
        # Memory is got now and then.
        memory = "brk(", "mmap(NULL, ", "munmap("
        self.assertEqual([call for call in calls if not call.startswith(memory)], [])
        self.assertLess(len(calls), 10)


class Watchers(unittest.TestCase):
    """Watcher, without asyncio."""

    def test_outdated_until_it_is_acknowledged(self):
        with Watcher() as watcher:
            self.assertIsNone(watcher.outdated())
            self.assertIsNone(watcher.wait(SHORT))
            self.assertEqual(select.select([watcher], [], [], 0)[0], [])
            old, new = trigger(), trigger()
            for _ in range(2):
                self.assertEqual(watcher.outdated(), new)
                self.assertEqual(watcher.wait(0), new)
                self.assertEqual(select.select([watcher], [], [], 0)[0], [watcher])
            with self.assertRaisesRegex(sysgenid.Superseded, f"{old} is not the current"):
                watcher.ack(old)
            self.assertEqual(watcher.outdated(), new)
            watcher.ack(new)
            watcher.ack(new)
            self.assertIsNone(watcher.outdated())

    def test_it_sleeps_until_the_change(self):
        with Watcher() as watcher:
            for timeout in None, 1e9:
                woken = []
                thread = threading.Thread(target=lambda t=timeout: woken.append(watcher.wait(t)))
                thread.start()
                thread.join(SHORT)
                self.assertTrue(thread.is_alive())
                new = trigger()
                thread.join(LIMIT)
                self.assertEqual(woken, [new])
                watcher.ack(new)

    def test_a_signal_does_not_end_the_wait(self):
        came = []
        before = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
        signal.setitimer(signal.ITIMER_REAL, SHORT, SHORT)
        try:
            with Watcher() as watcher:
                start = time.monotonic()
                self.assertIsNone(watcher.wait(4 * SHORT))
                self.assertGreaterEqual(time.monotonic() - start, 4 * SHORT)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.assertGreater(len(came), 0)

    def test_tracking(self):
        with Watcher(tracked=True) as watcher:
            self.assertEqual(fdinfo(watcher)["sysgenid-tracked"], "1")
            watcher.set_tracked(False)
            self.assertEqual(fdinfo(watcher)["sysgenid-tracked"], "0")

    def test_it_is_closed(self):
        before = descriptors()
        watcher = Watcher()
        self.assertNotEqual(descriptors(), before)
        self.assertFalse(os.get_inheritable(watcher.fileno()))
        watcher.close()
        watcher.close()
        self.assertTrue(watcher.closed)
        self.assertRaises(ValueError, watcher.outdated)
        Watcher()
        self.assertEqual(descriptors(), before)

    def test_a_forked_process_shares_it(self):
        with Watcher() as watcher:
            new = trigger()
            self.assertEqual(child(lambda: watcher.ack(watcher.outdated())), "None")
            self.assertIsNone(watcher.outdated())
            self.assertEqual(SysGenId().generation, new)

    def test_other_files_are_no_devices(self):
        for make in Watcher, SysGenId:
            for other in "/dev/null", "/dev/zero":
                with self.assertRaises(sysgenid.NotTheDevice):
                    make(node=other)
            with self.assertRaises(sysgenid.NoDevice):
                make(node="/dev/sysgenid/below")
        opened = SysGenId(id_node="/dev/null")
        self.assertIs(opened.id_page, IdPage.FAILED)
        os.chmod(sysgenid.NODE, 0)
        try:
            said = as_nobody(lambda: refusal(lambda: Watcher()))
        finally:
            os.chmod(sysgenid.NODE, 0o666)
        self.assertEqual(said, f"Forbidden {errno.EACCES}")


def refusal(function):
    """The error that it raises."""
    try:
        function()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    return "none"


class Asyncio(unittest.IsolatedAsyncioTestCase):
    """Watcher, with asyncio."""

    async def asyncSetUp(self):
        self.watcher = Watcher()
        self.addCleanup(self.watcher.close)

    async def test_changed_waits(self):
        waiting = [asyncio.create_task(self.watcher.changed()) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=SHORT)
        self.assertEqual(done, set())
        new = trigger()
        self.assertEqual(await asyncio.wait_for(asyncio.gather(*waiting), LIMIT), [new] * 3)
        # It is not acknowledged.
        self.assertEqual(await self.watcher.changed(), new)
        self.watcher.ack(new)

    async def test_who_is_cancelled_leaves_nothing(self):
        before = descriptors()
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(self.watcher.changed(), SHORT)
        self.assertEqual(descriptors(), before)

    async def test_all_changes(self):
        rebuilt = []

        async def rebuild():
            async for generation in self.watcher.changes():
                self.assertEqual(self.watcher.outdated(), generation)
                rebuilt.append(generation)
                if len(rebuilt) == 1:
                    # One more, while the first one is rebuilt for.
                    expected.append(trigger())
                elif len(rebuilt) == 3:
                    return

        expected = [trigger()]
        task = asyncio.create_task(rebuild())
        while len(rebuilt) < 2:
            await asyncio.sleep(SHORT)
        self.assertIsNone(self.watcher.outdated())
        await asyncio.sleep(SHORT)
        self.assertFalse(task.done())
        expected.append(trigger())
        await asyncio.wait_for(task, LIMIT)
        self.assertEqual(rebuilt, expected)
        # The last one was left by `return`.
        self.assertEqual(self.watcher.outdated(), expected[-1])

    async def test_it_settles_in_a_thread(self):
        fresh = await asyncio.to_thread(SysGenId().settle)
        self.assertTrue(fresh.is_confirmed)
