// SPDX-License-Identifier: GPL-2.0
/*
 * Has a change made that is due, asks for one, or acks all that come, for ever:
 *
 *	settle [MILLISECONDS]
 *	settle --trigger
 *	settle --acks
 *
 * Exits with 0, or with the error number.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sysgenid.h>

static int ack_for_ever(int fd)
{
	uint32_t generation = 0;

	for (;;) {
		/* Whether it is outdated or not: the driver is to be busy. */
		if (read(fd, &generation, sizeof(generation)) < 0 && errno != EAGAIN)
			return errno;
		if (write(fd, &generation, sizeof(generation)) < 0 && errno != EINVAL)
			return errno;
	}
}

int main(int argc, char **argv)
{
	int fd = open("/dev/sysgenid", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno;
	if (argc > 1 && !strcmp(argv[1], "--trigger"))
		return ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL) ? errno : 0;
	if (argc > 1 && !strcmp(argv[1], "--acks"))
		return ack_for_ever(fd);
	return ioctl(fd, SYSGENID_SETTLE, argc > 1 ? strtoul(argv[1], NULL, 10) : 0UL) ? errno : 0;
}
