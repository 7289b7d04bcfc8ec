#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Programs that draw under a hypervisor that writes another ID and notifies nobody, which the module
# sysgenid_hypervisor plays. Prints TAP.

PLAY=/sys/module/sysgenid_hypervisor/parameters/id
export SYSGENID_OPENSSL_DEBUG=1

. "$(dirname "$0")/result.sh"

# Changes the ID to 32 times that digit.
change_id() {
	printf '%032d' 0 | tr 0 "$1" >$PLAY
}

# Nothing but its state: the kernel has answered in time.
nothing_is_told() {
	[ "$(cat /tmp/err)" = 'sysgenid: OpenSSL provider: on' ]
}

a_program_that_is_started_now_is_answered() {
	change_id 1
	openssl rand -hex 16 >/tmp/out 2>/tmp/err && [ "$(wc -c </tmp/out)" = 33 ] && nothing_is_told
}

# across_a_change DIGIT PROGRAM [ARGUMENT]...: one that says when it waits for it.
across_a_change() {
	digit=$1
	shift
	mkfifo /tmp/go
	"$@" </tmp/go >/tmp/out 2>/tmp/err &
	drawing=$!
	exec 3>/tmp/go
	until grep -q '^waiting$' /tmp/out; do sleep 0.1; done
	change_id "$digit"
	exec 3>&-
	rm /tmp/go
	wait "$drawing"
}

# draws_across_a_change DIGIT CONFIGURATION: a program that draws before and after it.
draws_across_a_change() {
	across_a_change "$1" env OPENSSL_CONF="$2" strace -f -o /tmp/trace \
		/openssl_provider_test --waits && nothing_is_told
}

# The system calls of the last program between its marks.
between_marks() {
	sed '1,/"begin"/d; /"end"/,$d' /tmp/trace | sed 's/^[0-9]* *//; s/(.*//' | sort -u
}

a_program_that_runs_sleeps_and_draws() {
	draws_across_a_change 2 /etc/ssl/sysgenid.cnf || return
	between_marks >/tmp/out
	grep -qx clock_nanosleep /tmp/out && grep -qx getrandom /tmp/out &&
		! grep -vx -e clock_nanosleep -e getrandom -e getpid /tmp/out >/tmp/err
}

one_that_hastens_asks() {
	sed 's/^#hasten/hasten/' /etc/ssl/sysgenid.cnf >/tmp/hasten.cnf
	grep -qx 'hasten = 1' /tmp/hasten.cnf || return
	draws_across_a_change 3 /tmp/hasten.cnf || return
	between_marks >/tmp/out
	grep -qx ioctl /tmp/out && ! grep -qx clock_nanosleep /tmp/out
}

a_process_that_is_forked_while_others_wait_draws() {
	across_a_change 4 /openssl_provider_test --forks
}

export OPENSSL_CONF=/etc/ssl/sysgenid.cnf
echo 'TAP version 13'
: >/tmp/out
: >/tmp/err
for test in a_program_that_is_started_now_is_answered a_program_that_runs_sleeps_and_draws \
	one_that_hastens_asks a_process_that_is_forked_while_others_wait_draws; do
	$test
	result $? $test
done
echo "1..$number"
