// SPDX-License-Identifier: GPL-2.0
/*
 * A machine that is saved between the kernel's reseed and the moment when anybody is told:
 * its clones get IDs for which nobody has reseeded anything yet. Prints READY there, then
 * follows the protocol of a library that keeps secrets (uapi/linux/sysgenid.h), and prints
 * TAP and, for the host to compare between clones,
 *
 *	# random HEX	what it has drawn when it was settled
 *	# vmgenid HEX	the ID for which that was
 *
 * Wants sysgenid_hypervisor, and a kernel that tells of forks.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define PLAY	"/sys/module/sysgenid_hypervisor/parameters/"
#define ID_SIZE	16
#define LIMIT_MS	60000

static const struct sysgenid_page *page;
static const struct vmgenid_answer_page *answer;
static const uint8_t *id;

#define load(what)	__atomic_load_n(what, __ATOMIC_RELAXED)

static void bail_out(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void sleep_ms(long ms)
{
	struct timespec time = { .tv_nsec = ms * 1000000 };

	nanosleep(&time, NULL);
}

static void play(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		bail_out(path);
	close(fd);
}

static long number_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		bail_out(path);
	close(fd);
	return atol(text);
}

static void copy_id(uint8_t *to, const uint8_t *from)
{
	int i;

	for (i = 0; i < ID_SIZE; i++)
		to[i] = load(from + i);
}

/* One look: whether the answer is to the ID that is there, and of this generation. */
static bool is_settled(uint8_t *settled_id, uint32_t *flags)
{
	uint8_t answered[ID_SIZE];
	uint32_t sequence, generation;

	sequence = __atomic_load_n(&answer->sequence, __ATOMIC_ACQUIRE);
	copy_id(settled_id, id);
	copy_id(answered, answer->id);
	generation = load(&answer->generation);
	*flags = load(&answer->flags);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return sequence % 2 == 0 && sequence == load(&answer->sequence) &&
	       !memcmp(settled_id, answered, ID_SIZE) &&
	       generation == load(&page->generation);
}

static void print_bytes(const char *name, const uint8_t *bytes)
{
	int i;

	printf("# %s ", name);
	for (i = 0; i < ID_SIZE; i++)
		printf("%02x", bytes[i]);
	printf("\n");
}

static void map(void)
{
	long size = sysconf(_SC_PAGESIZE);
	int node = open("/dev/sysgenid", O_RDONLY | O_CLOEXEC);
	int id_node = open("/dev/vmgenid", O_RDONLY | O_CLOEXEC);
	int offset = ioctl(id_node, VMGENID_GET_OFFSET);
	void *maps[] = {
		mmap(NULL, size, PROT_READ, MAP_SHARED, node, 0),
		mmap(NULL, size, PROT_READ, MAP_SHARED, id_node, 0),
		mmap(NULL, size, PROT_READ, MAP_SHARED, id_node, size),
	};

	if (maps[0] == MAP_FAILED || maps[1] == MAP_FAILED || maps[2] == MAP_FAILED ||
	    offset < 0)
		bail_out("the nodes cannot be mapped");
	page = maps[0];
	id = (uint8_t *)maps[1] + offset;
	answer = maps[2];
}

int main(void)
{
	uint8_t before[ID_SIZE], settled_id[ID_SIZE], random[ID_SIZE];
	long held = number_in(PLAY "held");
	bool settled = false;
	uint32_t flags = 0;
	int waited;

	map();
	play(PLAY "hold", "1");
	play(PLAY "begin", "1");
	for (waited = 0; number_in(PLAY "held") == held; waited++) {
		errno = ETIMEDOUT;
		if (waited == LIMIT_MS)
			bail_out("nobody is told of the fork");
		sleep_ms(1);
	}
	copy_id(before, id);
	printf("READY\n");
	fflush(stdout);

	/* Nothing is printed before the machine was resumed, as a clone. */
	for (waited = 0; waited < LIMIT_MS; waited++) {
		copy_id(settled_id, id);
		if (memcmp(before, settled_id, ID_SIZE))
			break;
		sleep_ms(1);
	}
	for (waited = 0; !settled && waited < 5000; waited++) {
		settled = is_settled(settled_id, &flags);
		if (!settled)
			sleep_ms(1);
	}
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		bail_out("getrandom");

	printf("TAP version 13\n1..2\n");
	print_bytes("vmgenid", settled_id);
	print_bytes("random", random);
	printf("%sok 1 settled\n", settled ? "" : "not ");
	printf("%sok 2 reseeded\n", flags & SYSGENID_FLAG_RESEEDED ? "" : "not ");
	play(PLAY "hold", "0");
	return !settled || !(flags & SYSGENID_FLAG_RESEEDED);
}
