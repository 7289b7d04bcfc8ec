// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * How long it takes from a change of the generation until a program that sleeps in
 * poll() runs, while others watch as well.
 *
 *	disturb [--watchers N] [--entries N] [--changes N]
 *
 * --watchers are N watchers of another program, which sleeps in epoll_wait() and
 * confirms each change; --entries are N entries in epoll instances for one single
 * watcher, of a user who does nothing else. The generation is changed N times [21],
 * each time after a rest. It prints the least, the median and the greatest of the
 * times in microseconds: until the program runs, and until the call that makes the
 * change has returned. Wants to be root.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define NODE	"/dev/sysgenid"
#define NOBODY	65534

/* So many descriptors of the one watcher are in each epoll instance. */
#define COPIES	2000

/* What the processes share. */
static struct shared {
	_Atomic uint32_t ready;
	/* When the sleeper ran, and for which generation. */
	_Atomic uint64_t woken_ns;
	_Atomic uint32_t woken_for;
} *shared;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static int open_node(int flags)
{
	int fd = open(NODE, flags | O_CLOEXEC);

	if (fd < 0)
		fail(NODE);
	return fd;
}

/* Reads the generation, and confirms it. */
static uint32_t confirm(int fd)
{
	uint32_t generation;

	if (read(fd, &generation, sizeof(generation)) != sizeof(generation) ||
	    write(fd, &generation, sizeof(generation)) != sizeof(generation))
		fail("a watcher");
	return generation;
}

/* Starts a process, and waits until it says that it is ready. */
static void start(void (*run)(long number), long number)
{
	uint32_t before = shared->ready;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(number);
		exit(1);
	}
	while (shared->ready == before)
		pause_ms(1);
}

static void sleeper(long number)
{
	struct pollfd polled = { .fd = open_node(O_RDWR | O_NONBLOCK), .events = POLLIN };

	(void)number;
	shared->ready++;
	while (poll(&polled, 1, -1) == 1) {
		shared->woken_ns = now_ns();
		shared->woken_for = confirm(polled.fd);
	}
	fail("poll");
}

static void watchers(long number)
{
	int instance = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };

	for (long i = 0; i < number; i++) {
		event.data.fd = open_node(O_RDWR | O_NONBLOCK);
		if (epoll_ctl(instance, EPOLL_CTL_ADD, event.data.fd, &event))
			fail("epoll_ctl");
	}
	shared->ready++;
	while (epoll_wait(instance, &event, 1, -1) == 1)
		confirm(event.data.fd);
	fail("epoll_wait");
}

static void entries(long number)
{
	struct epoll_event event = { .events = EPOLLIN };
	int copies[COPIES];
	int instance = -1;

	if (setresuid(NOBODY, NOBODY, NOBODY))
		fail("setresuid");
	/* The kernel clears it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	copies[0] = open_node(O_RDONLY);
	for (int i = 1; i < COPIES; i++) {
		copies[i] = dup(copies[0]);
		if (copies[i] < 0)
			fail("dup");
	}
	for (long i = 0; i < number; i++) {
		if (i % COPIES == 0)
			instance = epoll_create1(EPOLL_CLOEXEC);
		if (epoll_ctl(instance, EPOLL_CTL_ADD, copies[i % COPIES], &event))
			fail("epoll_ctl");
	}
	shared->ready++;
	for (;;)
		pause();
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static void print(const char *what, uint64_t *times, long number)
{
	qsort(times, number, sizeof(*times), compare);
	printf("%s: least %.1f us, median %.1f us, greatest %.1f us\n", what, times[0] / 1e3,
	       times[number / 2] / 1e3, times[number - 1] / 1e3);
}

int main(int argc, char **argv)
{
	long honest = 0, hostile = 0, changes = 21;
	struct rlimit descriptors = { 4096, 4096 };
	const struct sysgenid_page *page;
	uint64_t *woken, *returned;
	int overseer;

	for (int i = 1; i < argc; i += 2) {
		long *value = !strcmp(argv[i], "--watchers") ? &honest :
			      !strcmp(argv[i], "--entries") ? &hostile :
			      !strcmp(argv[i], "--changes") ? &changes : NULL;

		if (!value || i + 1 == argc) {
			fputs("usage: disturb [--watchers N] [--entries N] [--changes N]\n", stderr);
			return 2;
		}
		*value = atol(argv[i + 1]);
	}
	if (changes < 1 || setrlimit(RLIMIT_NOFILE, &descriptors))
		fail("setrlimit");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	woken = calloc(changes, sizeof(*woken));
	returned = calloc(changes, sizeof(*returned));
	overseer = open_node(O_RDONLY);
	page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, overseer, 0);
	if (shared == MAP_FAILED || page == MAP_FAILED || !woken || !returned)
		fail("memory");

	start(sleeper, 0);
	if (honest)
		start(watchers, honest);
	if (hostile)
		start(entries, hostile);
	for (long i = 0; i < changes; i++) {
		uint64_t began;

		pause_ms(300);
		began = now_ns();
		if (ioctl(overseer, SYSGENID_TRIGGER_GEN_UPDATE, 0))
			fail("SYSGENID_TRIGGER_GEN_UPDATE");
		returned[i] = now_ns() - began;
		while (shared->woken_for != page->generation)
			pause_ms(1);
		woken[i] = shared->woken_ns - began;
	}
	printf("%ld watchers, %ld entries, %ld changes\n", honest, hostile, changes);
	print("the sleeper runs", woken, changes);
	print("the call returns", returned, changes);
	return 0;
}
