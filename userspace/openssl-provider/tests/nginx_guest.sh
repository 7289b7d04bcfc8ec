#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An nginx that has served a client is frozen with its machine, and serves another
# one in each clone, once the kernel has been reseeded. OPENSSL_CONF in the
# environment decides what nginx draws from. What the server drew is noted, for the
# host to compare between clones:
#
#	# random HEX	its random bytes
#	# key HEX	its ephemeral public key
set -eu

handshake() {
	echo | OPENSSL_CONF='' openssl s_client -connect 127.0.0.1:443 -tls1_3 -groups X25519 -msg
}

ip link set lo up
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
	-keyout /tmp/key.pem -out /tmp/certificate.pem 2>/tmp/log
nginx -c /nginx.conf
handshake >/tmp/first 2>/tmp/log
echo READY
# Longer than the window after a resume.
sleep 3
handshake >/tmp/second 2>/tmp/log
python3 /server_hello.py </tmp/second
