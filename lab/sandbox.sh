#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Supervises one run of the lab. The first process that this shell starts is the init process
# of a new PID namespace: when it dies, all that runs in the namespace dies with it, and the
# mount namespace and the tmpfs in it go when the last process is gone.
#
# Being interrupted is therefore always the same thing, a SIGKILL to that process, sent from
# here for a signal that can be caught, and by the kernel when this shell itself is killed.
# So nothing may be forked before that process, nor after it has died: not even stty.
set -u

end() {
	trap '' HUP INT TERM
	[ -z "$LAB_TERMINAL" ] || stty "$LAB_TERMINAL"
	kill -s KILL "$init" 2>/dev/null
	wait "$init" 2>/dev/null
	exit "$1"
}

# A background job would get /dev/null as its standard input.
exec 3<&0
setpriv --pdeathsig KILL sh "$LAB_SOURCE/lab/root.sh" "$@" <&3 3<&- &
init=$!
exec 3<&-
trap 'end 129' HUP
trap 'end 130' INT
trap 'end 143' TERM
wait "$init"
