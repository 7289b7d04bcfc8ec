#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Draws by PostgreSQL's gen_random_uuid(), in one session, so always in the same process of
# the server: each line on standard input is answered with one on standard output. The server
# runs as an ordinary user.
#
#	postgresql.sh NAME
#
# What is done by several of that at once is apart: each has a cluster and a directory of
# its own, by that name.
set -eu

programs=$(echo /usr/lib/postgresql/*/bin)
sockets=/run/postgresql-$1
data=$sockets/cluster

mkdir -p "$sockets"
cp -R /var/lib/postgresql/cluster "$data"
chown -R postgres "$sockets"
chmod 700 "$data"
chroot --userspec=postgres / "$programs/postgres" -D "$data" -k "$sockets" -c listen_addresses= \
	>"$sockets.log" 2>&1 &
server=$!
until "$programs/pg_isready" -q -h "$sockets"; do
	kill -0 "$server" || {
		cat "$sockets.log" >&2
		exit 1
	}
	sleep 1
done
while read -r _; do
	echo 'SELECT gen_random_uuid();'
done | "$programs/psql" -h "$sockets" -U postgres -d postgres --no-psqlrc -Atq
