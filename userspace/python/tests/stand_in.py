# SPDX-License-Identifier: MIT OR Apache-2.0

"""Files instead of the device, for what can be tested without it."""

import errno
import mmap
import os
import shutil
import struct
import tempfile
import threading
import unittest
from unittest import mock

import sysgenid
from sysgenid import _device

# The offset that QEMU uses.
OFFSET = 40
ANSWER = mmap.PAGESIZE

# Seconds: short enough to wait for in vain, and longer than any test.
SHORT = 0.02
LONG = 60.0


class StandIn:
    """A machine with the driver: at first, generation 0, and an ID of zeroes that is answered."""

    def __init__(self):
        self.directory = tempfile.mkdtemp()
        self.node = os.path.join(self.directory, "sysgenid")
        self.id_node = os.path.join(self.directory, "vmgenid")
        self.page = self._make(self.node, mmap.PAGESIZE)
        self.id_pages = self._make(self.id_node, 2 * mmap.PAGESIZE)
        self.sequence = 0
        self.can_be_mapped = True
        # What SETTLE does.
        self.settle = lambda: None
        self.set_generation(0)

    @staticmethod
    def _make(path, size):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, size)
        return fd

    def remove(self):
        """Closes and removes its files."""
        os.close(self.page)
        os.close(self.id_pages)
        shutil.rmtree(self.directory)

    def set_generation(self, generation):
        """A change as the driver makes it, which has reseeded the kernel: the ID that is there is
        answered."""
        self.change(generation, _device.FLAG_RESEEDED)

    def change(self, generation, flags):
        """The same, but the flag says whether it has."""
        self._publish(generation, flags, os.pread(self.id_pages, 16, OFFSET))

    def trigger(self, generation):
        """A change by an overseer: what is answered stays so."""
        answered = os.pread(self.id_pages, 16, ANSWER + 16)
        self._publish(generation, _device.FLAG_RESEEDED, answered)

    def _publish(self, generation, flags, answered):
        self.set_answer(0, self.sequence + 1)
        self.set_page(_device.FLAG_FIELDS | flags, generation, generation)
        self.set_answer(4, flags)
        self.set_answer(8, generation)
        os.pwrite(self.id_pages, answered, ANSWER + 16)
        os.pwrite(self.id_pages, struct.pack("=Q", generation), ANSWER + 32)
        self.sequence += 2
        self.set_answer(0, self.sequence)

    def set_page(self, flags, generation, epoch):
        """Writes the generation page alone. An older driver has flags and an epoch of 0."""
        os.pwrite(self.page, struct.pack("=I", flags), 4)
        os.pwrite(self.page, struct.pack("=I", generation), 0)
        os.pwrite(self.page, struct.pack("=Q", epoch), 8)

    def set_answer(self, offset, number):
        """Writes a number in the answer page alone."""
        os.pwrite(self.id_pages, struct.pack("=I", number), ANSWER + offset)

    def set_id(self, number):
        """What the hypervisor does."""
        # Whoever cannot map it reads it at the beginning.
        os.pwrite(self.id_pages, bytes([number] * 16), 0)
        os.pwrite(self.id_pages, bytes([number] * 16), OFFSET)

    def ioctl(self, _fd, request, _argument):
        """The driver's."""
        if request == _device.GET_OFFSET:
            return OFFSET
        if request == _device.SETTLE:
            self.settle()
        return 0

    def map_page(self, fd, offset):
        """The driver's mmap()."""
        is_id = os.fstat(fd).st_ino == os.fstat(self.id_pages).st_ino
        if is_id and offset == 0 and not self.can_be_mapped:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return _map_page(fd, offset)


_map_page = _device.map_page


class TestCase(unittest.TestCase):
    """A test that has such a machine, as ``self.device``."""

    def setUp(self):
        self.device = StandIn()
        self.addCleanup(self.device.remove)
        for name in "ioctl", "map_page":
            patch = mock.patch.object(_device, name, getattr(self.device, name))
            patch.start()
            self.addCleanup(patch.stop)

    def open(self, limit=LONG, hasten=False, **options):
        """Opens it as a process that may map all pages."""
        options = {"node": self.device.node, "id_node": self.device.id_node, **options}
        return sysgenid.SysGenId(limit=limit, hasten=hasten, **options)

    def open_to_read(self, limit=LONG):
        """Opens it where the hypervisor's page cannot be mapped."""
        self.device.can_be_mapped = False
        opened = self.open(limit)
        self.assertIs(opened.id_page, sysgenid.IdPage.READ)
        return opened

    def open_without_id(self, limit=LONG, **options):
        """Opens it without /dev/vmgenid."""
        return self.open(limit, id_node=os.path.join(self.device.directory, "none"), **options)

    def check_it_waits(self, opened, answer):
        """Settles while the kernel is not heard of, then has it answer, and checks that this was
        waited for."""
        settled = []
        thread = threading.Thread(target=lambda: settled.append(opened.settle()))
        thread.start()
        thread.join(SHORT)
        self.assertTrue(thread.is_alive(), "the kernel has not been heard")
        answer()
        thread.join(LONG)
        self.assertIs(settled[0].freshness, sysgenid.Freshness.RESEEDED)
        self.assertEqual(settled[0].seen, opened.look())
