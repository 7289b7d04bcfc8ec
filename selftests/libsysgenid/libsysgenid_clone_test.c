// SPDX-License-Identifier: GPL-2.0
/*
 * The C library across a clone. Prints READY, is frozen with its machine, and goes on
 * in each clone: by the example that sysgenid.h has, and by calls of its
 * own. Whoever runs the clones compares the lines "# prefix", "# random" and
 * "# id" between them.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <sysgenid.h>

#include "kselftest.h"
/* Taken from sysgenid.h. */
#include "example.c"

static void note(const char *name, const unsigned char *bytes, size_t size)
{
	printf("# %s ", name);
	while (size--)
		printf("%02x", *bytes++);
	putchar('\n');
}

/* Fails the whole program, which has nothing to go on with. */
static void need(int ret, const char *what)
{
	if (ret)
		ksft_exit_fail_msg("%s: %d, %s\n", what, ret, sysgenid_last_error());
}

int main(void)
{
	struct sysgenid_fresh before, after;
	struct sysgenid_overseer *overseer;
	struct sysgenid_watcher *watcher;
	struct id first, last, id;
	unsigned char random[32];
	struct pollfd pollfd;
	struct sysgenid *handle;
	uint32_t generation = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	need(open_machine(), "open_machine");
	need(sysgenid_open(&handle), "sysgenid_open");
	need(sysgenid_id_page(handle), "sysgenid_id_page");
	need(sysgenid_watcher_open(&watcher), "sysgenid_watcher_open");
	need(sysgenid_watcher_set_tracked(watcher, true), "sysgenid_watcher_set_tracked");
	need(sysgenid_overseer_open(&overseer), "sysgenid_overseer_open");
	sysgenid_settle(handle, &before);
	need(next_id(&first), "next_id");
	last = first;
	puts("READY");

	/* IDs without a pause. The first one with another prefix is a clone's. */
	do {
		need(next_id(&id), "next_id");
		if (memcmp(id.prefix, first.prefix, sizeof(id.prefix)))
			break;
		if (id.count != last.count + 1)
			ksft_exit_fail_msg("ID %llu after %llu\n", (unsigned long long)id.count,
					   (unsigned long long)last.count);
		last = id;
	} while (true);

	/* Not earlier, for it would be no clone's. */
	ksft_print_header();
	ksft_set_plan(8);
	note("prefix", id.prefix, sizeof(id.prefix));
	ksft_test_result(id.count == 1, "ids_start_again\n");

	ksft_test_result(sysgenid_changed(handle, &before.seen), "change_is_seen\n");
	sysgenid_settle(handle, &after);
	ksft_test_result(after.freshness == SYSGENID_FRESH_RESEEDED, "settled\n");
	need(sysgenid_fill(&after, random, sizeof(random)), "sysgenid_fill");
	note("random", random, sizeof(random));
	note("id", after.seen.id, sizeof(after.seen.id));
	ksft_test_result(memcmp(before.seen.id, after.seen.id, sizeof(after.seen.id)) &&
			 before.seen.generation != after.seen.generation, "both_are_new\n");

	pollfd.fd = sysgenid_watcher_fd(watcher);
	pollfd.events = POLLIN;
	ksft_test_result(poll(&pollfd, 1, 10000) == 1 && pollfd.revents & POLLIN,
			 "watcher_is_told\n");
	ksft_test_result(sysgenid_overseer_wait_watchers(overseer, 10) == -ETIME,
			 "overseer_waits\n");
	ksft_test_result(!sysgenid_watcher_read(watcher, &generation) &&
			 generation == after.seen.generation &&
			 !sysgenid_watcher_ack(watcher, generation), "watcher_acks\n");
	ksft_test_result(!sysgenid_overseer_wait_watchers(overseer, 1000),
			 "overseer_goes_on\n");

	sysgenid_overseer_close(overseer);
	sysgenid_watcher_close(watcher);
	sysgenid_close(handle);
	ksft_finished();
}
