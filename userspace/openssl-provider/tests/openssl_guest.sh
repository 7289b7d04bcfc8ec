#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Tests of the provider in a guest, besides its own and those in clones: those in which
# strace looks on, and what OpenSSL's programs say and do with it. Prints TAP.

CONF=/etc/ssl/sysgenid.cnf
MODULE=/usr/lib/x86_64-linux-gnu/ossl-modules/sysgenid.so
export OPENSSL_CONF=$CONF

. "$(dirname "$0")/result.sh"

# Succeeds if the command does, says nothing on standard error, and this on standard output.
says() {
	name=$1 text=$2
	shift 2
	"$@" >/tmp/out 2>/tmp/err && ! [ -s /tmp/err ] && grep -qF -e "$text" /tmp/out
	result $? "$name"
}

# Succeeds if the command does, whatever it says.
works() {
	name=$1
	shift
	"$@" >/tmp/out 2>/tmp/err
	result $? "$name"
}

# The state of the provider is the expected one, and there are random bytes; as that user.
state() {
	name=$1 user=$2 text=$3
	says "$name" "$text" chroot --userspec="$user" / openssl list -providers
	says "${name}_and_draws" '' chroot --userspec="$user" / openssl rand -hex 16
}

# The lines of a trace between the two system calls that the program makes as marks.
between_marks() {
	awk '
		!begun { begun = /"begin"/; next }
		/"end"/ { ended = 1; exit }
		{ print }
		END { exit !ended }
	'
}

# How often each system call was made.
names() {
	awk '{ sub(/\(.*/, ""); print $NF }' | sort | uniq -c
}

# Writes to a file what the program calls between its marks, perhaps with a change.
trace() {
	calls=$1
	shift
	strace -f -o /tmp/trace /openssl_provider_test --draws "$@" >/tmp/out 2>/tmp/err || return
	between_marks </tmp/trace >"$calls" && return
	echo 'strace has not seen both marks' >/tmp/err
	return 1
}

# The same of a canned trace, which has no more lines than that.
between_canned_marks() {
	printf '%s\n' 'open()' 'write(-1, "begin", 5) = -1' 'a()' 'b()' 'write(-1, "end", 3) = -1' \
		'c()' | head -n "$1" | between_marks
}

the_marks_are_found() {
	[ "$(between_canned_marks 6)" = 'a()
b()' ] &&
		! between_canned_marks 4 >/tmp/out &&
		! between_canned_marks 1 >/tmp/out &&
		! between_canned_marks 0 >/tmp/out
}

calls_are_counted() {
	printf '%s\n' '7 getpid() = 7' '7  getpid() = 7' '7 read(3, "(") = 1' | names >/tmp/out &&
		[ "$(awk '{ print $1, $2 }' /tmp/out)" = '2 getpid
1 read' ]
}

no_system_call_but_openssls_own() {
	trace /tmp/with || return
	(OPENSSL_CONF='' && trace /tmp/without) || return
	names </tmp/with >/tmp/out
	names </tmp/without >/tmp/err
	# OpenSSL has some of its own.
	[ -s /tmp/out ] && [ "$(cat /tmp/out)" = "$(cat /tmp/err)" ]
}

# The names that the second list has, and the first one has not.
new_names() {
	names <"$2" | awk '{ print $2 }' >/tmp/names
	names <"$1" | awk '{ print $2 }' | grep -vxFf - /tmp/names
}

# It is also the control of the test before.
a_change_brings_getrandom_and_nothing_else() {
	trace /tmp/without || return
	trace /tmp/with change || return
	cp /tmp/with /tmp/out
	[ "$(new_names /tmp/without /tmp/with)" = getrandom ]
}

echo 'TAP version 13'
: >/tmp/out
: >/tmp/err
the_marks_are_found
result $? the_marks_are_found
calls_are_counted
result $? calls_are_counted
no_system_call_but_openssls_own
result $? no_system_call_but_openssls_own
a_change_brings_getrandom_and_nothing_else
result $? a_change_brings_getrandom_and_nothing_else

ip link set lo up
openssl list -random-instances >/tmp/out 2>/tmp/err && ! [ -s /tmp/err ] &&
	[ "$(grep -cxF '  CTR-DRBG @ sysgenid' /tmp/out)" = 3 ]
result $? all_generators_are_ours
says default_provider_is_active 'OpenSSL Default Provider' openssl list -providers
works rand openssl rand -out /tmp/random 1000000
works speed openssl speed -seconds 1 -bytes 64 rand
works genpkey_rsa openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out /tmp/rsa.pem
works genpkey_ec openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /tmp/ec.pem
case $(openssl version) in
"OpenSSL 3."[0-4].*) ;; # They do not know it.
*) works genpkey_ml_kem openssl genpkey -algorithm ML-KEM-768 -out /tmp/kem.pem ;;
esac
works certificate openssl req -x509 -key /tmp/ec.pem -subj /CN=localhost -out /tmp/ec.crt
openssl s_server -accept 127.0.0.1:4433 -cert /tmp/ec.crt -key /tmp/ec.pem -www >/tmp/server 2>&1 &
server=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
	grep -q ACCEPT /tmp/server && break
	sleep 1
done
# shellcheck disable=SC2016 # the inner shell's
works s_client_and_s_server sh -c \
	'echo | openssl s_client -connect 127.0.0.1:4433 -CAfile /tmp/ec.crt -verify_return_error'
kill "$server"

state on root '(on)'
chmod 0400 /dev/vmgenid
state without_the_id nobody 'a clone notices late: /dev/vmgenid may not be opened'
chmod 0600 /dev/sysgenid
state forbidden nobody "off, OpenSSL's plain generators: /dev/sysgenid may not be opened"
mv /dev/sysgenid /dev/elsewhere
state without_a_device root "off, OpenSSL's plain generators: there is no /dev/sysgenid"
says status_without_a_device 'status: inactive' openssl list -providers
SYSGENID_OPENSSL_DEBUG=1 openssl rand -hex 16 >/tmp/out 2>/tmp/err
[ "$(grep -c 'there is no /dev/sysgenid' /tmp/err)" = 1 ] && [ "$(wc -l </tmp/err)" = 1 ]
result $? told_once_to_those_who_ask
mv /dev/elsewhere /dev/sysgenid
mv /etc/ssl/openssl.cnf /tmp
state without_the_systems_configuration root '(on)'
mv /tmp/openssl.cnf /etc/ssl
mv "$MODULE" /tmp
says without_the_module 'OpenSSL Default Provider' openssl list -providers
says without_the_module_and_draws '' openssl rand -hex 16
mv /tmp/sysgenid.so "$MODULE"
echo "1..$number"
