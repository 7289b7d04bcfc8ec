#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Runs the tests of modules that lie beside this one, and prints TAP.

    tap.py MODULE...
"""

import os
import sys
import unittest

# They lie beside the package, or it is installed.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


class Result(unittest.TestResult):
    """What came of them, one line for each."""

    number = 0

    def startTest(self, test):
        super().startTest(test)
        self.good = True
        self.why = ""

    def addError(self, test, err):
        super().addError(test, err)
        self.fail(self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.fail(self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.fail(f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.why = f" # SKIP {reason}"

    def fail(self, text):
        """Notes it, and says why."""
        self.good = False
        for line in text.splitlines():
            print(f"# {line}")

    def stopTest(self, test):
        super().stopTest(test)
        self.number += 1
        word = "ok" if self.good else "not ok"
        name = test.id().replace(".test_", ".")
        print(f"{word} {self.number} {name}{self.why}", flush=True)


def main(names):
    """Runs them all."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    print(f"TAP version 13\n1..{suite.countTestCases()}", flush=True)
    result = Result()
    suite.run(result)
    print(f"# {result.testsRun} run", flush=True)
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
