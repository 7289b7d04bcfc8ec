# SPDX-License-Identifier: MIT OR Apache-2.0

"""What can be tested without the device: the protocol."""

import ctypes
import errno
import gc
import inspect
import itertools
import logging
import os
import pickle
import threading
import time
import unittest
from unittest import mock

import sysgenid
from sysgenid import Freshness, IdPage, SysGenId, _device, _process
from sysgenid._sysgenid import Guard

from stand_in import LONG, SHORT, TestCase


def silent(error):
    """The driver's answer to an ioctl."""

    def fail():
        raise OSError(error, os.strerror(error))

    return fail


class Look(TestCase):
    """Looks."""

    def both(self):
        """As a process that may map all pages, and as one that has to read."""
        mapped = self.open()
        self.assertIs(mapped.id_page, IdPage.MAPPED)
        return mapped, self.open_to_read()

    def test_equal_looks_mean_no_change(self):
        for opened in self.both():
            seen = opened.look()
            self.assertEqual(opened.look(), seen)
            self.device.set_generation(1)
            self.assertNotEqual(opened.look(), seen)
            self.device.set_generation(0)
            self.assertEqual(opened.look(), seen)
            self.device.set_id(1)
            self.assertNotEqual(opened.look(), seen)
            self.device.set_id(0)

    def test_the_epoch_alone_is_a_change(self):
        """The generation can come back, as after 2^32 changes."""
        opened = self.open()
        seen = opened.look()
        self.device.set_page(3, 0, 1 << 32)
        self.assertNotEqual(opened.look(), seen)
        self.assertEqual(opened.epoch, 1 << 32)

    def test_every_byte_of_the_id_counts(self):
        for opened in self.both():
            self.device.set_id(0)
            seen = opened.look()
            for place in range(16):
                for start in 0, 40:
                    os.pwrite(self.device.id_pages, b"\1", start + place)
                self.assertNotEqual(opened.look(), seen, place)
                self.device.set_id(0)
            self.device.set_id(7)
            self.assertEqual(opened.look().id, bytes([7] * 16))

    def test_a_forked_process_is_another_one(self):
        opened = self.open()
        seen = opened.look()
        self.assertEqual(child(lambda: opened.look() == seen), "False")
        self.assertEqual(child(lambda: opened.settle().seen == opened.look()), "True")
        self.assertEqual(opened.look(), seen)

    def test_a_child_of_a_child_is_another_one(self):
        opened = self.open()
        seen = opened.look()

        def grandchild():
            mine = opened.look()
            return child(lambda: opened.look() in (seen, mine))

        self.assertEqual(child(grandchild), "False")

    def test_a_child_that_c_code_has_forked_is_another_one(self):
        """Python does not know of it. (This is before the next one, which changes the page.)"""
        opened = self.open()
        seen = opened.look()
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            os._exit(opened.look() == seen)
        self.assertEqual(os.waitpid(pid, 0), (pid, 0))

    def test_a_kernel_that_does_not_wipe(self):
        """Then a function that Python calls in the child does it."""
        opened = self.open()
        seen = opened.look()
        keep = 19
        _process._page.obj.madvise(keep)
        try:
            self.assertEqual(child(lambda: opened.look() == seen), "False")
        finally:
            _process._page.obj.madvise(_process.MADV_WIPEONFORK)

    def test_there_is_always_another_number(self):
        number = _process.process_number()
        _process._forked()
        self.assertNotEqual(_process.process_number(), number)
        _process._last = 0xFFFFFFFF
        _process._forked()
        self.assertEqual(_process.process_number(), 1)

    def test_a_descriptor_that_is_another_files_is_not_read(self):
        opened = self.open_to_read()
        seen = opened.look()
        kept = inspect.getclosurevars(opened._opened.id.load).nonlocals["fd"]
        with open("/dev/zero", "rb") as other:
            os.dup2(other.fileno(), kept)
        self.assertNotEqual(opened.look(), seen)
        self.assertIsNone(opened.look().id)
        self.assertIs(opened.settle().freshness, Freshness.ID_NOT_SEEN)
        del opened
        # It is not closed either.
        os.close(kept)

    def test_without_the_id_only_the_generation_is_looked_at(self):
        opened = self.open_without_id()
        self.assertIs(opened.id_page, IdPage.ABSENT)
        self.assertIs(self.open(id_node=None).id_page, IdPage.NOT_WANTED)
        seen = opened.look()
        self.assertIsNone(seen.id)
        self.device.set_id(1)
        self.assertEqual(opened.look(), seen)
        # There is nothing to wait for, and nothing is confirmed: a change may be due.
        fresh = opened.settle()
        self.assertEqual(fresh.seen, seen)
        self.assertIs(fresh.freshness, Freshness.ID_NOT_SEEN)
        self.assertFalse(fresh.is_confirmed or opened.is_confirmed)
        self.device.set_generation(1)
        self.assertNotEqual(opened.look(), seen)

    def test_a_guard_notices(self):
        opened = self.open()
        guard = opened.guard()
        self.assertIsInstance(guard, Guard)
        guard.check()
        with opened.guard():
            pass
        with self.assertRaises(sysgenid.Changed), opened.guard():
            self.device.set_id(1)
        self.assertTrue(guard.has_changed)
        with self.assertRaises(sysgenid.Changed):
            guard.check()
        with self.assertRaises(KeyError), opened.guard():
            self.device.set_id(2)
            raise KeyError

    def test_fences_change_nothing_else(self):
        """What machines do that want them."""
        with mock.patch.object(_device, "NEEDS_FENCE", True):
            with mock.patch("sysgenid._sysgenid.NEEDS_FENCE", True):
                opened = self.open()
                seen = opened.look()
                self.assertTrue(opened.settle().is_confirmed)
                self.device.set_generation(1)
                self.assertNotEqual(opened.look(), seen)

    def test_it_cannot_be_pickled(self):
        with self.assertRaisesRegex(TypeError, "in each process"):
            pickle.dumps(self.open())


class Settle(TestCase):
    """Waiting for the kernel."""

    def test_an_overseers_change_is_settled_at_once(self):
        opened = self.open()
        self.device.trigger(1)
        fresh = opened.settle()
        self.assertTrue(fresh.is_confirmed and opened.is_confirmed)
        self.assertEqual(fresh.seen.generation, 1)

    def test_a_new_id_waits_for_the_answer(self):
        for opened in self.open(), self.open_to_read():
            generation = opened.generation + 1
            self.device.set_id(generation)
            self.assertFalse(opened.is_settled or opened.is_confirmed)
            self.check_it_waits(opened, lambda: self.device.set_generation(generation))
            self.assertTrue(opened.is_settled and opened.is_confirmed)

    def test_a_process_that_has_just_been_started_waits_for_the_answer(self):
        """One that is started in the window remembers nothing that it could compare with."""
        self.device.set_id(1)
        self.check_it_waits(self.open(), lambda: self.device.set_generation(1))

    def test_an_overseer_in_the_window_is_no_answer(self):
        """It changes the generation, and has seen no ID."""
        opened = self.open()
        self.device.set_id(1)
        self.device.trigger(1)
        self.check_it_waits(opened, lambda: self.device.set_generation(2))

    def test_an_answer_is_to_all_that_is_seen(self):
        opened = self.open(SHORT)
        for what, offset in ("generation", 8), ("ID", 16), ("ID", 28), ("epoch", 32):
            self.device.set_answer(offset, 9)
            with self.assertLogs("sysgenid"):
                self.assertIs(opened.settle().freshness, Freshness.TIMED_OUT, what)
            self.device.set_answer(offset, 0)
            self.assertTrue(opened.settle().is_confirmed)

    def test_an_answer_that_is_being_written_is_none(self):
        # Whoever writes it is stuck.
        self.device.set_answer(0, 3)
        with self.assertLogs("sysgenid"):
            self.assertIs(self.open(SHORT).settle().freshness, Freshness.TIMED_OUT)
        self.check_it_waits(self.open(), lambda: self.device.set_answer(0, 4))

    def test_an_answer_that_is_written_meanwhile_is_none(self):
        answer = self.open()._opened.id.answer
        load = answer._load

        def change():
            loaded = load()
            self.device.set_generation(1)
            return loaded

        self.assertIsNotNone(answer.load())
        with mock.patch.object(answer, "_load", change):
            self.assertIsNone(answer.load())
        self.assertEqual(answer.load().generation, 1)

    def test_answers_are_never_mixed_up(self):
        """What is remembered is what was compared, however often the answer changes meanwhile."""
        last = 200
        opened = self.open()

        def changes():
            for number in range(1, last + 1):
                self.device.set_id(number)
                self.device.set_generation(number)

        thread = threading.Thread(target=changes)
        thread.start()
        number = 0
        while number != last:
            fresh = opened.settle()
            number = fresh.seen.generation
            self.assertTrue(fresh.is_confirmed)
            self.assertEqual(fresh.seen.epoch, number)
            self.assertEqual(fresh.seen.id, bytes([number] * 16))
        thread.join()

    def test_a_silent_kernel_is_waited_for_up_to_the_limit(self):
        opened = self.open(SHORT)
        self.device.set_id(1)
        start = time.monotonic()
        with self.assertLogs("sysgenid", logging.WARNING) as log:
            fresh = opened.settle()
        self.assertGreaterEqual(time.monotonic() - start, SHORT)
        self.assertIs(fresh.freshness, Freshness.TIMED_OUT)
        self.assertFalse(fresh.is_confirmed)
        self.assertEqual(fresh.seen, opened.look())
        self.assertIn("dmesg", log.output[0])

    def test_a_trigger_confirms_nothing_for_a_silent_kernel(self):
        """The limit has passed; then an overseer changes the generation."""
        opened = self.open(SHORT)
        self.device.set_id(1)
        with self.assertLogs("sysgenid"):
            self.assertFalse(opened.settle().is_confirmed)
        self.device.trigger(1)
        with self.assertLogs("sysgenid"):
            self.assertFalse(opened.settle().is_confirmed)

    def test_a_kernel_that_was_not_reseeded_is_not_confirmed(self):
        self.device.change(1, 0)
        everybody = self.open(), self.open_to_read(), self.open_without_id()
        for opened in everybody:
            self.assertIs(opened.settle().freshness, Freshness.NOT_RESEEDED)
            self.assertFalse(opened.is_confirmed)
        self.device.set_generation(2)
        for opened in everybody[:2]:
            self.assertIs(opened.settle().freshness, Freshness.RESEEDED)

    def test_an_older_driver_does_not_say_whether_the_kernel_was_reseeded(self):
        """It has a generation, and zeroes after it."""
        self.device.set_page(0, 7, 0)
        opened = self.open_without_id()
        fresh = opened.settle()
        self.assertIs(fresh.freshness, Freshness.NOT_SAID)
        self.assertFalse(fresh.is_confirmed)
        self.assertEqual(fresh.seen[:3], (None, 7, 0))
        self.device.set_page(0, 8, 0)
        self.assertNotEqual(opened.look(), fresh.seen)

    def test_the_driver_is_asked(self):
        opened = self.open(hasten=True)
        self.device.set_id(1)
        self.device.settle = lambda: self.device.set_generation(1)
        with mock.patch("time.sleep", side_effect=AssertionError("it sleeps")):
            self.assertTrue(opened.settle().is_confirmed)

    def test_who_cannot_see_the_id_asks_the_driver(self):
        opened = self.open_without_id(hasten=True)
        self.device.set_id(1)
        self.device.settle = lambda: self.device.set_generation(1)
        fresh = opened.settle()
        self.assertTrue(fresh.is_confirmed)
        self.assertEqual(fresh.seen.generation, 1)
        self.device.settle = silent(errno.ETIME)
        with self.assertLogs("sysgenid"):
            self.assertIs(opened.settle().freshness, Freshness.TIMED_OUT)
        # An older driver.
        self.device.settle = silent(errno.ENOTTY)
        self.assertIs(opened.settle().freshness, Freshness.ID_NOT_SEEN)

    def test_a_driver_that_cannot_hasten_delays_nothing(self):
        for number, error in enumerate((errno.ENOTTY, errno.EINTR), 1):
            opened = self.open(hasten=True)
            self.device.settle = silent(error)
            self.device.set_id(number)
            self.check_it_waits(opened, lambda: self.device.set_generation(number))

    def test_a_driver_that_gives_up_is_not_waited_for_any_more(self):
        opened = self.open(hasten=True)
        self.device.settle = silent(errno.ETIME)
        self.device.set_id(1)
        start = time.monotonic()
        with self.assertLogs("sysgenid"):
            self.assertIs(opened.settle().freshness, Freshness.TIMED_OUT)
        self.assertLess(time.monotonic() - start, LONG / 2)


class Open(TestCase):
    """Nodes that are there, or not."""

    def test_no_device_is_an_error_that_says_what_to_do(self):
        for make in SysGenId, sysgenid.Watcher:
            with self.assertRaisesRegex(sysgenid.NoDevice, "^there is no /no/such.*modprobe") as it:
                make(node="/no/such")
            self.assertIsInstance(it.exception, FileNotFoundError)
            self.assertIsInstance(it.exception, sysgenid.Error)
            self.assertEqual(it.exception.errno, errno.ENOENT)
            self.assertEqual(it.exception.filename, "/no/such")

    def test_what_has_its_name_is_something_else(self):
        def enotty(*_):
            raise OSError(errno.ENOTTY, "")

        with mock.patch.object(_device, "ioctl", enotty):
            for make in SysGenId, sysgenid.Watcher:
                with self.assertRaisesRegex(sysgenid.NotTheDevice, "/dev/null is not the device"):
                    make(node="/dev/null")
            with self.assertRaises(sysgenid.NotTheDevice):
                SysGenId(node="/dev/null", allow_missing=True)

    def test_a_node_that_may_not_be_opened(self):
        def eacces(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        with mock.patch("os.open", eacces):
            with self.assertRaisesRegex(sysgenid.Forbidden, "may not be opened: .*its mode") as it:
                SysGenId(allow_missing=True)
        self.assertIsInstance(it.exception, PermissionError)

    def test_an_id_node_that_cannot_be_used_is_said(self):
        opening = os.open

        def forbidden(path, flags):
            if path == self.device.id_node:
                raise PermissionError(errno.EACCES, "Permission denied")
            return opening(path, flags)

        with mock.patch("os.open", forbidden):
            opened = self.open()
        self.assertIs(opened.id_page, IdPage.FORBIDDEN)
        self.assertIsInstance(opened.id_error, sysgenid.Forbidden)
        for offset in 4, _device.mmap.PAGESIZE - 8, -8:
            with mock.patch.object(_device, "ioctl", lambda *_, offset=offset: offset):
                opened = self.open()
            self.assertIs(opened.id_page, IdPage.FAILED)
            self.assertIn(f"the ID at {offset}", str(opened.id_error))

    def test_nothing_stays_open(self):
        gc.collect()
        before = os.listdir("/proc/self/fd")
        opened = [self.open(), self.open_without_id()]
        if _device.sys.version_info >= (3, 13):
            self.assertEqual(os.listdir("/proc/self/fd"), before)
        self.device.can_be_mapped = False
        opened.append(self.open())
        opened.clear()
        gc.collect()
        self.assertEqual(os.listdir("/proc/self/fd"), before)

    def test_a_device_that_is_missing(self):
        path = os.path.join(self.device.directory, "later")
        opened = self.open(node=path, allow_missing=True)
        seen = opened.look()
        self.assertEqual(opened.look(), seen)
        self.assertIs(opened.id_page, IdPage.NO_DEVICE)
        fresh = opened.settle()
        self.assertIs(fresh.freshness, Freshness.NO_DEVICE)
        self.assertFalse(fresh.is_confirmed)
        self.assertEqual(len(fresh.randbytes(7)), 7)
        self.assertTrue(opened.is_settled)

    def test_a_device_that_comes_later(self):
        path = os.path.join(self.device.directory, "later")
        opened = self.open(node=path, allow_missing=True)
        seen = opened.look()
        os.symlink(self.device.node, path)
        self.assertEqual(opened.look(), seen, "it is looked for once a second")
        with mock.patch("sysgenid._sysgenid.LOOK_FOR", 0):
            self.assertNotEqual(opened.look(), seen)
        self.assertIs(opened.id_page, IdPage.MAPPED)
        self.assertTrue(opened.settle().is_confirmed)


class Bytes(TestCase):
    """What a Fresh gives."""

    def test_more_is_folded_in_always(self):
        """A kernel that gives all clones the same."""
        opened = self.open()
        fresh = opened.settle()
        with mock.patch("os.urandom", lambda size: bytes([7] * size)):
            first = fresh.randbytes(40)
            # Nor by a clock that stands still.
            with mock.patch("time.time_ns", lambda: 0), mock.patch("time.perf_counter_ns", lambda: 0):
                self.assertNotEqual(fresh.randbytes(40), fresh.randbytes(40))
            # In clones all but the clock is the same.
            with mock.patch("sysgenid._fresh._calls", itertools.repeat(0)):
                self.assertNotEqual(fresh.randbytes(40), fresh.randbytes(40))
        self.assertFalse(any(first[at : at + 8] == bytes([7] * 8) for at in range(0, 40, 8)))

    def test_all_that_tells_clones_apart_is_in_the_seed(self):
        opened = self.open()

        def seed(number, generation, key=b"k", moment=b"m"):
            self.device.set_id(number)
            self.device.set_generation(generation)
            return opened.settle()._seed(key, moment)

        same = seed(1, 1)
        self.assertEqual(seed(1, 1), same)
        for other in seed(2, 1), seed(1, 2), seed(1, 1, b"l"), seed(1, 1, b"k", b"n"):
            self.assertNotEqual(other, same)

    def test_every_byte_is_filled(self):
        fresh = self.open().settle()
        for size in 0, 1, 31, 300:
            seen = bytes(size)
            for _ in range(64):
                drawn = fresh.randbytes(size)
                self.assertEqual(len(drawn), size)
                seen = bytes(one | other for one, other in zip(seen, drawn))
            self.assertEqual(seen, bytes([255] * size))

    def test_it_shows_no_id(self):
        self.device.set_id(0x5A)
        self.device.set_generation(1)
        self.assertEqual(repr(self.open().settle()), "<Fresh generation=1 RESEEDED>")


def child(function):
    """What a forked process makes of it, as a text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writer, str(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read().decode()
    _, status = os.waitpid(pid, 0)
    return text if status == 0 else f"it failed: {status}"


if __name__ == "__main__":
    unittest.main()
