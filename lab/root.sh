#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs as the init process of the sandbox: makes the toolchain root when the cache has none,
# enters it, builds the lab's own tool when this checkout's is not in the cache, and runs it.
set -eu

suite=${SYSGENID_SUITE:-trixie}
mirror=${SYSGENID_MIRROR:-http://deb.debian.org/debian}

die() {
	printf 'lab: %s\n' "$*" >&2
	exit 125
}

say() {
	printf 'lab: %s\n' "$*" >&2
}

# The archives that belong to it. Kernels are in the last one.
case $suite in
trixie) archives="trixie trixie-updates trixie-backports" ;;
unstable) archives=unstable ;;
*) die "SYSGENID_SUITE is $suite; the lab knows trixie and unstable" ;;
esac

# Why a step failed, in one line: disk and network before the tool's own words.
explain() {
	if [ "$(df --output=avail -k "$LAB_CACHE" | tail -n 1)" -lt 102400 ]; then
		die "$1: the disk that holds $LAB_CACHE is full; the lab needs about 8 GB there (SYSGENID_CACHE chooses another place)"
	elif grep -qE 'Temporary failure resolving|Could not (resolve|connect)|Connection (refused|timed out|failed)|Network is unreachable|spurious network error|download of .* failed' "$2"; then
		die "$1: no network: $(grep -E 'Temporary failure resolving|Could not|Connection|unreachable|network error' "$2" | head -n 1 | sed 's/^[[:space:]]*//'); what is in the cache already works without"
	fi
	die "$1: $(grep -iE '^E:|error' "$2" | tail -n 1); the whole log: $2"
}

sha() {
	sha256sum | cut -c 1-16
}

mount -t proc proc /proc 2>/dev/null ||
	die "cannot mount /proc in a new PID namespace: this looks like a container that forbids it"

# Held, shared, as long as anything in the sandbox lives; `lab clean` wants it alone.
exec 8>"$LAB_CACHE/in-use"
if [ "${1-}" = clean ]; then
	flock -n 8 || die "another lab is running; nothing was removed"
	say "removing everything from $LAB_CACHE"
	cd "$LAB_CACHE"
	rm -rf --one-file-system root-* apt apt-* booted build cargo configs debian debs debug in-tree lock \
		log packages results scratch sources stock systems tmp tool userspace in-use
	exit 0
fi
flock -s 8

# What the root is made from names it. A root is moved to its name only when it is whole;
# nothing writes to it afterwards.
packages=$(sed 's/[[:space:]]*#.*//; /^$/d' "$LAB_SOURCE/lab/packages" | paste -s -d, -)
root=$LAB_CACHE/root-$(printf '%s %s %s\n' "$suite" "$mirror" "$packages" | sha)
mkdir -p "$LAB_CACHE/log"

if ! [ -d "$root" ]; then
	exec 9>"$root.lock"
	flock -n 9 || { say "another lab is making the toolchain root; waiting for it"; flock 9; }
fi
if ! [ -d "$root" ]; then
	rm -rf --one-file-system "$root.part"
	[ "$(df --output=avail -k "$LAB_CACHE" | tail -n 1)" -gt 8000000 ] ||
		die "the disk that holds $LAB_CACHE has less than 8 GB free; make room there, or let SYSGENID_CACHE name another place"
	say "making the toolchain root (Debian $suite, about a minute)"
	start=$(date +%s)
	log=$LAB_CACHE/log/root.log
	# What mmdebstrap keeps there must not outlive a killed lab.
	mkdir -p "$LAB_CACHE/tmp"
	mount -t tmpfs -o mode=700 tmp "$LAB_CACHE/tmp"
	options=
	if command -v apt-config >/dev/null; then
		# As this machine's apt is configured: the proxies, and whether a mirror may be out of date.
		apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-(Valid-Until|Date))' \
			>"$LAB_CACHE/log/apt.conf" || :
		options="--aptopt=$LAB_CACHE/log/apt.conf"
	fi
	# shellcheck disable=SC2086 # no option, or one
	if ! TMPDIR=$LAB_CACHE/tmp mmdebstrap --mode=root --variant=apt $options \
		--aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='force-unsafe-io' \
		--include="$packages" \
		"$suite" "$root.part" \
		"$(for archive in $archives; do echo "deb $mirror $archive main"; done)" \
		>"$log" 2>&1; then
		explain "cannot make the toolchain root" "$log"
	fi
	mkdir -p "$root.part/src" "$root.part/cache" "$root.part/host"
	touch "$root.part/etc/resolv.conf" "$root.part/etc/ssl/certs/ca-certificates.crt"
	mv "$root.part" "$root"
	say "made the toolchain root ($(($(date +%s) - start)) s)"
fi
exec 9>&-

# The root itself is read-only; what may be written is the cache, and a /tmp that goes with
# the namespace.
at=$root
mount --bind "$root" "$at"
cd "$at"
mount -o remount,bind,ro "$at"
mount -t proc proc "$at/proc"
mount --rbind /sys "$at/sys"
mount --rbind /dev "$at/dev"
mount -t tmpfs -o mode=1777 tmp "$at/tmp"
mount -t tmpfs -o mode=755 run "$at/run"
mount --bind "$LAB_SOURCE" "$at/src"
mount -o remount,bind,ro "$at/src" 2>/dev/null || :
mount --bind "$LAB_CACHE" "$at/cache"
mount --rbind / "$at/host"
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
	[ ! -e "$file" ] || [ ! -e "$at$file" ] || mount --bind "$file" "$at$file"
done

# Cargo's registry is shared; its configuration is the caller's.
mkdir -p "$LAB_CACHE/cargo"
config=${CARGO_HOME:-${HOME:-/root}/.cargo}/config.toml
if [ -e "$config" ]; then
	cp "$config" "$LAB_CACHE/cargo/config.toml"
else
	rm -f "$LAB_CACHE/cargo/config.toml"
fi

export HOME=/tmp CARGO_HOME=/cache/cargo TMPDIR=/tmp LC_ALL=C.UTF-8
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
LAB_CHECKOUT=$(printf '%s' "$LAB_SOURCE" | sha)
LAB_ROOT_KEY=$(basename "$root")
LAB_SUITE=$suite
export LAB_CHECKOUT LAB_ROOT_KEY LAB_SUITE
unset RUSTUP_TOOLCHAIN RUSTFLAGS CARGO_TARGET_DIR RUSTC RUSTC_WRAPPER MAKEFLAGS MAKELEVEL MFLAGS KDIR 2>/dev/null || :

# The tool is kept by the content of its sources, so that a fresh clone starts at once; by this
# file, which says how it is built; and by the root, which has the compiler. The other members of
# the workspace add nothing to it.
cd "$LAB_SOURCE"
sources=$(find Cargo.toml Cargo.lock lab/host lab/init lab/wire lab/root.sh -type f -print0 |
	LC_ALL=C sort -z | xargs -0 sha256sum)
key=$(printf '%s\n' "$LAB_ROOT_KEY" "$sources" | sha)
tool=/cache/tool/$key
if ! [ -x "$at$tool/lab" ]; then
	mkdir -p "$LAB_CACHE/tool"
	# Another checkout's tool can be built beside this one.
	exec 9>"$LAB_CACHE/tool/$key.lock"
	flock -n 9 || { say "another lab is building its tool; waiting for it"; flock 9; }
fi
if ! [ -x "$at$tool/lab" ]; then
	say "building the lab's tool (about a minute on a new machine)"
	start=$(date +%s)
	log=$LAB_CACHE/tool/$key.log
	target=x86_64-unknown-linux-gnu
	build=/cache/build/$LAB_CHECKOUT/cargo
	if ! RUSTFLAGS='-C target-feature=+crt-static' chroot "$at" cargo build --profile quick --locked \
		--package lab --package init --manifest-path /src/Cargo.toml \
		--target "$target" --target-dir "$build" \
		>"$log" 2>&1; then
		grep -E -A 12 '^error' "$log" >&2 || :
		explain "cannot build the lab's tool" "$log"
	fi
	rm -rf "$at$tool" "$at$tool.part"
	mkdir -p "$at$tool.part"
	cp "$at$build/$target/quick/lab" "$at$build/$target/quick/init" "$at$tool.part/"
	mv "$at$tool.part" "$at$tool"
	say "built the lab's tool ($(($(date +%s) - start)) s)"
fi
exec 9>&-
export LAB_TOOL="$tool"
exec chroot "$at" "$tool/lab" "$@"
