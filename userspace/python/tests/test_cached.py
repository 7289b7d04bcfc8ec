# SPDX-License-Identifier: MIT OR Apache-2.0

"""What can be tested without the device: values that are built anew."""

import threading
import unittest

import sysgenid

from stand_in import LONG, SHORT, TestCase
from test_sysgenid import child


class Cached(TestCase):
    """Cached values."""

    def setUp(self):
        super().setUp()
        self.builds = 0
        self.opened = self.open()
        self.cached = sysgenid.Cached(self.opened, self.build)

    def build(self, _fresh):
        """A value that counts how often it was built."""
        self.builds += 1
        return self.builds

    def test_built_once_while_nothing_changes(self):
        self.assertEqual(self.builds, 0)
        for _ in range(3):
            self.assertEqual(self.cached.get(), 1)

    def test_built_once_for_each_change(self):
        for generation in range(3):
            self.device.set_generation(generation)
            for _ in range(2):
                self.assertEqual(self.cached.get(), generation + 1)

    def test_what_was_made_across_a_change_is_thrown_away(self):
        uses = []

        def use(build):
            uses.append(build)
            if len(uses) == 1:
                self.device.set_generation(1)
            return build

        self.assertEqual(self.cached.use(use), 2)
        self.assertEqual(uses, [1, 2])

    def test_built_again_if_the_machine_was_cloned_while_it_was_built(self):
        def build(fresh):
            if self.builds == 0:
                self.device.set_id(9)
                self.device.set_generation(1)
            return self.build(fresh)

        self.assertEqual(sysgenid.Cached(self.opened, build).get(), 2)

    def test_a_generation_that_never_rests_is_an_error(self):
        def use(_):
            self.device.set_generation(self.opened.generation + 1)

        with self.assertRaises(sysgenid.Unsettled):
            self.cached.use(use)
        self.cached.get()

    def test_a_build_that_fails_is_tried_again(self):
        def build(fresh):
            if self.build(fresh) == 1:
                raise ValueError("not today")
            return self.builds

        cached = sysgenid.Cached(self.opened, build)
        with self.assertRaisesRegex(ValueError, "not today"):
            cached.get()
        self.assertEqual(cached.get(), 2)

    def test_a_use_that_fails_costs_the_value(self):
        with self.assertRaises(ZeroDivisionError):
            self.cached.use(lambda build: build // 0)
        self.assertEqual(self.cached.get(), 2)

    def test_a_use_within_a_use(self):
        self.assertEqual(self.cached.use(lambda build: build + self.cached.get()), 2)

    def test_a_use_within_a_use_across_a_change(self):
        """The inner one builds anew; what the outer one has made of the old value is of no use."""

        def use(build):
            if build == 1:
                self.device.set_generation(1)
            return build, self.cached.get()

        self.assertEqual(self.cached.use(use), (2, 2))

    def test_threads_take_turns(self):
        held, done = threading.Event(), threading.Event()

        def hold(_):
            held.set()
            done.wait(LONG)

        threads = [threading.Thread(target=lambda use=use: self.cached.use(use)) for use in (hold, id)]
        threads[0].start()
        held.wait(LONG)
        threads[1].start()
        threads[1].join(SHORT)
        self.assertTrue(threads[1].is_alive())
        done.set()
        for thread in threads:
            thread.join(LONG)
        self.assertEqual(self.builds, 1)

    def test_a_forked_process_builds_its_own(self):
        self.assertEqual(self.cached.get(), 1)
        self.assertEqual(child(self.cached.get), "2")
        self.assertEqual(self.cached.get(), 1)

    def test_a_lock_that_is_held_at_fork_does_not_hang_the_child(self):
        held, done = threading.Event(), threading.Event()

        def use(_):
            held.set()
            done.wait(LONG)

        thread = threading.Thread(target=lambda: self.cached.use(use))
        thread.start()
        held.wait(LONG)
        self.assertEqual(child(self.cached.get), "2")
        done.set()
        thread.join(LONG)

    def test_a_fork_within_a_use(self):
        def use(build):
            return build, child(self.cached.get)

        self.assertEqual(self.cached.use(use), (1, "2"))

    def test_it_does_not_show_the_value(self):
        cached = sysgenid.Cached(self.opened, lambda _: "secret")
        cached.get()
        self.assertNotIn("secret", repr(cached))


if __name__ == "__main__":
    unittest.main()
