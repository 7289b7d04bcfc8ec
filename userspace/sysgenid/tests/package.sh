#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The crate as others get it: packaged, unpacked in another place, and tested there, without the
# device and without rights. Prints TAP.
#
# usage: SCRATCH=DIR KEPT=DIR package.sh (what is compiled stays in KEPT)
set -u

. "$(dirname "$0")/../../../lab/tests/tap.sh"

: "${SCRATCH:?}" "${KEPT:?}"
checkout=$(cd "$(dirname "$0")/../../.." && pwd)
crate=$checkout/userspace/sysgenid
name=sysgenid-$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/Cargo.toml")
# Always the same: cargo would take another one for another package, and keep what it made of both.
unpacked=$KEPT/$name

# Nobody needs debug information here, and nothing of it is ever compiled a second time.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$KEPT/target"

is_packaged() {
	cargo package --quiet --locked --offline --no-verify --allow-dirty --package sysgenid \
		--manifest-path "$checkout/Cargo.toml" --target-dir "$SCRATCH" >"$SCRATCH/log" 2>&1 ||
		{ diagnose "$SCRATCH/log"; return 1; }
	rm -rf "$unpacked"
	# In a package all is old, and cargo would take what it has made before for newer.
	tar -x --touch -C "$KEPT" -f "$SCRATCH/package/$name.crate"
}

has_the_texts() {
	for licence in MIT Apache-2.0; do
		text=LICENSES/$licence.txt
		[ ! -L "$unpacked/$text" ] || { echo "# $text is a link"; return 1; }
		cmp "$checkout/$text" "$unpacked/$text" || return
	done
}

# All sources, and what cargo puts there itself.
has_nothing_else() {
	{
		(cd "$crate" && find README.md LICENSES examples src ! -type d)
		printf '%s\n' Cargo.lock Cargo.toml Cargo.toml.orig
	} | LC_ALL=C sort >"$SCRATCH/wanted"
	(cd "$unpacked" && find . ! -type d ! -name .cargo_vcs_info.json -printf '%P\n') |
		LC_ALL=C sort >"$SCRATCH/found"
	diff "$SCRATCH/wanted" "$SCRATCH/found" >"$SCRATCH/log" || { diagnose "$SCRATCH/log"; return 1; }
}

# A link in what is read elsewhere leads nowhere, unless it says where.
links_lead_somewhere() {
	! grep -nE '\]\(([^)h#]|h[^t])' "$unpacked/README.md" | diagnose | grep .
}

# Whatever anybody can name is a part of the interface, unless its name says that it is none.
features_are_known() {
	features=$(sed -n '/^\[features\]/,/^\[[^f]/s/^\([^ []*\) = .*/\1/p' "$unpacked/Cargo.toml" |
		grep -v ^__ | LC_ALL=C sort | xargs)
	[ "$features" = "rand rand_0_9 tokio" ] || { echo "# $features"; return 1; }
}

# elsewhere ARGUMENTS...: cargo test, where /dev has no node of ours, with no capability
elsewhere() {
	bwrap --bind / / --dev /dev --cap-drop ALL --die-with-parent --chdir "$unpacked" \
		cargo test --quiet --locked --offline --no-fail-fast "$@" >"$SCRATCH/log" 2>&1
}

passes_tests() { # passes_tests ARGUMENTS...
	elsewhere "$@" || { diagnose "$SCRATCH/log"; return 1; }
	# The unit tests, and the examples in the documentation.
	[ "$(grep -c '^test result: ok\. [1-9]' "$SCRATCH/log")" = 2 ] ||
		{ diagnose "$SCRATCH/log"; return 1; }
}

# As the lab has it, where the device must be there.
fails_if_it_must_be_there() {
	export SYSGENID_DEVICE=required
	elsewhere --doc Watcher::open
	status=$?
	unset SYSGENID_DEVICE
	[ "$status" != 0 ] || { echo "# nothing failed"; return 1; }
	has "$SCRATCH/log" "there is no /dev/sysgenid" || { diagnose "$SCRATCH/log"; return 1; }
}

echo "TAP version 13"
is_packaged
result $? "it can be packaged"
has_the_texts
result $? "the licences are in it"
has_nothing_else
result $? "all that it is made of is in it, and nothing of the lab"
links_lead_somewhere
result $? "no link of its README leads out of it"
features_are_known
result $? "its features are those that are documented"
passes_tests
result $? "it passes its tests without the device"
passes_tests --all-features
result $? "it passes its tests without the device, with all features"
fails_if_it_must_be_there
result $? "an example fails without a device that has to be there"
end_tests
