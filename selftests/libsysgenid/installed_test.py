#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""The C library as it is installed: it, its header and its manual page fit together. Prints TAP.

    FILES=DIR installed_test.py (after make install PREFIX=/usr DESTDIR=DIR/installed)

Wants clang and nm.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile

USR = os.path.join(os.environ["FILES"], "installed/usr")
HEADERS = os.path.join(USR, "include")


class Failed(Exception):
    """A test has failed, for this reason."""


def check(condition, why):
    """Fails the test unless the condition holds."""
    if not condition:
        raise Failed(why)


def check_same(what, found, expected):
    """Fails the test unless these sets are equal."""
    check(found == expected, f"{what} differ: {sorted(found ^ expected)}")


def read(path):
    """The text of a file that is installed."""
    with open(os.path.join(USR, path), encoding="utf-8") as file:
        return file.read()


def output_of(*command):
    """What a command prints, which must succeed."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    check(done.returncode == 0, f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def declared_in(header):
    """The functions that a header declares: neither what comments name, nor types."""
    return set(re.findall(r"^[A-Za-z][^(\n]*[ \t*](sysgenid_\w*)\(", header, re.MULTILINE))


def declared():
    """The functions that the header declares."""
    found = declared_in(read("include/sysgenid.h"))
    check(found, "the header declares nothing")
    return found


def lines_from(lines, is_first):
    """The lines from the first one on of which that is true."""
    return itertools.dropwhile(lambda line: not is_first(line), lines)


def declarations_are_found():
    """Otherwise the other tests would compare less than there is."""
    header = """\
/**
 * As sysgenid_other(), and more.
 */
struct sysgenid_seen {
        bool flag;
};
SYSGENID_MUST_USE
int sysgenid_one(struct sysgenid **handle,
                 const char *node);
const char *sysgenid_two(void);
"""
    check_same("found and expected", declared_in(header), {"sysgenid_one", "sysgenid_two"})


def exported():
    """The functions that leave the library, each with its version."""
    library = os.path.join(USR, "lib/x86_64-linux-gnu/libsysgenid.so")
    symbols = output_of("nm", "--dynamic", "--defined-only", "--format=just-symbols", library)
    pairs = [symbol.partition("@@") for symbol in symbols.splitlines()]
    # A version is a symbol as well.
    versions = {version for _, _, version in pairs}
    return {name: version for name, _, version in pairs if name not in versions}


def it_exports_what_its_header_declares():
    """Nothing but that leaves the library, and all of that does."""
    check_same("exported and declared", set(exported()), declared())


def its_symbols_have_versions():
    """So that a program which wants a newer function says so when it is started."""
    without = {name for name, version in exported().items() if not version}
    check(not without, f"these have no version: {without}")


def its_directories_can_be_moved():
    """A prefix that is told to pkg-config is that of all directories."""
    package = read("lib/x86_64-linux-gnu/pkgconfig/sysgenid.pc")
    variables = dict(re.findall(r"^(\w+)=(.*)$", package, re.MULTILINE))
    check(variables["prefix"] == "/usr", f"the prefix is {variables['prefix']}")
    for name in ("libdir", "includedir"):
        check(variables[name].startswith("${prefix}/"), f"{name} is {variables[name]}")


def its_header_is_one_for_cplusplus():
    """A program in C++ can include it, and asks the linker for the functions' names in C."""
    with tempfile.TemporaryDirectory() as directory:
        program, made = os.path.join(directory, "main.cc"), os.path.join(directory, "o")
        with open(program, "w", encoding="utf-8") as file:
            file.write("#include <sysgenid.h>\nint main() { sysgenid_close(nullptr); return 0; }\n")
        strict = ("-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror")
        output_of("clang", *strict, "-I", HEADERS, "-c", "-o", made, program)
        wanted = output_of("nm", "--undefined-only", "--format=just-symbols", made)
    check("sysgenid_close" in wanted.splitlines(), f"the linker would be asked for {wanted}")


def its_manual_page_has_all_functions():
    """The synopsis has what the header has, and nothing else."""
    page = lines_from(read("share/man/man3/sysgenid.3").splitlines(), ".Sh SYNOPSIS".__eq__)
    synopsis = itertools.takewhile(".Sh DESCRIPTION".__ne__, page)
    documented = {line.split(" ")[1] for line in synopsis if line.startswith((".Fn ", ".Fo "))}
    check_same("documented and declared", documented, declared())


def its_manual_page_has_the_headers_example():
    """Which the selftests compile and run."""
    page = lines_from(read("share/man/man3/sysgenid.3").splitlines(), ".Sh EXAMPLES".__eq__)
    display = itertools.islice(lines_from(page, lambda line: line.startswith(".Bd ")), 1, None)
    example = itertools.takewhile(".Ed".__ne__, display)
    in_manual = [line.replace(r"\e", "\\") for line in example if line]
    header = read("include/sysgenid.h").splitlines()
    in_header = [line.removeprefix(" *\t") for line in header if line.startswith(" *\t")]
    check(in_header, "the header has no example")
    check(
        in_manual == in_header,
        "\n".join(["in the manual page:", *in_manual, "in the header:", *in_header]),
    )


TESTS = [
    ("declarations are found", declarations_are_found),
    ("it exports what its header declares", it_exports_what_its_header_declares),
    ("its symbols have versions", its_symbols_have_versions),
    ("its directories can be moved", its_directories_can_be_moved),
    ("its header is one for C++, too", its_header_is_one_for_cplusplus),
    ("its manual page has all functions", its_manual_page_has_all_functions),
    ("its manual page has the header's example", its_manual_page_has_the_headers_example),
]


def main():
    """Runs the tests."""
    print(f"TAP version 13\n1..{len(TESTS)}")
    failures = 0
    for number, (name, test) in enumerate(TESTS, 1):
        word = "ok"
        try:
            test()
        except (Failed, OSError, ValueError) as error:
            for line in f"{type(error).__name__}: {error}".splitlines():
                print(f"# {line}")
            word = "not ok"
            failures += 1
        print(f"{word} {number} {name}")
    sys.exit(failures > 0)


main()
