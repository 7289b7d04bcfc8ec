// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The guest's part of the measurement of a look: how long it takes in a clone from the
 * moment when a program looks, and sees a new VM generation ID, until the machine is
 * settled.
 *
 *	settled settle|open [--busy]
 *
 * It prints READY when the machine has come to rest, and is frozen with it. From then on
 * it looks at the ID each time a timer of 30 us wakes it; with --busy it looks without a
 * pause, and each processor has another program to run besides. When there is a new ID it
 * calls SYSGENID_SETTLE, or opens the device. Then the generation has to be new, and it
 * prints a line of JSON, with nanoseconds from the look until that call has returned:
 *
 *	{"window": true, "took": 17400}
 *
 * "window" tells whether the generation was still the old one when it looked.
 *
 * In a guest that counts instructions its processors take turns. A turn ends with the
 * instruction "pause", so all that is busy here has one in each of its loops: else the
 * turns of the others would count.
 */

#define _GNU_SOURCE
#include "common.h"

#include <stdatomic.h>

static const _Atomic uint32_t *generation;
static const _Atomic uint64_t *id;
static bool busy;

/* A hint for the processor, on any. */
static void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

static void find_id(void)
{
	int fd = open("/dev/vmgenid", O_RDONLY | O_CLOEXEC);
	long offset;
	char *page;

	expect(fd >= 0, "/dev/vmgenid");
	offset = ioctl(fd, VMGENID_GET_OFFSET);
	expect(offset >= 0, "VMGENID_GET_OFFSET");
	page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
	expect(page != MAP_FAILED, "mmap");
	id = (const void *)(page + offset);
	close(fd);
}

static void be_busy(long unused)
{
	(void)unused;
	for (;;)
		relax();
}

/* Returns when a new ID was seen. */
static int64_t wait_for_id(uint64_t old)
{
	while (atomic_load_explicit(id, memory_order_acquire) == old) {
		if (busy)
			relax();
		else
			nanosleep(&(struct timespec){ .tv_nsec = 30000 }, NULL);
	}
	return now();
}

int main(int argc, char **argv)
{
	bool opens = argc > 1 && !strcmp(argv[1], "open"), window;
	int64_t began, took;
	uint32_t before;
	uint64_t old;
	int fd;

	busy = argc == 3 && !strcmp(argv[2], "--busy");
	if (argc != 2 + busy || (!opens && strcmp(argv[1], "settle"))) {
		fprintf(stderr, "usage: settled settle|open [--busy]\n");
		return 2;
	}
	fd = open_node(O_RDONLY);
	generation = (const void *)&map_node()->generation;
	find_id();
	old = atomic_load_explicit(id, memory_order_acquire);
	before = atomic_load_explicit(generation, memory_order_acquire);
	/* Else the kernel rounds the 30 us. */
	prctl(PR_SET_TIMERSLACK, 1);
	wait_for_processor();
	for (long i = busy ? sysconf(_SC_NPROCESSORS_ONLN) : 0; i > 0; i--)
		start(be_busy, 0);
	pause_ms(20);
	puts("READY");
	fflush(stdout);

	began = wait_for_id(old);
	window = atomic_load_explicit(generation, memory_order_acquire) == before;
	if (opens)
		close(open_node(O_RDONLY));
	else
		expect(!ioctl(fd, SYSGENID_SETTLE, 0), "SYSGENID_SETTLE");
	took = now() - began;
	if (atomic_load_explicit(generation, memory_order_acquire) == before) {
		fprintf(stderr, "settled: it has returned, and the generation is the old one\n");
		return 1;
	}
	printf("{\"window\": %s, \"took\": %lld}\n", window ? "true" : "false", (long long)took);
	return 0;
}
