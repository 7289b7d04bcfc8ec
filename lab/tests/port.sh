#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# In a guest: speaks with the program at the other end of a port, before the machine is saved and in
# each clone. Prints TAP there.
set -eu

name=$(grep -lx org.example.0 /sys/class/virtio-ports/*/name)
name=${name%/name}
exec 3<>"/dev/${name##*/}"
echo before >&3
read -r answer <&3
[ "$answer" = booted ]
echo READY
# Nobody says anything until it is resumed.
read -r answer id <&3
echo "TAP version 13"
[ "$answer" = resumed ] || echo "not ok 1 the program of this machine speaks: $answer"
echo "# id $id"
echo "ok 1 the program of this machine speaks"
echo 1..1
echo after >&3
