// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A program that keeps secrets, of which no two clones of its machine send the same:
 * the protocol of Documentation/userspace-api/vmgenid.rst, step by step, with nothing
 * but the C library and <linux/sysgenid.h>.
 *
 * It draws tokens in advance, as programs do with random bytes, nonces and keys. What is
 * in its pool when the machine is saved is in the pool of each clone.
 *
 *	secrets [NUMBER]
 *
 * sends so many tokens to standard output: a line "token HEX" for each, and then
 * "good"; or "void" if the machine was cloned while the token was on its way. Then it
 * does not count, and another one follows.
 *
 * It has one thread. One with more guards seen and pool by a lock.
 *
 * Build it by
 *	gcc -O2 -I../uapi secrets.c -o secrets
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

/* The protocol */

#define ID_WORDS	(16 / sizeof(long))

/* Relaxed, and of no more than the machine's word. */
#define LOAD(place)	__atomic_load_n(&(place), __ATOMIC_RELAXED)

/* What a look sees. There is no padding, so memcmp() compares two of them. */
struct seen {
	unsigned long id[ID_WORDS];	/* 0 where it cannot be seen */
	unsigned long epoch;		/* 0 in a program with 32 bits */
	unsigned int generation;
	unsigned int process;		/* never 0: one that is all 0 has seen nothing yet */
};

static const struct sysgenid_page *page;
static const struct vmgenid_answer_page *answer;	/* NULL where there is no ID */
static const unsigned long *id_words;			/* NULL: the ID is read from id_fd */
static int id_fd = -1;
static unsigned int *process, processes;
static unsigned int limit_ms = 5000;			/* of settle() */

static void *map(int fd, off_t offset)
{
	void *place = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, offset);

	return place == MAP_FAILED ? NULL : place;
}

/* Opens and maps everything. It returns -1, with errno, if there is no device. */
static int open_nodes(const char *generation_node, const char *id_node)
{
	long size = sysconf(_SC_PAGESIZE);
	const char *id_page;
	int offset;
	int fd = open(generation_node, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	page = map(fd, 0);
	close(fd);

	/* The kernel puts 0 there in a process that is forked. */
	process = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!page || process == MAP_FAILED || madvise(process, size, MADV_WIPEONFORK))
		return -1;

	/* No such device, or one that this process may not see: go on without. */
	id_fd = open(id_node, O_RDONLY | O_CLOEXEC);
	if (id_fd < 0)
		return 0;
	answer = map(id_fd, size);
	offset = ioctl(id_fd, VMGENID_GET_OFFSET);
	if (!answer || offset < 0)
		return -1;
	id_page = map(id_fd, 0);
	if (!id_page)	/* ENODEV: the page cannot be shown, and the ID can be read. */
		return errno == ENODEV ? 0 : -1;
	id_words = (const unsigned long *)(id_page + offset);
	close(id_fd);
	return 0;
}

static void look(struct seen *seen)
{
	unsigned int i;

	/* All that was made before is made when this looks. */
	atomic_signal_fence(memory_order_seq_cst);
	atomic_thread_fence(memory_order_acq_rel);
	memset(seen, 0, sizeof(*seen));
	if (!*process)
		*process = ++processes;
	seen->process = *process;
	for (i = 0; id_words && i < ID_WORDS; i++)
		seen->id[i] = LOAD(id_words[i]);
	if (answer && !id_words && pread(id_fd, seen->id, sizeof(seen->id), 0) < 0)
		memset(seen->id, 0, sizeof(seen->id));	/* Nobody answers that. */
	if (sizeof(long) == sizeof(page->epoch))
		seen->epoch = LOAD(page->epoch);
	atomic_thread_fence(memory_order_acquire);
	seen->generation = LOAD(page->generation);
	/* What is used or drawn after this is no older than what was seen. */
	atomic_thread_fence(memory_order_acquire);
}

static bool changed(const struct seen *since)
{
	struct seen now;

	look(&now);
	return memcmp(&now, since, sizeof(now));
}

/* Whether the driver has answered what was seen. Stores the flags of its answer. */
static bool is_answered(const struct seen *seen, unsigned int *flags)
{
	const unsigned long *id = (const unsigned long *)answer->id;
	struct seen answered = { .process = seen->process };
	unsigned int sequence = LOAD(answer->sequence);
	unsigned int i;

	atomic_thread_fence(memory_order_acquire);
	for (i = 0; i < ID_WORDS; i++)
		answered.id[i] = LOAD(id[i]);
	if (sizeof(long) == sizeof(answer->epoch))
		answered.epoch = LOAD(answer->epoch);
	answered.generation = LOAD(answer->generation);
	*flags = LOAD(answer->flags);
	atomic_thread_fence(memory_order_acquire);
	return sequence % 2 == 0 && sequence == LOAD(answer->sequence) &&
	       !memcmp(&answered, seen, sizeof(answered));
}

enum freshness {
	FRESH,		/* The kernel was reseeded for this machine. */
	NOT_SAID,	/* There is no ID; whoever clones the machine brings entropy. */
	NOT_FRESH,	/* There is one, and the kernel was not reseeded with it. */
};

/* Waits for the answer to what it stores in @seen: what is drawn then belongs to that. */
static enum freshness settle(struct seen *seen)
{
	unsigned int flags, nap, slept = 0;

	for (;;) {
		look(seen);
		if (!answer)
			return LOAD(page->flags) & SYSGENID_FLAG_RESEEDED ? FRESH : NOT_SAID;
		if (is_answered(seen, &flags))
			return flags & SYSGENID_FLAG_RESEEDED ? FRESH : NOT_FRESH;
		if (slept >= limit_ms)
			return NOT_FRESH;
		/* Short naps at first: mostly the answer is some tens of milliseconds away. */
		nap = slept < 400 ? 1 + slept / 8 : 50;
		clock_nanosleep(CLOCK_MONOTONIC, 0,
				&(struct timespec){ .tv_nsec = nap * 1000000L }, NULL);
		slept += nap;
	}
}

/* A program that follows it */

#define TOKEN_SIZE	16
#define POOL_SIZE	16

static struct seen seen;	/* Nothing yet: the first look is a change. */
static unsigned char pool[POOL_SIZE][TOKEN_SIZE];
static unsigned int left;

/* Begins anew: nothing that was drawn before is used any more. */
static int begin(void)
{
	explicit_bzero(pool, sizeof(pool));
	left = 0;
	switch (settle(&seen)) {
	case FRESH:
		return 0;
	case NOT_SAID:
		fprintf(stderr, "nobody says whether the kernel's random numbers are fresh\n");
		return 0;
	default:
		/*
		 * This one refuses. A program that has a hash function may go on: with the
		 * hash of what getrandom() returns, the ID, the clock, and numbers of the
		 * processor's own generator.
		 */
		fprintf(stderr, "this machine was cloned, and the kernel is not reseeded\n");
		memset(&seen, 0, sizeof(seen));
		errno = EAGAIN;
		return -1;
	}
}

static int send_line(int fd, const char *line)
{
	ssize_t length = strlen(line);

	return write(fd, line, length) == length ? 0 : -1;
}

/* Sends one token, and whether it counts; others before it may not. */
static int send_token(int fd)
{
	char hex[2 * TOKEN_SIZE + 1], line[sizeof(hex) + 8];
	bool is_void;
	int attempts, i, ret;

	for (attempts = 0; attempts < 16; attempts++) {
		/* Look before the use. */
		if (changed(&seen) && begin())
			return -1;
		if (!left) {
			if (getrandom(pool, sizeof(pool), 0) != sizeof(pool))
				return -1;
			left = POOL_SIZE;
		}
		left--;
		for (i = 0; i < TOKEN_SIZE; i++)
			sprintf(hex + 2 * i, "%02x", pool[left][i]);
		sprintf(line, "token %s\n", hex);
		explicit_bzero(pool[left], TOKEN_SIZE);

		/* Look when it is made, and when it is gone. There is no buffer here to flush. */
		if (changed(&seen))
			continue;
		ret = send_line(fd, line);
		explicit_bzero(hex, sizeof(hex));
		explicit_bzero(line, sizeof(line));
		is_void = changed(&seen);
		if (ret || send_line(fd, is_void ? "void\n" : "good\n"))
			return -1;
		if (!is_void)
			return 0;
	}
	errno = EAGAIN;	/* Somebody changes the generation all the time. */
	return -1;
}

int main(int argc, char **argv)
{
	int number = argc > 1 ? atoi(argv[1]) : 1;

	if (open_nodes("/dev/sysgenid", "/dev/vmgenid")) {
		perror("/dev/sysgenid");
		return EXIT_FAILURE;
	}
	while (number-- > 0) {
		if (send_token(STDOUT_FILENO)) {
			perror("cannot send a token");
			return EXIT_FAILURE;
		}
	}
	return EXIT_SUCCESS;
}
