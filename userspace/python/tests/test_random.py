# SPDX-License-Identifier: MIT OR Apache-2.0

"""What can be tested without the device: the generators."""

import copy
import pickle
import random
import statistics
import threading
import unittest
from unittest import mock

import sysgenid
from sysgenid import Freshness

from stand_in import LONG, SHORT, TestCase
from test_sysgenid import child

# What draws a number, by name; with arguments for which two results are hardly ever equal.
DRAWS = {
    "betavariate": (1, 1),
    "choice": (range(1 << 62),),
    "choices": (range(1 << 62),),
    "expovariate": (1,),
    "gammavariate": (1, 1),
    "gauss": (0, 1),
    "getrandbits": (128,),
    "lognormvariate": (0, 1),
    "normalvariate": (0, 1),
    "paretovariate": (1,),
    "randbytes": (16,),
    "randint": (0, 1 << 62),
    "random": (),
    "randrange": (1 << 62,),
    "sample": (range(1 << 62), 3),
    "triangular": (),
    "uniform": (0, 1),
    "vonmisesvariate": (0, 1),
    "weibullvariate": (1, 1),
}


def two(opened):
    """One of each."""
    return sysgenid.SystemRandom(opened), sysgenid.Random(opened)


class Generators(TestCase):
    """Both generators."""

    def both(self):
        """One of each."""
        return two(self.open())

    def test_they_are_what_programs_expect(self):
        system, plain = self.both()
        self.assertIsInstance(system, random.SystemRandom)
        self.assertIsInstance(plain, random.Random)
        for generator in system, plain:
            self.assertIs(type(generator)._randbelow, random.Random._randbelow_with_getrandbits)
            numbers = [generator.random() for _ in range(2000)]
            self.assertTrue(0 <= min(numbers) < 0.1 and 0.9 < max(numbers) < 1)
            numbers = [generator.gauss(10, 2) for _ in range(2000)]
            self.assertTrue(9.5 < statistics.mean(numbers) < 10.5)
            self.assertTrue(1.5 < statistics.stdev(numbers) < 2.5)
            self.assertEqual(len(generator.randbytes(33)), 33)
            self.assertEqual(generator.randbytes(0), b"")
            self.assertEqual(generator.getrandbits(0), 0)
            bits = [generator.getrandbits(13) for _ in range(500)]
            self.assertTrue(max(bits) < 1 << 13 and min(bits) >= 0 and max(bits) >= 1 << 12)
            with self.assertRaises(ValueError):
                generator.getrandbits(-1)
            with self.assertRaises(IndexError):
                generator.choice([])
            items = list(range(50))
            generator.shuffle(items)
            self.assertNotEqual(items, sorted(items))
            self.assertEqual(sorted(items), list(range(50)))
            for name, arguments in DRAWS.items():
                draw = getattr(generator, name)
                self.assertNotEqual(draw(*arguments), draw(*arguments), name)

    def test_all_draws_are_listed(self):
        """A method that a new version of Python brings may draw several times."""
        known = {*DRAWS, "binomialvariate", "shuffle", "seed", "getstate", "setstate", "VERSION"}
        public = {name for name in vars(random.Random) if not name.startswith("_")}
        self.assertLessEqual(public, known)

    def test_a_draw_across_a_change_is_thrown_away(self):
        """Whatever comes of it in the end was drawn after the change: what was drawn before it is
        the first bytes of the kernel."""
        for name, arguments in DRAWS.items():
            for kind in sysgenid.SystemRandom, sysgenid.Random:
                with self.subTest(name=name, kind=kind.__name__):
                    self.check_thrown_away(kind, name, arguments)

    def check_thrown_away(self, kind, name, arguments):
        """A machine that is cloned after the first draw of a call."""
        opened = self.open()
        generator = kind(opened)
        getattr(generator, name)(*arguments)
        before = opened.generation
        settle = opened.settle
        settles = []
        look = opened.look
        looks = 0

        def look_and_change():
            nonlocal looks
            looks += 1
            # The first look is the one before the draw, in any call.
            if looks == 2:
                self.device.set_id(before + 1)
                self.device.set_generation(before + 1)
            return look()

        def settle_and_count():
            fresh = settle()
            settles.append(fresh.seen.generation)
            return fresh

        with mock.patch.object(opened, "look", look_and_change):
            with mock.patch.object(opened, "settle", settle_and_count):
                getattr(generator, name)(*arguments)
        self.assertEqual(settles, [before + 1])
        self.assertEqual(generator._fresh.seen, look())

    def test_several_draws_are_one(self):
        """A machine that is cloned in the midst of them: all of them come after it."""
        for generator in self.both():
            drawn = []
            inner = generator.random

            def counted(drawn=drawn, inner=inner):
                drawn.append(inner())
                if len(drawn) == 5:
                    self.device.set_generation(self.device.sequence)
                return drawn[-1]

            with mock.patch.object(generator, "random", counted):
                choices = generator.choices(range(1000), k=10)
            self.assertEqual(len(drawn), 20)
            self.assertEqual(choices, [int(number * 1000) for number in drawn[10:]])

    def test_no_number_is_kept(self):
        """random.Random.gauss() computes two, and keeps one."""
        for generator in self.both():
            generator.gauss()
            self.assertIsNone(generator.gauss_next)

    def test_a_generation_that_never_rests_is_an_error(self):
        for generator in self.both():

            def draw():
                self.device.set_generation(self.device.sequence)

            with self.assertRaises(sysgenid.Unsettled):
                generator._whole(draw)
            generator.random()

    def test_a_new_id_is_waited_for(self):
        for generator in two(self.open(SHORT)):
            generator.random()
            self.assertIs(generator.freshness, Freshness.RESEEDED)
            self.device.set_id(self.device.sequence % 256)
            with self.assertLogs("sysgenid"):
                generator.random()
            self.assertIs(generator.freshness, Freshness.TIMED_OUT)
            self.device.set_generation(self.device.sequence)

    def test_a_forked_process_draws_something_else(self):
        for generator in self.both():
            generator.random()
            theirs = [child(lambda: generator.getrandbits(64)) for _ in range(2)]
            mine = str(generator.getrandbits(64))
            self.assertEqual(len({*theirs, mine}), 3)

    def test_a_lock_that_is_held_at_fork_does_not_hang_the_child(self):
        generator = sysgenid.Random(self.open())
        held, done = threading.Event(), threading.Event()

        def draw():
            held.set()
            done.wait(LONG)

        thread = threading.Thread(target=lambda: generator._whole(draw))
        thread.start()
        held.wait(LONG)
        # Nor does it go on where its parent was.
        theirs = child(lambda: generator.getrandbits(64))
        done.set()
        thread.join(LONG)
        self.assertNotEqual(theirs, str(generator.getrandbits(64)))
        self.assertTrue(theirs.isdigit(), theirs)

    def test_no_two_threads_draw_the_same(self):
        for generator in self.both():
            drawn = []

            def draws(drawn=drawn, generator=generator):
                drawn.extend([generator.getrandbits(64) for _ in range(500)])

            threads = [threading.Thread(target=draws) for _ in range(4)]
            for thread in threads:
                thread.start()
            self.device.set_generation(self.device.sequence)
            for thread in threads:
                thread.join(LONG)
            self.assertEqual(len(set(drawn)), 2000)

    def test_without_a_device(self):
        for kind in sysgenid.SystemRandom, sysgenid.Random:
            with mock.patch("sysgenid._sysgenid._device.open_generation") as opening:
                opening.side_effect = sysgenid.NoDevice(2, "there is none", "/dev/sysgenid")
                with self.assertRaises(sysgenid.NoDevice):
                    kind()
                generator = kind(allow_missing=True)
            generator.random()
            self.assertIs(generator.freshness, Freshness.NO_DEVICE)

    def test_no_state_comes_twice(self):
        generator = sysgenid.Random(self.open())
        before = generator.random()
        generator.seed()
        self.assertNotEqual(generator.random(), before)
        for call in generator.getstate, lambda: generator.setstate(()), lambda: generator.seed(1):
            self.assertRaises(NotImplementedError, call)
        for call in pickle.dumps, copy.copy:
            self.assertRaises(NotImplementedError, call, generator)


if __name__ == "__main__":
    unittest.main()
