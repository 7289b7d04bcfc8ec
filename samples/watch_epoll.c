// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A watcher in a loop of epoll. Build it by
 *	gcc watch_epoll.c -o watch_epoll $(pkg-config --cflags --libs sysgenid)
 */

#include <sys/epoll.h>

#include "watch.h"

#define EVENTS	16

int main(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), count, i;
	/* Level-triggered: it is there again until it is acknowledged. */
	struct epoll_event event = { .events = EPOLLIN }, events[EVENTS];
	struct sysgenid_watcher *watcher;

	if (begin(&watcher)) {
		complain();
		return EXIT_FAILURE;
	}
	event.data.ptr = watcher;
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, sysgenid_watcher_fd(watcher), &event)) {
		perror("epoll");
		return EXIT_FAILURE;
	}

	for (;;) {
		count = epoll_wait(epoll, events, EVENTS, -1);
		if (count < 0 && errno != EINTR) {
			perror("epoll_wait");
			return EXIT_FAILURE;
		}
		/* Before the others, which may use what must be unique. */
		for (i = 0; i < count; i++) {
			if (events[i].data.ptr == watcher && heed(watcher)) {
				complain();
				return EXIT_FAILURE;
			}
		}
		/* Here come the others. */
	}
}
