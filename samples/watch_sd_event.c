// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A watcher in the event loop of systemd. Build it by
 *	gcc watch_sd_event.c -o watch_sd_event \
 *		$(pkg-config --cflags --libs sysgenid libsystemd)
 */

#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-event.h>

#include "watch.h"

static int on_change(sd_event_source *source, int fd, uint32_t events, void *watcher)
{
	int ret = heed(watcher);

	(void)fd;
	(void)events;
	if (ret) {
		complain();
		/* Else the source would be off, and the loop would go on without it. */
		sd_event_exit(sd_event_source_get_event(source), EXIT_FAILURE);
	}
	return ret;
}

int main(void)
{
	struct sysgenid_watcher *watcher;
	sd_event_source *source;
	sd_event *event;
	int ret;

	if (begin(&watcher)) {
		complain();
		return EXIT_FAILURE;
	}
	ret = sd_event_default(&event);
	if (ret >= 0)
		ret = sd_event_add_io(event, &source, sysgenid_watcher_fd(watcher), EPOLLIN,
				      on_change, watcher);
	/* Before the others, which may use what must be unique. */
	if (ret >= 0)
		ret = sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT);
	if (ret >= 0)
		ret = sd_event_loop(event);
	if (ret < 0)
		fprintf(stderr, "sd-event: %s\n", strerror(-ret));
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
