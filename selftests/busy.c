// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps the driver busy until it is killed: acks all that come, and is tracked and untracked; or
 * maps the page and reads the directory of the node into memory that has to be faulted in; or
 * leaves it nothing of the first processor, on which it runs as a real-time task:
 *
 *	busy --acks
 *	busy --maps
 *	busy --processor
 *
 * Exits with the error number if it cannot go on.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sysgenid.h>

static int ack_for_ever(int node)
{
	uint32_t generation = 0;

	for (;;) {
		/* Whether it is outdated or not: the driver is to be busy. */
		if (read(node, &generation, sizeof(generation)) < 0 && errno != EAGAIN)
			return errno;
		if (write(node, &generation, sizeof(generation)) < 0 && errno != EINVAL)
			return errno;
		/* To ack once more takes no lock, and this does. */
		if (ioctl(node, SYSGENID_SET_WATCHER_TRACKING, 1) ||
		    ioctl(node, SYSGENID_SET_WATCHER_TRACKING, 0))
			return errno;
	}
}

static int map_for_ever(int node)
{
	long size = sysconf(_SC_PAGESIZE);
	int dir = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return errno;
	for (;;) {
		/* One thread maps while the other one's readdir faults: they share the lock. */
		uint32_t *page = mmap(NULL, size, PROT_READ, MAP_SHARED, node, 0);
		void *entries = mmap(NULL, 16 * size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED || entries == MAP_FAILED)
			return errno;
		__atomic_load_n(page, __ATOMIC_RELAXED);
		while (syscall(SYS_getdents64, dir, entries, 16 * size) > 0)
			;
		if (lseek(dir, 0, SEEK_SET))
			return errno;
		munmap(entries, 16 * size);
		munmap(page, size);
	}
}

static int keep_processor(void)
{
	struct sched_param param = { .sched_priority = 50 };
	cpu_set_t first;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first) ||
	    sched_setscheduler(0, SCHED_FIFO, &param))
		return errno;
	/* It has it. */
	if (write(STDOUT_FILENO, "\n", 1) != 1)
		return errno;
	for (;;)
		;
}

static int fd;

static void *map_in_a_thread(void *unused)
{
	(void)unused;
	exit(map_for_ever(fd));
}

int main(int argc, char **argv)
{
	pthread_t thread;

	errno = EINVAL;
	if (argc != 2)
		return errno;
	if (!strcmp(argv[1], "--processor"))
		return keep_processor();
	if (strcmp(argv[1], "--acks") && strcmp(argv[1], "--maps"))
		return errno;
	fd = open("/dev/sysgenid", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (!strcmp(argv[1], "--acks"))
		return ack_for_ever(fd);
	errno = pthread_create(&thread, NULL, map_in_a_thread, NULL);
	return errno ? errno : map_for_ever(fd);
}
