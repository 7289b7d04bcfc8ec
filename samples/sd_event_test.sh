#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The watcher in the event loop of systemd: it is built in a Debian system that has libsystemd-dev,
# which the toolchain root has not, and runs in a guest. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR sd_event_test.sh (DIR/installed is what make install
#        installs, and DIR/sysgenctl is linked statically)
set -u

: "${LAB:?}" "${FILES:?}" "${SCRATCH:?}"
samples=$(cd "$(dirname "$0")" && pwd)
program=$SCRATCH/watch_sd_event
libsystemd=/usr/lib/x86_64-linux-gnu/libsystemd.so.0

if ! "$LAB" system --package gcc --package libc6-dev --package make --package pkgconf \
	--package libsystemd-dev --add "$FILES/installed:/installed" --add "$samples:/samples" -- sh -c '
		cp -R /installed/usr/. /usr/ &&
		make -C /samples OUTPUT=/build /build/watch_sd_event >&2 && cat /build/watch_sd_event' \
	>"$program" 2>"$SCRATCH/log"; then
	sed 's/^/# /' "$SCRATCH/log"
	echo "Bail out! watch_sd_event cannot be built"
	exit 1
fi
chmod +x "$program" &&
	exec "$LAB" run --userspace --add "$program" --add "$libsystemd:$libsystemd" \
		--add "$FILES/sysgenctl" --add "$samples/watch_test.sh" -- \
		/watch_test.sh /sysgenctl /watch_sd_event
