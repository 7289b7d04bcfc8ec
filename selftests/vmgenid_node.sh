#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Prints how many bytes /dev/vmgenid has, if there is such a node, and what the driver says of the
# ID and of the devices that it does not take.

if [ -e /dev/vmgenid ]; then
	# To its end, which comes.
	cat /dev/vmgenid >/tmp/id && wc -c </tmp/id
fi
dmesg | sed -n 's,.*sysgenid: no VM generation ID: ,,p; s,.*sysgenid: .*the ID cannot be mapped: ,,p
	s,.* VMGENCTR:[0-9a-f]*: ,,p'
