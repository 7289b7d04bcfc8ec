/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a program does that wants to be told of a change, whatever its event loop is: the
 * loops are in watch_poll.c, watch_epoll.c and watch_sd_event.c. Copy it, and put
 * into build() what must be unique in the world.
 */

#ifndef WATCH_H
#define WATCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <sysgenid.h>

static struct sysgenid *machine;

/* What must be unique: here, a number. */
static unsigned long long number;

static inline int build(void)
{
	return sysgenid_random(machine, &number, sizeof(number), NULL);
}

/*
 * Opens the watcher, and then builds for the first time: so a change that comes in
 * between is not missed. An overseer waits for this watcher from then on.
 */
static inline int begin(struct sysgenid_watcher **watcher)
{
	int ret = sysgenid_watcher_open(watcher);

	if (!ret)
		ret = sysgenid_watcher_set_tracked(*watcher, 1);
	if (!ret)
		ret = sysgenid_open(&machine);
	if (!ret)
		ret = build();
	if (!ret) {
		printf("begun with %016llx\n", number);
		fflush(stdout);
	}
	return ret;
}

/* To be called when the watcher's descriptor is readable. */
static inline int heed(struct sysgenid_watcher *watcher)
{
	uint32_t generation;
	int ret;

	do {
		ret = sysgenid_watcher_read(watcher, &generation);
		if (ret)	/* -EAGAIN: there is nothing to do any more. */
			return ret == -EAGAIN ? 0 : ret;
		ret = build();
		if (ret)	/* Not acknowledged: whoever waits sees that. */
			return ret;
		printf("generation %u with %016llx\n", generation, number);
		fflush(stdout);
		ret = sysgenid_watcher_ack(watcher, generation);
	} while (ret == -ESTALE);	/* It has changed again. */
	return ret;
}

/* The library's words for an operator. */
static inline void complain(void)
{
	fprintf(stderr, "%s\n", sysgenid_last_error());
}

#endif
