// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What an open descriptor takes of the kernel's memory, as it is charged to the cgroup
 * of who opens it.
 *
 *	memory
 *
 * For each kind it prints a line of JSON with the bytes for one of many: of
 * /dev/sysgenid, of other things that programs wait on, and of /dev/null, of which
 * nothing is remembered but that it is open; and with an entry in an epoll instance.
 * Wants to be root.
 */

#define _GNU_SOURCE
#include "common.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#define CGROUPS		"/sys/fs/cgroup"
#define CGROUP		CGROUPS "/memory"

/* So many that what comes by whole pages does not show. */
#define NUMBER		20000

static int open_null(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_watcher(void)
{
	return open_node(O_RDWR | O_NONBLOCK);
}

static int open_event(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int open_timer(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
}

/* A cgroup of our own, in which nobody else uses memory. */
static void enter_cgroup(void)
{
	expect(!mount("cgroup2", CGROUPS, "cgroup2", 0, NULL) || errno == EBUSY, CGROUPS);
	write_text(CGROUPS "/cgroup.subtree_control", "+memory", 0);
	expect(!mkdir(CGROUP, 0755), CGROUP);
	write_text(CGROUP "/cgroup.procs", "0", 0);
}

/* Bytes of the kernel's small objects. */
static double charged(void)
{
	FILE *file = fopen(CGROUP "/memory.stat", "re");
	double bytes = -1;
	char line[256];

	expect(file, CGROUP "/memory.stat");
	while (fgets(line, sizeof(line), file))
		sscanf(line, "slab %lf", &bytes);
	fclose(file);
	expect(bytes >= 0, "memory.stat has no “slab”");
	return bytes;
}

/* The kernel counts in batches, and makes the sum every two seconds. */
static double settled(void)
{
	pause_ms(2500);
	return charged();
}

static double bytes(int (*open_one)(void), bool polled)
{
	static int fds[NUMBER];
	struct epoll_event event = { .events = EPOLLIN };
	int instance = epoll_create1(EPOLL_CLOEXEC);
	double before = settled(), after;

	for (int i = 0; i < NUMBER; i++) {
		fds[i] = open_one();
		expect(fds[i] >= 0, "open");
		if (polled)
			expect(!epoll_ctl(instance, EPOLL_CTL_ADD, fds[i], &event), "epoll_ctl");
	}
	after = settled();
	for (int i = 0; i < NUMBER; i++)
		close(fds[i]);
	close(instance);
	return (after - before) / NUMBER;
}

int main(void)
{
	static const struct {
		const char *name;
		int (*open_one)(void);
	} kinds[] = {
		{ "/dev/null", open_null },
		{ "/dev/sysgenid", open_watcher },
		{ "eventfd", open_event },
		{ "timerfd", open_timer },
	};

	allow_descriptors(NUMBER + 100);
	enter_cgroup();
	/* The table of descriptors has its size after that. */
	bytes(open_event, true);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		double alone = bytes(kinds[i].open_one, false);

		printf("{\"what\": \"%s\", \"bytes\": %.1f", kinds[i].name, alone);
		/* /dev/null cannot be waited for. */
		if (kinds[i].open_one != open_null)
			printf(", \"in_epoll\": %.1f", bytes(kinds[i].open_one, true));
		printf("}\n");
	}
	return 0;
}
