#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0

"""Prints what debian/copyright has to say of the crates that are linked into the packages.

    crates.py TREE (in which vendor.sh has put them into vendor/)
"""

import pathlib
import re
import subprocess
import sys
import tomllib

PACKAGES = ("sysgenctl", "libsysgenid", "sysgenid-openssl-provider")
# That of no particular crate.
TEMPLATE = re.compile(
    r"copyright (notice|license|assignment|and permission)|\{yyyy\}|\[yyyy\]|<year>", re.IGNORECASE
)


def linked(tree):
    """The name, version and licence of each crate that is linked, and not a part of the tree."""
    command = ["cargo", "tree", "--locked", "--offline", "--edges=normal", "--prefix=none"]
    command += [f"--package={package}" for package in PACKAGES] + ["--format={p}|{l}"]
    listed = subprocess.run(command, cwd=tree, check=True, text=True, stdout=subprocess.PIPE)
    for line in sorted(set(listed.stdout.splitlines())):
        found = re.fullmatch(r"(\S+) v(\S+)(?: \(proc-macro\))?\|(.*?)(?: \(\*\))?", line)
        if found:
            yield found.groups()


def holders(crate):
    """Who says in its licence, or else in its manifest, to have written it."""
    said = []
    for path in sorted(crate.glob("[CLU]*")):
        if path.is_file() and re.match(r"LICEN[CS]E|COPY|COPYRIGHT|UNLICENSE", path.name):
            for line in path.read_text(encoding="utf-8").splitlines():
                found = re.match(r"\s*Copyright\b\s*(?:\(c\)|©)?\s*(.*\w.*)", line, re.IGNORECASE)
                if found and not TEMPLATE.search(line) and found[1] not in said:
                    said.append(found[1])
    if not said:
        manifest = tomllib.loads((crate / "Cargo.toml").read_text(encoding="utf-8"))
        said = manifest["package"].get("authors") or [f"the authors of {crate.name}"]
    return said


def main():
    """Prints a paragraph for each crate. All of their licences must be there already."""
    tree = pathlib.Path(sys.argv[1])
    known = set(re.findall(r"^License: (.+)$", (tree / "debian/copyright").read_text("utf-8"), re.M))
    for name, version, licence in dict.fromkeys(linked(tree)):
        directories = [tree / "vendor" / name, tree / "vendor" / f"{name}-{version}"]
        crate = next(path for path in reversed(directories) if path.is_dir())
        # As the format has it, where "/" was once allowed.
        licence = re.sub(r"/| OR ", " or ", licence).replace(" AND ", " and ").replace(" WITH ", " with ")
        for word in re.split(r" or | and ", licence.translate({ord("("): None, ord(")"): None})):
            if word not in known:
                sys.exit(f"packaging/debian/copyright lacks the licence {word} of the crate {name}")
        print(f"\nFiles: vendor/{crate.name}/*")
        print("Copyright:", "\n ".join(holders(crate)))
        print("License:", licence)


main()
