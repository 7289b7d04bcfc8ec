# SPDX-License-Identifier: MIT OR Apache-2.0

"""The package on machines that lack something. Each class is a machine of its own."""

import os
import subprocess
import time
import unittest

import sysgenid
from sysgenid import Freshness, IdPage, SysGenId

from on_device import trigger


class Unmappable(unittest.TestCase):
    """The page of the ID cannot be mapped."""

    def test_the_id_is_read(self):
        opened = SysGenId()
        self.assertIs(opened.id_page, IdPage.READ)
        with open(sysgenid.ID_NODE, "rb", buffering=0) as node:
            self.assertEqual(opened.look().id, node.read(16))
        fresh = opened.settle()
        self.assertTrue(fresh.is_confirmed)
        trigger()
        self.assertNotEqual(opened.look(), fresh.seen)
        self.assertTrue(opened.settle().is_confirmed)
        for generator in sysgenid.SystemRandom(opened), sysgenid.Random(opened):
            self.assertNotEqual(generator.randbytes(16), generator.randbytes(16))


class WithoutId(unittest.TestCase):
    """There is no VMGenID device."""

    def test_the_generation_is_looked_at(self):
        opened = SysGenId()
        self.assertIs(opened.id_page, IdPage.ABSENT)
        seen = opened.look()
        self.assertIsNone(seen.id)
        for _ in range(2):
            fresh = opened.settle()
            self.assertIs(fresh.freshness, Freshness.NOT_RESEEDED)
            self.assertEqual(fresh.seen, opened.look())
            trigger()
        self.assertNotEqual(opened.look(), seen)


class WithoutModule(unittest.TestCase):
    """The module comes while the program runs."""

    def test_it_is_found_later(self):
        for make in SysGenId, sysgenid.SystemRandom, sysgenid.Random, sysgenid.Watcher:
            with self.assertRaisesRegex(sysgenid.NoDevice, "modprobe sysgenid"):
                make()
        opened = SysGenId(allow_missing=True)
        self.assertIs(opened.id_page, IdPage.NO_DEVICE)
        generator = sysgenid.Random(opened)
        generator.random()
        self.assertIs(generator.freshness, Freshness.NO_DEVICE)
        subprocess.run(["insmod", "/sysgenid.ko"], check=True)
        limit = time.monotonic() + 60
        while not os.path.exists(sysgenid.ID_NODE):
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.05)
        time.sleep(1)
        generator.random()
        self.assertIs(generator.freshness, Freshness.RESEEDED)
        self.assertIs(opened.id_page, IdPage.MAPPED)
