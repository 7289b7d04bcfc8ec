// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of /dev/sysgenid when memory is short.
 *
 * They need a kernel with CONFIG_FAULT_INJECTION_DEBUG_FS, CONFIG_FAILSLAB and
 * CONFIG_FAIL_PAGE_ALLOC, without CONFIG_FAULT_INJECTION_USERCOPY, and debugfs;
 * they fail where these are missing. Each makes one call again and again, and
 * lets another one of the allocations in it fail each time: the first, the
 * second, until there are no more of them.
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
#include <sys/wait.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"

#define NODE	"/dev/sysgenid"

/* More allocations than any of the calls makes. */
#define MANY	200U

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* The value of a line of @fd's fdinfo, or -1. */
static long fdinfo_value(int fd, const char *key)
{
	char path[64], line[256], *rest;
	size_t len = strlen(key);
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		rest = line + len;
		if (!strncmp(line, key, len) && rest[0] == ':')
			value = strtol(rest + 1, NULL, 10);
	}
	if (file)
		fclose(file);
	return value;
}

static long module_refcnt(void)
{
	FILE *file = fopen("/sys/module/sysgenid/refcnt", "re");
	long refcnt = -1;

	if (file && fscanf(file, "%ld", &refcnt) != 1)
		refcnt = -1;
	if (file)
		fclose(file);
	return refcnt;
}

#define generation()	__atomic_load_n(self->word, __ATOMIC_ACQUIRE)

FIXTURE(fault)
{
	int fd;			/* acked and untracked */
	int nth;		/* /proc/self/fail-nth */
	const uint32_t *word;
	long page;
};

FIXTURE_SETUP(fault)
{
	void *map;

	self->page = sysconf(_SC_PAGESIZE);
	self->fd = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	map = mmap(NULL, self->page, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->word = map;
	/* So that there is nothing left to be allocated at the first look. */
	ASSERT_EQ(generation(), generation());

	self->nth = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->nth) {
		TH_LOG("this kernel has no fault injection: %s", strerror(errno));
	}
	/* Allocations that may sleep are the ones that matter here. */
	ASSERT_TRUE(write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N"));
	ASSERT_TRUE(write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait",
			       "N"));
	ASSERT_TRUE(write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0"));
	/* A stack for each failure would bury what the kernel has to report. */
	ASSERT_TRUE(write_file("/sys/kernel/debug/failslab/verbose", "0"));
	ASSERT_TRUE(write_file("/sys/kernel/debug/fail_page_alloc/verbose", "0"));
}

FIXTURE_TEARDOWN(fault)
{
	/* The next one who runs is to find all as it was. */
	write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "Y");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "Y");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "1");
	write_file("/sys/kernel/debug/failslab/verbose", "2");
	write_file("/sys/kernel/debug/fail_page_alloc/verbose", "2");
}

/* From now on, the @n-th allocation of this thread fails. */
static bool arm(int nth, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(nth, text, len, 0) == len;
}

/* Ends that. Returns whether the allocation came, and failed. */
static bool disarm(int nth)
{
	char text[16] = "";
	bool came;

	came = pread(nth, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;
	arm(nth, 0);
	return came;
}

TEST_F(fault, open_nomem)
{
	unsigned int n, failed = 0;
	long refcnt = module_refcnt();
	int fd, err;

	for (n = 1; n < MANY; n++) {
		ASSERT_TRUE(arm(self->nth, n));
		fd = open(NODE, O_RDWR | O_CLOEXEC);
		err = errno;
		if (!disarm(self->nth))
			break;
		if (fd >= 0) {
			/* There are allocations that can be done without. */
			ASSERT_EQ(0, close(fd));
			continue;
		}
		failed++;
		EXPECT_EQ(ENOMEM, err) {
			TH_LOG("allocation %u", n);
		}
		EXPECT_EQ(refcnt, module_refcnt());
	}
	/* The last round was one without a failure. */
	ASSERT_LT(n, MANY);
	ASSERT_LE(0, fd);
	EXPECT_LT(0U, failed);
	TH_LOG("%u of %u allocations made it fail", failed, n - 1);
	EXPECT_EQ(0, fdinfo_value(fd, "sysgenid-outdated"));
	EXPECT_EQ(0, fdinfo_value(fd, "sysgenid-tracked"));
	EXPECT_EQ(fdinfo_value(self->fd, "sysgenid-watchers"),
		  fdinfo_value(fd, "sysgenid-watchers"));
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(refcnt, module_refcnt());
}

TEST_F(fault, mmap_nomem)
{
	unsigned int n, failed = 0;
	long refcnt = module_refcnt();
	void *map;
	int err;

	for (n = 1; n < MANY; n++) {
		ASSERT_TRUE(arm(self->nth, n));
		map = mmap(NULL, self->page, PROT_READ, MAP_SHARED, self->fd, 0);
		err = errno;
		if (!disarm(self->nth))
			break;
		if (map != MAP_FAILED) {
			ASSERT_EQ(0, munmap(map, self->page));
			continue;
		}
		failed++;
		EXPECT_EQ(ENOMEM, err) {
			TH_LOG("allocation %u", n);
		}
		EXPECT_EQ(refcnt, module_refcnt());
	}
	ASSERT_LT(n, MANY);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_LT(0U, failed);
	TH_LOG("%u of %u allocations made it fail", failed, n - 1);
	EXPECT_EQ(generation(), *(const uint32_t *)map);
	ASSERT_EQ(0, munmap(map, self->page));
	EXPECT_EQ(refcnt, module_refcnt());
}

TEST_F(fault, change_nomem)
{
	unsigned int n;
	uint32_t before;

	if (geteuid())
		SKIP(return, "only root may trigger a change");

	/* A change cannot fail: at most nobody is told by a uevent. */
	for (n = 1; n < MANY; n++) {
		before = generation();
		ASSERT_TRUE(arm(self->nth, n));
		EXPECT_EQ(0, ioctl(self->fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL));
		EXPECT_NE(before, generation());
		if (!disarm(self->nth))
			break;
		EXPECT_EQ(1, fdinfo_value(self->fd, "sysgenid-outdated"));
	}
	EXPECT_LT(n, MANY);
}

TEST_HARNESS_MAIN
