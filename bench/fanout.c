// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * How long a change takes until all who wait for it run, and all have confirmed it.
 *
 *	fanout epoll|poll|read WATCHERS [--entries N]
 *
 * WATCHERS tracked watchers wait: all in one epoll instance of one program, or each in
 * a process of its own, asleep in poll() or in read(). Who is woken reads the new
 * generation and acks it. --entries are N entries in epoll instances for one single
 * watcher, of an ordinary user who does nothing else.
 *
 * The generation is changed a few times, each time after a rest, and the least of all
 * times counts, since what comes in between can only add to it. One line of JSON has
 * them, in nanoseconds from the call that changes the generation: until the first and
 * the last of the watchers run, until that call has returned, and until
 * SYSGENID_WAIT_WATCHERS has; and for how long interrupts were off at most while they
 * were woken, which is taken from other changes, with the function graph tracer on.
 * Wants to be root.
 */

#define _GNU_SOURCE
#include "common.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define NOBODY		65534
#define CHANGES		7

/* So many descriptors of the one watcher are in each epoll instance. */
#define COPIES		2000

/* What the processes share. */
static struct shared {
	/* How many of them are there. */
	_Atomic long ready;
	/* Since the last change: how many watchers were woken, and when. */
	_Atomic long woken;
	_Atomic int64_t first;
	_Atomic int64_t last;
} *shared;

static void note(int64_t time)
{
	int64_t none = 0;

	atomic_compare_exchange_strong(&shared->first, &none, time);
	shared->last = time;
	shared->woken++;
}

static void start_and_wait(void (*role)(long), long number)
{
	long before = shared->ready;
	pid_t pid = start(role, number);

	while (shared->ready == before) {
		/* It has said why. */
		if (waitpid(pid, NULL, WNOHANG) == pid)
			exit(1);
		pause_ms(1);
	}
}

static int tracked(int flags)
{
	int fd = open_node(O_RDWR | flags);

	expect(!ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1), "SYSGENID_SET_WATCHER_TRACKING");
	return fd;
}

static void in_epoll(long watchers)
{
	static struct epoll_event events[512];
	struct epoll_event event = { .events = EPOLLIN };
	int instance = epoll_create1(EPOLL_CLOEXEC);

	for (long i = 0; i < watchers; i++) {
		event.data.fd = tracked(O_NONBLOCK);
		expect(!epoll_ctl(instance, EPOLL_CTL_ADD, event.data.fd, &event), "epoll_ctl");
	}
	shared->ready++;
	for (;;) {
		int number = epoll_wait(instance, events, 512, -1);

		expect(number > 0, "epoll_wait");
		for (int i = 0; i < number; i++) {
			note(now());
			ack(events[i].data.fd);
		}
	}
}

static void in_poll(long unused)
{
	struct pollfd polled = { .fd = tracked(O_NONBLOCK), .events = POLLIN };

	(void)unused;
	shared->ready++;
	for (;;) {
		expect(poll(&polled, 1, -1) == 1, "poll");
		note(now());
		ack(polled.fd);
	}
}

static void in_read(long unused)
{
	uint32_t generation;
	int fd = tracked(0);

	(void)unused;
	shared->ready++;
	for (;;) {
		expect(read(fd, &generation, 4) == 4, "read");
		note(now());
		expect(write(fd, &generation, 4) == 4, "write");
	}
}

static void hostile(long entries)
{
	struct epoll_event event = { .events = EPOLLIN };
	int copies[COPIES];
	int instance = -1;

	expect(!setresuid(NOBODY, NOBODY, NOBODY), "setresuid");
	/* The kernel clears it when the user changes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	copies[0] = open_node(O_RDONLY);
	for (int i = 1; i < COPIES; i++) {
		copies[i] = dup(copies[0]);
		expect(copies[i] >= 0, "dup");
	}
	for (long i = 0; i < entries; i++) {
		if (i % COPIES == 0) {
			instance = epoll_create1(EPOLL_CLOEXEC);
			expect(instance >= 0, "epoll_create1");
		}
		expect(!epoll_ctl(instance, EPOLL_CTL_ADD, copies[i % COPIES], &event),
		       "epoll_ctl (/proc/sys/fs/epoll/max_user_watches)");
	}
	shared->ready++;
	for (;;)
		pause();
}

/* Before a change: nobody has run since the last one. */
static void rest(void)
{
	shared->woken = 0;
	shared->first = 0;
	pause_ms(50);
}

/* Until all have confirmed; who waits for that has to do so, too. */
static void release(int overseer)
{
	ack(overseer);
	expect(!ioctl(overseer, SYSGENID_WAIT_WATCHERS, 0), "SYSGENID_WAIT_WATCHERS");
}

static void expect_all(long watchers)
{
	if (shared->woken == watchers)
		return;
	fprintf(stderr, "fanout: %ld of %ld were woken\n", shared->woken, watchers);
	exit(1);
}

static void trace(void)
{
	mount_tracing();
	write_text(TRACING "/tracing_on", "0", O_TRUNC);
	/* It walks the list of who waits with interrupts off, and does nothing else. */
	write_text(TRACING "/set_ftrace_filter", "__wake_up\n", O_TRUNC);
	write_text(TRACING "/set_graph_function", "__wake_up\n", O_TRUNC);
	write_text(TRACING "/trace_clock", "mono", O_TRUNC);
	write_text(TRACING "/current_tracer", "function_graph", O_TRUNC);
	/* When interrupts are on again, those who were woken may run before it returns. */
	write_text(TRACING "/options/sleep-time", "0", O_TRUNC);
}

/* The longest call in the trace: “ 0)   1.234 us    |  __wake_up();”. */
static double longest(void)
{
	FILE *file = fopen(TRACING "/trace", "re");
	double most = 0, one;
	char line[256];

	expect(file, TRACING "/trace");
	while (fgets(line, sizeof(line), file)) {
		char *end = strstr(line, " us "), *start = end;

		while (start > line && (start[-1] == '.' || (start[-1] >= '0' && start[-1] <= '9')))
			start--;
		if (end && sscanf(start, "%lf", &one) == 1 && one > most)
			most = one;
	}
	fclose(file);
	if (!most) {
		fprintf(stderr, "fanout: the trace has no call of __wake_up\n");
		exit(1);
	}
	return most * 1000;
}

static double interrupts_off(int overseer, long watchers)
{
	double most[CHANGES];

	trace();
	for (int i = 0; i < CHANGES; i++) {
		rest();
		write_text(TRACING "/trace", "", O_TRUNC);
		write_text(TRACING "/tracing_on", "1", O_TRUNC);
		trigger(overseer);
		write_text(TRACING "/tracing_on", "0", O_TRUNC);
		most[i] = longest();
		release(overseer);
		expect_all(watchers);
	}
	return least(most, CHANGES);
}

int main(int argc, char **argv)
{
	static double first[CHANGES], last[CHANGES], returned[CHANGES], released[CHANGES];
	long watchers = argc > 2 ? atol(argv[2]) : 0, entries = 0;
	void (*role)(long) = NULL;
	int overseer;

	if (argc > 2) {
		role = !strcmp(argv[1], "epoll") ? in_epoll :
		       !strcmp(argv[1], "poll") ? in_poll :
		       !strcmp(argv[1], "read") ? in_read : NULL;
	}
	if (argc == 5 && !strcmp(argv[3], "--entries"))
		entries = atol(argv[4]);
	if (!role || watchers < 1 || (argc != 3 && entries < 1)) {
		fprintf(stderr, "usage: fanout epoll|poll|read WATCHERS [--entries N]\n");
		return 2;
	}
	allow_descriptors(watchers + COPIES + entries / COPIES + 100);
	shared = share(sizeof(*shared));
	overseer = open_node(O_RDWR);
	if (role == in_epoll) {
		start_and_wait(role, watchers);
	} else {
		for (long i = 0; i < watchers; i++)
			start_and_wait(role, 0);
	}
	if (entries)
		start_and_wait(hostile, entries);
	/* The first change after somebody has begun to wait costs more. */
	rest();
	trigger(overseer);
	release(overseer);
	for (int i = 0; i < CHANGES; i++) {
		int64_t began;

		rest();
		began = now();
		trigger(overseer);
		returned[i] = now() - began;
		release(overseer);
		released[i] = now() - began;
		expect_all(watchers);
		first[i] = shared->first - began;
		last[i] = shared->last - began;
	}
	printf("{\"how\": \"%s\", \"watchers\": %ld, \"entries\": %ld, \"first\": %.0f, "
	       "\"last\": %.0f, \"returned\": %.0f, \"released\": %.0f, ",
	       argv[1], watchers, entries, least(first, CHANGES), least(last, CHANGES),
	       least(returned, CHANGES), least(released, CHANGES));
	printf("\"interrupts_off\": %.0f}\n", interrupts_off(overseer, watchers));
	return 0;
}
