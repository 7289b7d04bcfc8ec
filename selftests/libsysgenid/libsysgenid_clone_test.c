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

/* What send_id() has sent. */
struct sent {
	char prefix[17];
	unsigned long long count;
};

/* The last line but one, and after it "good"; others before it were taken back. */
static void take(struct sent *sent)
{
	char text[256] = "\n", *good, *id;
	FILE *to = fmemopen(text + 1, sizeof(text) - 1, "w");

	if (!to)
		ksft_exit_fail_msg("fmemopen: %m\n");
	need(send_id(to), "send_id");
	fclose(to);
	good = strstr(text, "\ngood\n");
	if (!good)
		ksft_exit_fail_msg("nothing is good: %s\n", text);
	*good = '\0';
	id = strrchr(text, '\n') + 1;
	if (sscanf(id, "%16[0-9a-f]-%llu", sent->prefix, &sent->count) != 2)
		ksft_exit_fail_msg("this is no ID: %s\n", id);
}

static struct sysgenid_overseer *changer;
static char received[256];

/* The machine changes while the first line is on its way. */
static ssize_t receive(void *cookie, const char *bytes, size_t size)
{
	(void)cookie;
	if (!*received)
		need(sysgenid_overseer_trigger(changer, 0, NULL), "sysgenid_overseer_trigger");
	strncat(received, bytes, size);
	return size;
}

/* What was on its way is taken back, and another one is sent. */
static bool is_taken_back(void)
{
	const cookie_io_functions_t functions = { .write = receive };
	FILE *to = fopencookie(NULL, "w", functions);
	char first[17], second[17];
	int end = 0;

	if (!to)
		ksft_exit_fail_msg("fopencookie: %m\n");
	need(sysgenid_overseer_open(&changer), "sysgenid_overseer_open");
	need(send_id(to), "send_id");
	fclose(to);
	sysgenid_overseer_close(changer);
	if (sscanf(received, "%16[0-9a-f]-%*u void %16[0-9a-f]-1 good%n", first, second, &end) != 2)
		return false;
	return end && strcmp(first, second);
}

int main(void)
{
	struct sysgenid_fresh before, after;
	struct sysgenid_overseer *overseer;
	struct sysgenid_watcher *watcher;
	struct sent first, last, id;
	bool taken_back;
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
	taken_back = is_taken_back();
	take(&first);
	last = first;
	sysgenid_settle(handle, &before);
	puts("READY");

	/* IDs without a pause. The first one with another prefix is a clone's. */
	do {
		take(&id);
		if (strcmp(id.prefix, first.prefix))
			break;
		if (id.count != last.count + 1)
			ksft_exit_fail_msg("ID %llu after %llu\n", id.count, last.count);
		last = id;
	} while (true);

	/* Not earlier, for it would be no clone's. */
	ksft_print_header();
	ksft_set_plan(9);
	ksft_test_result(taken_back, "what_is_on_its_way_is_taken_back\n");
	printf("# prefix %s\n", id.prefix);
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
