// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A watcher in a loop of poll(). Build it by
 *	gcc watch_poll.c -o watch_poll $(pkg-config --cflags --libs sysgenid)
 */

#include <poll.h>

#include "watch.h"

int main(void)
{
	struct sysgenid_watcher *watcher;
	struct pollfd fds[1];	/* Those of the rest of the program come after it. */

	if (begin(&watcher)) {
		complain();
		return EXIT_FAILURE;
	}
	fds[0].fd = sysgenid_watcher_fd(watcher);
	fds[0].events = POLLIN;

	for (;;) {
		if (poll(fds, 1, -1) < 0) {
			if (errno == EINTR)
				continue;
			perror("poll");
			return EXIT_FAILURE;
		}
		/* Before anything else is done: that may use what must be unique. */
		if (fds[0].revents && heed(watcher)) {
			complain();
			return EXIT_FAILURE;
		}
	}
}
