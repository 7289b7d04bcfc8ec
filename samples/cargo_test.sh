#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Programs of others with the crate: by the lines for Cargo.toml and the flags for static linking
# that its README has, on their own and not in our workspace. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR KEPT=DIR cargo_test.sh (FILES/sysgenctl is linked
# statically, and in KEPT is what was compiled before)
set -u

. "$(dirname "$0")/../lab/tests/tap.sh"

: "${LAB:?}" "${FILES:?}" "${SCRATCH:?}" "${KEPT:?}"
checkout=$(cd "$(dirname "$0")/.." && pwd)
readme=$checkout/userspace/sysgenid/README.md
target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR="$KEPT/target" CARGO_PROFILE_DEV_DEBUG=none

# Each line with a path, and the one after it if it names another crate, becomes $SCRATCH/N/lines.
ln -s "$checkout" "$SCRATCH/sysgenid" || exit
awk -v scratch="$SCRATCH" '
	/^```/ { is_toml = /toml/ }
	!is_toml { next }
	/^sysgenid = [{] path/ {
		directory = scratch "/" ++n
		system("mkdir -p " directory "/src")
		print >(directory "/lines")
		next
	}
	/^[a-z]+ = / && !/^sysgenid/ { print >(directory "/lines") }' "$readme"

# program FEATURE: of somebody who has that feature
program() {
	case $1 in
	rand) echo 'use rand::RngExt as _;
		fn main() { println!("drawn {:032x}", sysgenid::rng().random::<u128>()) }' ;;
	rand_0_9) echo 'use rand::Rng as _;
		fn main() { println!("drawn {:032x}", sysgenid::rng().random::<u128>()) }' ;;
	tokio) echo '#[tokio::main(flavor = "current_thread")]
		async fn main() -> Result<(), Box<dyn std::error::Error>> {
			let watcher = sysgenid::AsyncWatcher::new(sysgenid::Watcher::open()?)?;
			println!("watching");
			let generation = watcher.wait().await?;
			watcher.get_ref().ack(generation)?;
			println!("generation {generation}");
			Ok(())
		}' ;;
	none) echo 'fn main() -> Result<(), Box<dyn std::error::Error>> {
			let fresh = sysgenid::SysGenId::open()?.settle();
			println!("generation {}", fresh.seen().generation());
			Ok(())
		}' ;;
	*) return 1 ;;
	esac
}

# With the versions that we have tried, and with none but those: so nothing is fetched. The flags are
# those of the line in the README.
builds() { # builds NUMBER
	feature=$(sed -n 's/.*features = \["\(.*\)"\] }$/\1/p' "$SCRATCH/$1/lines" | head -n 1)
	feature=${feature:-none}
	[ "$1" = 1 ] || [ "$feature" != none ] || return
	grep -q '^tokio' "$SCRATCH/$1/lines" && feature=tokio
	{
		printf '[package]\nname = "with_%s"\nedition = "2024"\n\n[workspace]\n\n[dependencies]\n' "$feature"
		cat "$SCRATCH/$1/lines"
	} >"$SCRATCH/$1/Cargo.toml"
	program "$feature" >"$SCRATCH/$1/src/main.rs" || return
	cp "$checkout/Cargo.lock" "$SCRATCH/$1/Cargo.lock" || return
	flags=$(sed -n "s/^RUSTFLAGS=\"\(.*\)\" cargo build --release --target $target\$/\1/p" "$readme")
	[ -n "$flags" ] || return
	(cd "$SCRATCH/$1" && RUSTFLAGS=$flags cargo build --quiet --offline --target $target) \
		>"$SCRATCH/log" 2>&1 || { diagnose "$SCRATCH/log"; return 1; }
	built="$built $feature"
}

echo "TAP version 13"
built=
for number in 1 2 3 4; do
	builds $number
	result $? "the lines $number of the README"
done
[ "$built" = " none rand rand_0_9 tokio" ] && [ ! -e "$SCRATCH/5" ]
result $? "there are lines for each feature"
with=$CARGO_TARGET_DIR/$target/debug/with
# shellcheck disable=SC2016 # It is for the guest's shell.
says "they run in a guest that has no libraries, where something changes" 0 "changes noticed$NL" "" \
	run --add "${with}_none:/none" --add "${with}_rand:/rand" --add "${with}_rand_0_9:/rand_0_9" \
	--add "${with}_tokio:/tokio" --add "$FILES/sysgenctl" -- sh -c '
		set -e
		/tokio >/out &
		until grep -q watching /out; do sleep 0.1; done
		[ "$(/none)" = "generation 0" ]
		/sysgenctl trigger --wait --timeout 60s
		wait $!
		grep -x "generation 1" /out
		[ "$(/none)" = "generation 1" ]
		[ "$( { /rand; /rand; /rand_0_9; /rand_0_9; } | grep -c "^drawn [0-9a-f]\{32\}$")" = 4 ]
		echo changes noticed'
end_tests
