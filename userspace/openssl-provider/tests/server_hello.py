#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Takes apart what a TLS 1.3 server says first.

    openssl s_client -msg ... | server_hello.py
    server_hello.py --test

Reads what s_client shows of the messages, and prints the server's random bytes and
its ephemeral public key for X25519; or fails, if they are not all there:

    # random HEX
    # key HEX

With --test it tests itself, and prints TAP.
"""

import io
import itertools
import sys

SERVER_HELLO = 2
KEY_SHARE = 51
X25519 = 29


def take(file, size):
    """So many bytes, and no fewer."""
    taken = file.read(size)
    if len(taken) != size:
        raise ValueError("the ServerHello is too short")
    return taken


def number(file, size):
    """A number of so many bytes."""
    return int.from_bytes(take(file, size), "big")


def vector(file, size):
    """Bytes with their length before them, which has so many bytes."""
    return take(file, number(file, size))


def server_hello(output):
    """The random bytes and the public key of the first ServerHello."""
    lines = output.splitlines()
    lines = itertools.dropwhile(
        lambda line: not (line.startswith("<<<") and line.endswith("ServerHello")), lines
    )
    if next(lines, None) is None:
        raise ValueError("there is no ServerHello")
    # The bytes of a message are in lines that are indented.
    message = "".join(itertools.takewhile(lambda line: line.startswith(" "), lines))

    # RFC 8446, 4 and 4.1.3.
    message = io.BytesIO(bytes.fromhex(message))
    if number(message, 1) != SERVER_HELLO:
        raise ValueError("this is no ServerHello")
    body = io.BytesIO(vector(message, 3))
    take(body, 2)  # the version
    random = take(body, 32)
    vector(body, 1)  # the session's ID
    take(body, 3)  # the cipher suite, and the compression
    extensions = io.BytesIO(vector(body, 2))
    while extensions.tell() < len(extensions.getbuffer()):
        kind, extension = number(extensions, 2), io.BytesIO(vector(extensions, 2))
        # 4.2.8.
        if kind == KEY_SHARE and number(extension, 2) == X25519:
            key = vector(extension, 2)
            if len(key) != 32:
                raise ValueError("the key is too short")
            return random.hex(), key.hex()
    raise ValueError("the ServerHello has no key for X25519")


def shown(message):
    """A message as s_client shows it, among others."""
    head = f"TLS 1.3, Handshake [length {len(message):04x}]"
    lines = [">>> TLS 1.3, Handshake [length 0002], ClientHello", "    01 00"]
    lines.append(f"<<< {head}, ServerHello")
    for start in range(0, len(message), 16):
        lines.append("    " + message[start : start + 16].hex(" "))
    lines += ["<<< TLS 1.2, RecordHeader [length 0005]", "    17 03 03"]
    return "\n".join(lines) + "\n"


def message_with(random, extensions):
    """A ServerHello."""
    body = b"\3\3" + random + b"\0" + b"\x13\x02\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    return bytes([SERVER_HELLO]) + len(body).to_bytes(3, "big") + body


def is_refused(output):
    """Whether nothing is found there."""
    try:
        server_hello(output)
    except ValueError:
        return True
    return False


def test():
    """Prints TAP, and returns whether a test has failed."""
    random, key = b"\xab" * 32, b"\xcd" * 32
    version = bytes.fromhex("002b00020304")
    share = bytes.fromhex("00330024001d0020") + key
    whole = message_with(random, version + share)
    # As long as that of X25519, but of P-256.
    other_group = share.replace(b"\0\x1d", b"\0\x17")
    # Another length inside than outside.
    short_key = share.replace(b"\0\x20", b"\0\x1f")
    tests = {
        "it_is_taken_apart": server_hello(shown(whole)) == (random.hex(), key.hex()),
        "no_hello_is_refused": is_refused("")
        and is_refused(shown(whole).replace("ServerHello", "Finished")),
        "a_short_hello_is_refused": all(
            is_refused(shown(whole[:length])) for length in range(len(whole))
        ),
        "another_message_is_refused": is_refused(shown(b"\1" + whole[1:])),
        "no_key_is_refused": is_refused(shown(message_with(random, version))),
        "a_key_of_another_group_is_refused": is_refused(
            shown(message_with(random, version + other_group))
        ),
        "a_short_key_is_refused": is_refused(shown(message_with(random, version + short_key))),
    }
    print(f"TAP version 13\n1..{len(tests)}")
    for count, (name, good) in enumerate(tests.items(), 1):
        print(f"{'' if good else 'not '}ok {count} {name}")
    return not all(tests.values())


def main():
    """Does what the arguments say."""
    if sys.argv[1:] == ["--test"]:
        sys.exit(test())
    if sys.argv[1:]:
        sys.exit("usage: server_hello.py [--test]")
    try:
        random, key = server_hello(sys.stdin.read())
    except ValueError as error:
        sys.exit(f"server_hello.py: {error}")
    print(f"# random {random}\n# key {key}")


if __name__ == "__main__":
    main()
