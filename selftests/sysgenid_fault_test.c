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
 * SYSGENID_MODULE in the environment is the path of sysgenid.ko; the tests of
 * the fixture reload load and unload it, and want that nobody else uses it.
 *
 * These also want a VMGenID device whose ADDR is no method, acpi/reserved.asl, and
 * no other one. The ADDR of QEMU's own stores a package in a local variable, and
 * Linux 7.3's ACPICA follows a null pointer when there is no memory for that:
 * acpi_ut_copy_ipackage_to_ipackage() fails, and acpi_ut_copy_iobject_to_iobject()
 * drops the package with no elements.
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
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"
#include "common.h"

#define NODE	"/dev/sysgenid"
#define ID_NODE	"/dev/vmgenid"
#define MODULE	"/sys/module/sysgenid"

/* More allocations than any of the calls makes. */
#define MANY	5000U

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

static int begin_injection(struct __test_metadata *_metadata)
{
	int nth = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, nth) {
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
	return nth;
}

static void end_injection(void)
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

/* A call in which allocations are to fail. */
struct call {
	/* Makes it. Returns 0 or an error number. */
	int (*make)(void *data);
	/* Takes back what it did. */
	int (*undo)(void *data);
	/* Looks whether there is anything left of a call that failed. */
	void (*check)(struct __test_metadata *_metadata, void *data);
	/* The error number, besides ENOMEM, that it may return. */
	int other;
};

/* Returns after one call without a failure, which is not taken back. */
static void fail_each(struct __test_metadata *_metadata, int nth,
		      const struct call *call, void *data)
{
	unsigned int n, failed = 0;
	bool came;
	int err;

	for (n = 1; n < MANY; n++) {
		ASSERT_TRUE(arm(nth, n));
		err = call->make(data);
		came = disarm(nth);
		if (!came)
			break;
		if (!err) {
			/* There are allocations that can be done without. */
			ASSERT_EQ(0, call->undo(data)) {
				TH_LOG("allocation %u", n);
			}
			continue;
		}
		failed++;
		EXPECT_TRUE(err == ENOMEM || err == call->other) {
			TH_LOG("allocation %u: %s", n, strerror(err));
		}
		call->check(_metadata, data);
	}
	ASSERT_LT(n, MANY);
	ASSERT_EQ(0, err) {
		TH_LOG("it fails without a failure: %s", strerror(err));
	}
	EXPECT_LT(0U, failed);
	TH_LOG("%u of %u allocations made it fail", failed, n - 1);
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

	self->nth = begin_injection(_metadata);
}

FIXTURE_TEARDOWN(fault)
{
	end_injection();
}

struct opened {
	long refcnt;
	const char *node;
	int flags;
	int fd;
};

static int make_open(void *data)
{
	struct opened *opened = data;

	opened->fd = open(opened->node, opened->flags | O_CLOEXEC);
	return opened->fd < 0 ? errno : 0;
}

static int undo_open(void *data)
{
	struct opened *opened = data;

	return close(opened->fd);
}

static void check_open(struct __test_metadata *_metadata, void *data)
{
	struct opened *opened = data;

	EXPECT_EQ(opened->refcnt, module_refcnt());
}

TEST_F(fault, open_nomem)
{
	static const struct call call = { make_open, undo_open, check_open, 0 };
	struct opened opened = {
		.refcnt = module_refcnt(),
		.node = NODE,
		.flags = O_RDWR,
	};

	fail_each(_metadata, self->nth, &call, &opened);
	EXPECT_EQ(0, fdinfo_value(opened.fd, "sysgenid-outdated"));
	EXPECT_EQ(0, fdinfo_value(opened.fd, "sysgenid-tracked"));
	EXPECT_EQ(fdinfo_value(self->fd, "sysgenid-watchers"),
		  fdinfo_value(opened.fd, "sysgenid-watchers"));
	ASSERT_EQ(0, undo_open(&opened));
	check_open(_metadata, &opened);
}

struct mapped {
	long refcnt;
	int fd;
	long size;
	off_t offset;
	void *map;
};

static int make_map(void *data)
{
	struct mapped *mapped = data;

	mapped->map = mmap(NULL, mapped->size, PROT_READ, MAP_SHARED, mapped->fd,
			   mapped->offset);
	return mapped->map == MAP_FAILED ? errno : 0;
}

static int undo_map(void *data)
{
	struct mapped *mapped = data;

	return munmap(mapped->map, mapped->size);
}

static void check_map(struct __test_metadata *_metadata, void *data)
{
	struct mapped *mapped = data;

	EXPECT_EQ(mapped->refcnt, module_refcnt());
}

TEST_F(fault, mmap_nomem)
{
	static const struct call call = { make_map, undo_map, check_map, 0 };
	struct mapped mapped = {
		.refcnt = module_refcnt(),
		.fd = self->fd,
		.size = self->page,
	};

	fail_each(_metadata, self->nth, &call, &mapped);
	EXPECT_EQ(generation(), *(const uint32_t *)mapped.map);
	ASSERT_EQ(0, undo_map(&mapped));
	check_map(_metadata, &mapped);
}

TEST_F(fault, id_open_and_mmap_nomem)
{
	static const struct call opening = { make_open, undo_open, check_open, 0 };
	/* That is what remap_pfn_range() makes of memory that was short for it. */
	static const struct call remapping = { make_map, undo_map, check_map, EINVAL };
	static const struct call mapping = { make_map, undo_map, check_map, 0 };
	struct opened opened = {
		.refcnt = module_refcnt(),
		.node = ID_NODE,
		.flags = O_RDONLY,
	};
	struct mapped mapped = { .size = self->page };
	unsigned char id[16];
	int offset;

	fail_each(_metadata, self->nth, &opening, &opened);
	mapped.fd = opened.fd;
	mapped.refcnt = module_refcnt();
	fail_each(_metadata, self->nth, &remapping, &mapped);
	offset = ioctl(opened.fd, VMGENID_GET_OFFSET);
	ASSERT_LE(0, offset);
	ASSERT_EQ((ssize_t)sizeof(id), read(opened.fd, id, sizeof(id)));
	EXPECT_EQ(0, memcmp(id, (char *)mapped.map + offset, sizeof(id)));
	ASSERT_EQ(0, undo_map(&mapped));
	check_map(_metadata, &mapped);
	/* The answer, likewise. */
	mapped.offset = self->page;
	fail_each(_metadata, self->nth, &mapping, &mapped);
	EXPECT_EQ(generation(),
		  ((const struct vmgenid_answer_page *)mapped.map)->generation);
	ASSERT_EQ(0, undo_map(&mapped));
	check_map(_metadata, &mapped);
	ASSERT_EQ(0, undo_open(&opened));
	check_open(_metadata, &opened);
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

#define DEVICES	"/sys/bus/platform/devices"

/* The device that must not be there, and the one that is probed. */
#define METHOD	"QEMUVGID:00"
#define DEVICE	"VMGENCTR:00"

FIXTURE(reload)
{
	int file;		/* the module's */
	int nth;		/* /proc/self/fail-nth */
};

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

static int make_load(void *data)
{
	int *file = data;

	return syscall(SYS_finit_module, *file, "", 0) ? errno : 0;
}

static int undo_load(void *data)
{
	(void)data;
	return syscall(SYS_delete_module, "sysgenid", O_NONBLOCK);
}

static void check_load(struct __test_metadata *_metadata, void *data)
{
	(void)data;
	EXPECT_FALSE(exists(MODULE));
	EXPECT_FALSE(exists(NODE));
	EXPECT_FALSE(exists(ID_NODE));
	EXPECT_FALSE(exists("/sys/class/misc/sysgenid"));
}

FIXTURE_SETUP(reload)
{
	const char *path = getenv("SYSGENID_MODULE");

	self->file = -1;
	self->nth = begin_injection(_metadata);
	ASSERT_TRUE(exists(DEVICES "/" DEVICE)) {
		TH_LOG("there is no " DEVICE ": this wants the table reserved.asl");
	}
	ASSERT_FALSE(exists(DEVICES "/" METHOD)) {
		TH_LOG("there is " METHOD ": the kernel would crash, see above");
	}
	/* A driver that is built in is probed, but not loaded. */
	if (exists(MODULE) && !exists(MODULE "/initstate"))
		return;
	ASSERT_NE(NULL, path) {
		TH_LOG("SYSGENID_MODULE is not set");
	}
	self->file = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->file);
	if (!exists(MODULE))
		ASSERT_EQ(0, make_load(&self->file));
}

FIXTURE_TEARDOWN(reload)
{
	end_injection();
	if (self->file >= 0 && !exists(MODULE))
		make_load(&self->file);
}

TEST_F_TIMEOUT(reload, load_nomem, 600)
{
	static const struct call call = { make_load, undo_load, check_load, 0 };

	if (self->file < 0)
		SKIP(return, "the driver is built in");

	ASSERT_EQ(0, undo_load(NULL));
	check_load(_metadata, NULL);
	fail_each(_metadata, self->nth, &call, &self->file);
	EXPECT_TRUE(exists(NODE));
	EXPECT_TRUE(exists(ID_NODE));
	ASSERT_EQ(0, undo_load(NULL));
	check_load(_metadata, NULL);
}

TEST_HARNESS_MAIN
