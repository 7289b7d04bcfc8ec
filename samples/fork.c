// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What becomes of everything in a forked process. Build it by
 *	gcc fork.c -o fork $(pkg-config --cflags --libs sysgenid)
 *
 * It prints "parent HEX", "child HEX" and "parent HEX": the parent keeps its number, and
 * the child has one of its own.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sysgenid.h>

static struct sysgenid *machine;

/* A number that no other process has, in this machine or in a clone of it. */
static int show_number(const char *process)
{
	static struct sysgenid_seen seen;	/* nothing, at first */
	static unsigned long long number;
	int ret;

	/* A forked process has what its parent has seen, and that has changed for it. */
	if (sysgenid_changed(machine, &seen)) {
		ret = sysgenid_random(machine, &number, sizeof(number), &seen);
		if (ret)
			return ret;
	}
	printf("%s %016llx\n", process, number);
	/* What stays in the buffer at a fork leaves both processes. */
	return fflush(stdout) ? -errno : 0;
}

/* Sees no change but the parent's: whoever acknowledges on it does so for both. */
static int open_own_watcher(struct sysgenid_watcher **watcher)
{
	sysgenid_watcher_close(*watcher);
	return sysgenid_watcher_open(watcher);
}

int main(void)
{
	struct sysgenid_watcher *watcher;
	int ret, status;
	pid_t child;

	ret = sysgenid_open(&machine);
	if (!ret)
		ret = sysgenid_watcher_open(&watcher);
	if (!ret)
		ret = show_number("parent");
	if (ret) {
		fprintf(stderr, "%s\n", sysgenid_last_error());
		return EXIT_FAILURE;
	}

	child = fork();
	if (!child) {
		/* The handle goes on working. The watcher is the parent's as well. */
		ret = open_own_watcher(&watcher);
		if (!ret)
			ret = show_number("child");
		return ret ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	if (child < 0 || waitpid(child, &status, 0) < 0 || status)
		return EXIT_FAILURE;
	return show_number("parent") ? EXIT_FAILURE : EXIT_SUCCESS;
}
