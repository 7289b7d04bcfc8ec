#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# How the DKMS package decides whether the module can be built for a kernel, and against what, in
# layouts of several distributions, which are made up of links to a good tree. Prints TAP.
#
# usage: KDIR=/path/to/a/good/tree KERNEL_RELEASE=what-uname-r-says prepare.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${KDIR:?}" "${KERNEL_RELEASE:?}"
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit
trap 'kill "$terminal" 2>/dev/null; rm -rf "$work"' EXIT
release=$KERNEL_RELEASE
version=7.0-1
metadata=linux-lib-rust-$release
compiler=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$KDIR/include/config/auto.conf")
# DKMS puts the source where it builds.
make -s -C "$checkout/packaging/dkms" install DESTDIR="$work/dkms" VERSION=1 || exit
build=$work/dkms/usr/src/sysgenid-1

# A process on whose standard error there is something to read, as DKMS's.
sleep 1000 2>"$work/terminal" &
terminal=$!

# dpkg knows the packages in this list, one "NAME VERSION" a line.
mkdir "$work/bin"
cat >"$work/bin/dpkg-query" <<END
#!/bin/sh
# dpkg-query -W -f FORMAT PACKAGE
while read -r name version; do
	[ "\$name" = "\$4" ] || continue
	case \$3 in
	*Status*) printf installed ;;
	*) printf %s "\$version" ;;
	esac
	exit
done <"$work/packages"
exit 1
END
chmod +x "$work/bin/dpkg-query"

# layout: a machine with Debian's headers and nothing else
layout() {
	rm -rf "$work/src" "$work/state" "$work/path"
	mkdir -p "$work/src" "$work/path"
	cp "$work/bin/dpkg-query" "$work/path"
	headers=$work/src/linux-headers-$release
	cp -as "$KDIR" "$headers"
	rm -r "$headers/rust" "$headers/scripts/target.json" "$headers/Makefile"
	sed -E "s,^(export )?KBUILD_OUTPUT.*,KBUILD_OUTPUT = $headers," "$KDIR/Makefile" >"$headers/Makefile"
	echo "linux-headers-$release $version" >"$work/packages"
}

# own_configuration LINE...: a configuration of its own, with this at its end
own_configuration() {
	rm "$headers/include/config/auto.conf"
	{
		grep -vE '^CONFIG_RUST(C_VERSION_TEXT)?=' "$KDIR/include/config/auto.conf"
		printf '%s\n' "$@"
	} >"$headers/include/config/auto.conf"
}

# with_metadata DIRECTORY VERSION: one that is made as our package is
with_metadata() {
	"$checkout/packaging/dkms/kdir-of-links.sh" "$headers" "$KDIR" "$1" "$1" "$2"
}

prepare() {
	: >"$work/terminal"
	rm -f "$build/packaging/dkms/prepared.mk"
	(cd "$build" && PATH="$work/path:${path:-$PATH}" SYSGENID_SOURCES="$work/src" \
		SYSGENID_STATE="$work/state" packaging/dkms/prepare "$release" "$headers" "$terminal") \
		>"$work/log" 2>&1
}

# skips WORDS...: all of them are said in the log and on the terminal, and noted
skips() {
	prepare
	status=$?
	[ "$status" = 77 ] || { echo "# exit status $status, not 77"; diagnose "$work/log"; return 1; }
	for words; do
		for file in log terminal "state/skipped/$release"; do
			has "$work/$file" "$words" || { echo "# \"$words\" is not in the $file:"; diagnose "$work/$file"; return 1; }
		done
	done
}

# uses DIRECTORY [RUSTC]
uses() {
	prepare || { diagnose "$work/log"; return 1; }
	[ ! -e "$work/state/skipped/$release" ] || { echo "# it is still noted as skipped"; return 1; }
	printf 'KDIR := %s\nRUSTC := %s\n' "$1" "${2:-$(command -v rustc)}" |
		cmp -s - "$build/packaging/dkms/prepared.mk" ||
		{ diagnose "$build/packaging/dkms/prepared.mk"; return 1; }
}

# rustc_that_is VERSION-TEXT NAME: a compiler that says so
rustc_that_is() {
	cat >"$work/path/$2" <<-END
		#!/bin/sh
		[ "\$1" != --version ] || { echo "$1"; exit; }
		exec /usr/bin/rustc "\$@"
	END
	chmod +x "$work/path/$2"
}

# --- Metadata that is there ----------------------------------------------------

in_the_headers() { # Arch
	headers=$KDIR
	: >"$work/packages"
	uses "$KDIR"
}

by_a_link_in_the_headers() { # Ubuntu
	mkdir "$work/src/$metadata"
	ln -s "$KDIR/rust" "$work/src/$metadata/rust"
	ln -s "$KDIR/scripts/target.json" "$headers/scripts/target.json"
	ln -s "../$metadata/rust" "$headers/rust"
	uses "$headers"
}

by_a_link_that_leads_nowhere() {
	ln -s "../$metadata/rust" "$headers/rust"
	skips "Install $metadata"
}

in_our_package() {
	with_metadata "$work/src/$metadata" "$version" && uses "$work/src/$metadata"
}

kept_from_before() {
	with_metadata "$work/state/$metadata" "$version" && uses "$work/state/$metadata"
}

of_another_build() {
	with_metadata "$work/src/$metadata" 6.0-1 && with_metadata "$work/state/$metadata" 6.0-1 &&
		skips "$metadata is for version 6.0-1 of the headers, which are $version"
}

that_is_not_whole() {
	with_metadata "$work/src/$metadata" "$version" && rm "$work/src/$metadata/rust/libmacros.so" &&
		skips "not even an empty module can be built" "can't find crate for"
}

builds_the_module() {
	with_metadata "$work/src/$metadata" "$version" && uses "$work/src/$metadata" || return
	(cd "$build" && make -f packaging/dkms/build.mk) >"$work/log" 2>&1 ||
		{ diagnose "$work/log"; return 1; }
	[ -e "$build/sysgenid.ko" ]
}

# --- Metadata that is not there ------------------------------------------------

source_is_missing() {
	skips "its headers have no metadata" "linux-source-${release%.*}=$version" "$metadata of version $version"
}

source_is_another_version() {
	: >"$work/src/linux-source-${release%.*}.tar.xz"
	echo "linux-source-${release%.*} 6.0-1" >>"$work/packages"
	skips "linux-source-${release%.*}=$version" "(6.0-1 is installed)"
}

with_source() {
	echo "linux-source-${release%.*} $version" >>"$work/packages"
	echo "no archive" >"$work/src/linux-source-${release%.*}.tar.xz"
}

tools_are_missing() {
	with_source
	mkdir "$work/few"
	cp -s /usr/bin/* "$work/few"
	rm "$work/few/bindgen" "$work/few/bison"
	path=$work/few
	skips "these packages are missing for making it: bison bindgen" "Install them"
	status=$?
	path=
	return $status
}

making_fails() {
	with_source
	skips "making it of linux-source-${release%.*} failed" || return
	[ -z "$(find "$work/state" -name 'making.*')" ] || { echo "# it leaves something behind"; return 1; }
}

headers_of_nobody() {
	: >"$work/packages"
	skips "its headers have no metadata" "make prepare modules_prepare"
}

# --- The kernel and the compiler -----------------------------------------------

no_rust() {
	own_configuration "# CONFIG_RUST is not set"
	skips "built without support for Rust (CONFIG_RUST)" "No module in Rust can be loaded"
}

has_a_prebuilt_module() {
	echo "sysgenid-modules-$release 1" >>"$work/packages"
	skips "it has the module from the package sysgenid-modules-$release"
}

wrong_compiler() {
	own_configuration CONFIG_RUST=y 'CONFIG_RUSTC_VERSION_TEXT="rustc 1.0.0 (ancient)"'
	rustc_that_is "rustc 1.1.0" rustc-1.1
	skips "rustc 1.0.0 (ancient)" "rustc is $compiler" "rustc-1.1 is rustc 1.1.0"
}

# Where several are installed, the right one is not the one that is called rustc.
one_of_several_compilers() {
	with_metadata "$work/src/$metadata" "$version"
	rustc_that_is "rustc 1.99.0" rustc
	rustc_that_is "$compiler" rustc-1.85
	uses "$work/src/$metadata" "$work/path/rustc-1.85"
}

# --- Being told ------------------------------------------------------------------

retried() {
	skips "linux-source" || return
	SYSGENID_RETRY=1
	export SYSGENID_RETRY
	prepare
	[ ! -s "$work/terminal" ] || { echo "# it says again what it has said:"; diagnose "$work/terminal"; return 1; }
	with_source
	prepare
	status=$?
	unset SYSGENID_RETRY
	{ [ "$status" = 77 ] && has "$work/terminal" failed; } ||
		{ echo "# it does not say what is new"; return 1; }
	with_metadata "$work/src/$metadata" "$version" && uses "$work/src/$metadata"
}

# The configuration of a prepared tree must be the packaged kernel's.
compares_configurations() {
	mkdir "$work/kernel"
	printf 'CONFIG_A=y\nCONFIG_CC_VERSION_TEXT="one"\n# CONFIG_B is not set\n' >"$work/config"
	cat >"$work/kernel/Makefile" <<'END'
olddefconfig:
	sed -i 's/"one"/"two"/' $(O)/.config; [ -z "$$NEW" ] || echo $$NEW >>$(O)/.config
prepare modules_prepare:
END
	"$checkout/scripts/prepare-kernel.sh" "$work/kernel" "$work/config" 1.0 "$work/tree" >"$work/log" 2>&1 ||
		{ diagnose "$work/log"; return 1; }
	if NEW=CONFIG_C=m "$checkout/scripts/prepare-kernel.sh" "$work/kernel" "$work/config" 1.0 \
		"$work/tree" >"$work/log" 2>&1; then
		echo "# another configuration is not refused"
		return 1
	fi
	has "$work/log" "these differ: CONFIG_C=m" || { diagnose "$work/log"; return 1; }
}

run() { # run FUNCTION NAME
	layout
	"$1"
	result $? "$2"
}

echo "TAP version 13"
run in_the_headers "metadata in the headers, as Arch has it"
run by_a_link_in_the_headers "metadata of Ubuntu's linux-lib-rust"
run by_a_link_that_leads_nowhere "skipped: Ubuntu's headers without linux-lib-rust"
run in_our_package "metadata of our package, for Debian's headers"
run kept_from_before "metadata that was made before"
run of_another_build "skipped: metadata of another build of the kernel"
run that_is_not_whole "skipped: metadata that is not whole"
run builds_the_module "the module is built"
run source_is_missing "skipped: no metadata, and no source to make it of"
run source_is_another_version "skipped: the source is of another version"
run tools_are_missing "skipped: tools for making metadata are missing"
run making_fails "skipped: making metadata fails"
run headers_of_nobody "skipped: headers that are no package, without metadata"
run no_rust "skipped: a kernel without Rust"
run has_a_prebuilt_module "skipped: a kernel that has the module from a package"
run wrong_compiler "skipped: another compiler"
run one_of_several_compilers "the right one of several compilers"
run retried "a retry says only what is new"
run compares_configurations "a tree with another configuration is refused"
end_tests
