// SPDX-License-Identifier: GPL-2.0
/*
 * Has a change made that is due, or asks for one:
 *
 *	settle [MILLISECONDS]
 *	settle --trigger
 *
 * Exits with 0, or with the error number.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/sysgenid.h>

int main(int argc, char **argv)
{
	int fd = open("/dev/sysgenid", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno;
	if (argc > 1 && !strcmp(argv[1], "--trigger"))
		return ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL) ? errno : 0;
	return ioctl(fd, SYSGENID_SETTLE, argc > 1 ? strtoul(argv[1], NULL, 10) : 0UL) ? errno : 0;
}
