// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * How many calls several threads make at the same time, each on a watcher of its own.
 *
 *	scaling THREADS
 *
 * For each call, without changes and with one every millisecond, it prints a line of
 * JSON: how many of them all threads have made in a second. Who finds a change confirms
 * it. Wants to be root, and as many processors as threads.
 */

#define _GNU_SOURCE
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#define MOST_THREADS	64
#define WARM_MS		200
#define MEASURED_MS	1000

static const struct sysgenid_page *page;
static _Atomic bool stops;

/* One for each thread, in a cache line of its own. */
static struct counter {
	_Alignas(64) _Atomic uint64_t calls;
} counters[MOST_THREADS];

static uint32_t generation(void)
{
	return *(const volatile uint32_t *)&page->generation;
}

/* A value that is no longer the generation is refused. */
static void confirm(int fd, uint32_t value)
{
	expect(write(fd, &value, 4) == 4 || errno == EINVAL, "write");
}

static void call_load(int fd, uint32_t *known)
{
	uint32_t value = generation();

	(void)fd;
	if (value != *known)
		*known = value;
}

static void call_read(int fd, uint32_t *known)
{
	if (read(fd, known, 4) == 4)
		confirm(fd, *known);
	else
		expect(errno == EAGAIN, "read");
}

static void call_poll(int fd, uint32_t *known)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };

	if (poll(&polled, 1, 0)) {
		*known = generation();
		confirm(fd, *known);
	}
}

static void call_ack(int fd, uint32_t *known)
{
	*known = generation();
	confirm(fd, *known);
}

static const struct call {
	const char *name;
	void (*call)(int fd, uint32_t *known);
} calls[] = {
	{ "load from the mapping", call_load },
	{ "read", call_read },
	{ "poll", call_poll },
	{ "ack", call_ack },
};

static const struct call *chosen;

static void *work(void *argument)
{
	struct counter *counter = argument;
	int fd = open_node(O_RDWR | O_NONBLOCK);
	uint32_t known = generation();

	confirm(fd, known);
	while (!atomic_load_explicit(&stops, memory_order_relaxed)) {
		for (int i = 0; i < 100; i++)
			chosen->call(fd, &known);
		atomic_fetch_add_explicit(&counter->calls, 100, memory_order_relaxed);
	}
	close(fd);
	return NULL;
}

/* Changes are made by a thread of its own, for so long. */
static void change_for(int overseer, bool changes, long ms)
{
	int64_t end = now() + ms * 1000000ll;

	while (changes && now() < end) {
		trigger(overseer);
		pause_ms(1);
	}
	if (!changes)
		pause_ms(ms);
}

static uint64_t count(long threads)
{
	uint64_t all = 0;

	for (long i = 0; i < threads; i++)
		all += counters[i].calls;
	return all;
}

static void measure(long threads, int overseer, bool changes)
{
	pthread_t workers[MOST_THREADS];
	uint32_t generation_before;
	uint64_t before, made;
	int64_t start, took;

	stops = false;
	for (long i = 0; i < threads; i++)
		expect(!pthread_create(&workers[i], NULL, work, &counters[i]), "pthread_create");
	change_for(overseer, changes, WARM_MS);
	generation_before = generation();
	before = count(threads);
	start = now();
	change_for(overseer, changes, MEASURED_MS);
	made = count(threads) - before;
	took = now() - start;
	printf("{\"call\": \"%s\", \"threads\": %ld, \"changes\": %u, \"per_second\": %.0f}\n",
	       chosen->name, threads, generation() - generation_before, made * 1e9 / took);
	stops = true;
	for (long i = 0; i < threads; i++)
		pthread_join(workers[i], NULL);
}

int main(int argc, char **argv)
{
	long threads = argc == 2 ? atol(argv[1]) : 0;
	int overseer;

	if (threads < 1 || threads > MOST_THREADS) {
		fprintf(stderr, "usage: scaling THREADS (1 to %d)\n", MOST_THREADS);
		return 2;
	}
	page = map_node();
	overseer = open_node(O_RDWR);
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		chosen = &calls[i];
		measure(threads, overseer, false);
		measure(threads, overseer, true);
	}
	return 0;
}
