/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What several of the programs here need.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#define NODE	"/dev/sysgenid"
#define TRACING	"/sys/kernel/tracing"

static inline _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline void expect(bool holds, const char *what)
{
	if (!holds)
		die(what);
}

/* In nanoseconds; in a guest that counts instructions, two for each. */
static inline int64_t clock_ns(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static inline int64_t now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static inline void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/*
 * A kernel that has just booted tests its ciphers for some seconds, which would count as
 * ours: waits, for a minute at most, until a program has the processor for itself.
 */
static inline void wait_for_processor(void)
{
	int quiet = 0;

	for (int i = 0; i < 600; i++) {
		int64_t own = clock_ns(CLOCK_PROCESS_CPUTIME_ID), all = now(), spent;

		do
			spent = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
		while (spent < 20000000);
		all = now() - all;
		quiet = all < spent * 1.02 ? quiet + 1 : 0;
		if (quiet == 5)
			return;
		if (!quiet)
			pause_ms(100);
	}
	errno = ETIMEDOUT;
	die("this machine does not come to rest");
}

/* @flags: of open(), such as O_TRUNC, which empties a list. */
static inline void write_text(const char *path, const char *text, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

	expect(fd >= 0 && write(fd, text, strlen(text)) >= 0, path);
	close(fd);
}

static inline void mount_tracing(void)
{
	expect(!mount("tracefs", TRACING, "tracefs", 0, NULL) || errno == EBUSY, TRACING);
}

/* Has the kernel note when ACPI interrupts it. */
static inline void trace_interrupts(void)
{
	mount_tracing();
	write_text(TRACING "/trace_clock", "mono", O_TRUNC);
	write_text(TRACING "/events/irq/irq_handler_entry/filter", "name == \"acpi\"", O_TRUNC);
	write_text(TRACING "/events/irq/irq_handler_entry/enable", "1", O_TRUNC);
	write_text(TRACING "/tracing_on", "1", O_TRUNC);
}

/*
 * When it was interrupted first, which is the first thing that happens after the resume of
 * a clone: the time of the line "... 12.345678: irq_handler_entry: ..." of the trace, in
 * nanoseconds. 0 if it was not.
 */
static inline int64_t interrupted_at(void)
{
	FILE *file = fopen(TRACING "/trace", "re");
	char line[512];
	int64_t time = 0;

	expect(file, TRACING "/trace");
	while (!time && fgets(line, sizeof(line), file)) {
		char *end = strstr(line, ": irq_handler_entry:");

		if (!end)
			continue;
		*end = 0;
		end = strrchr(line, ' ');
		if (end)
			time = strtod(end, NULL) * 1e9;
	}
	fclose(file);
	return time;
}

/* Runs @role in a process of its own, which ends with this one. */
static inline pid_t start(void (*role)(long), long argument)
{
	pid_t pid = fork();

	expect(pid >= 0, "fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	role(argument);
	exit(1);
}

/* What processes share: zeroes. */
static inline void *share(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);

	expect(memory != MAP_FAILED, "memory");
	return memory;
}

static inline int open_node(int flags)
{
	int fd = open(NODE, flags | O_CLOEXEC);

	expect(fd >= 0, NODE);
	return fd;
}

static inline const struct sysgenid_page *map_node(void)
{
	int fd = open_node(O_RDONLY);
	void *page = mmap(NULL, sizeof(struct sysgenid_page), PROT_READ, MAP_SHARED, fd, 0);

	expect(page != MAP_FAILED, "mmap");
	close(fd);
	return page;
}

static inline void trigger(int fd)
{
	expect(!ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0), "SYSGENID_TRIGGER_GEN_UPDATE");
}

/* Reads the new generation, and confirms it. */
static inline void ack(int fd)
{
	uint32_t generation;

	expect(read(fd, &generation, 4) == 4, "read");
	expect(write(fd, &generation, 4) == 4, "write");
}

/* More descriptors than are usual, which root may have. */
static inline void allow_descriptors(rlim_t number)
{
	struct rlimit limit = { number, number };

	expect(!setrlimit(RLIMIT_NOFILE, &limit), "RLIMIT_NOFILE");
}

static inline int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts them besides. */
static inline double least(double *values, size_t number)
{
	qsort(values, number, sizeof(*values), compare);
	return values[0];
}

#endif
