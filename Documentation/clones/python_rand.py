#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Draws by one of Python's modules, or by the package sysgenid, which lies beside this: each line
on standard input is answered with one on standard output, 16 bytes in hexadecimal or a UUID."""

import random
import secrets
import sys
import uuid

import sysgenid

# The package goes on without the device, as the module random does.
heeding = sysgenid.Random(allow_missing=True)
system = sysgenid.SystemRandom(allow_missing=True)

SOURCES = {
    "random": lambda: random.randbytes(16).hex(),
    "sysgenid.Random": lambda: heeding.randbytes(16).hex(),
    "sysgenid.SystemRandom": lambda: system.randbytes(16).hex(),
    "secrets": lambda: secrets.token_hex(16),
    "uuid1": lambda: str(uuid.uuid1()),
    "uuid4": lambda: str(uuid.uuid4()),
}


def main():
    """Answers until nobody asks any more."""
    if len(sys.argv) != 2 or sys.argv[1] not in SOURCES:
        sys.exit(f"Usage: {sys.argv[0]} {'|'.join(SOURCES)}")
    draw = SOURCES[sys.argv[1]]
    for _ in sys.stdin:
        print(draw(), flush=True)


main()
