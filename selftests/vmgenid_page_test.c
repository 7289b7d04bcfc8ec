// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of /dev/vmgenid, call by call: the page in which the hypervisor keeps the
 * VM generation ID. Nothing here changes the ID; sysgenid-clone-test sees it new.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
/* Addresses, which are offsets in /proc/self/mem, need it in 32-bit programs. */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"
#include "common.h"

#define NODE		"/dev/vmgenid"
#define MISC_MAJOR	10

/* The number of bytes of an ID. */
#define ID_SIZE		16

FIXTURE(page)
{
	int fd;
	long size;
	long offset;		/* of the ID */
	const uint8_t *map;
	const struct vmgenid_answer_page *answer;
};

FIXTURE_SETUP(page)
{
	void *map;

	if (geteuid())
		SKIP(return, "only root may open " NODE);

	self->size = sysconf(_SC_PAGESIZE);
	self->fd = open(NODE, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->fd) {
		TH_LOG("cannot open " NODE ": %s", strerror(errno));
	}
	self->offset = ioctl(self->fd, VMGENID_GET_OFFSET);
	ASSERT_LE(0, self->offset);
	ASSERT_GE(self->size - ID_SIZE, self->offset);
	map = mmap(NULL, self->size, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->map = map;
	map = mmap(NULL, self->size, PROT_READ, MAP_SHARED, self->fd, self->size);
	ASSERT_NE(MAP_FAILED, map);
	self->answer = map;
}

FIXTURE_TEARDOWN(page)
{
	/* The mapping and the descriptor go with the process. */
}

/* The node, and who may open it. */

TEST_F(page, node_mode)
{
	struct stat st;

	ASSERT_EQ(0, stat(NODE, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0400U, st.st_mode & 07777);
	EXPECT_EQ(0U, st.st_uid);
	EXPECT_EQ((unsigned int)MISC_MAJOR, major(st.st_rdev));
}

TEST_F(page, open_for_writing)
{
	static const int modes[] = {
		O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDWR | O_NONBLOCK,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_EQ(-1, open(NODE, modes[i] | O_CLOEXEC)) {
			TH_LOG("mode %#x", modes[i]);
		}
		EXPECT_EQ(EACCES, errno);
	}
}

TEST_F(page, open_by_nobody)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		_exit(open(NODE, O_RDONLY | O_CLOEXEC) < 0 ? errno : 0);
	}
	EXPECT_EQ(EACCES, child_status(pid));
}

/* read */

TEST_F(page, read_is_the_id)
{
	uint8_t buf[2 * ID_SIZE];
	unsigned int i;

	for (i = 0; i < 3; i++) {
		memset(buf, 0xa5, sizeof(buf));
		ASSERT_EQ(ID_SIZE, pread(self->fd, buf, i ? sizeof(buf) : ID_SIZE, 0));
		EXPECT_EQ(0, memcmp(buf, self->map + self->offset, ID_SIZE));
		/* No more than that is written. */
		EXPECT_EQ(0xa5, buf[ID_SIZE]);
	}
	/* Whoever reads to the end comes to one. */
	ASSERT_EQ(ID_SIZE, read(self->fd, buf, sizeof(buf)));
	EXPECT_EQ(0, memcmp(buf, self->map + self->offset, ID_SIZE));
	ASSERT_EQ(0, read(self->fd, buf, sizeof(buf)));
	ASSERT_EQ(0, read(self->fd, buf, 1));
}

TEST_F(page, read_sizes)
{
	uint8_t buf[ID_SIZE];
	size_t size;

	for (size = 0; size < ID_SIZE; size++) {
		EXPECT_EQ(-1, read(self->fd, buf, size)) {
			TH_LOG("size %zu", size);
		}
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F(page, read_at_a_position)
{
	static const off_t beyond[] = { ID_SIZE, ID_SIZE + 1, 4096, INT64_MAX / 2 };
	uint8_t buf[ID_SIZE];
	unsigned int i;

	/* However often, and wherever the file's own position is. */
	for (i = 0; i < 2; i++) {
		memset(buf, 0, sizeof(buf));
		ASSERT_EQ(ID_SIZE, pread(self->fd, buf, sizeof(buf), 0));
		EXPECT_EQ(0, memcmp(buf, self->map + self->offset, ID_SIZE));
		ASSERT_EQ(i ? 0 : ID_SIZE, read(self->fd, buf, sizeof(buf)));
	}
	for (i = 1; i < ID_SIZE; i++) {
		EXPECT_EQ(-1, pread(self->fd, buf, sizeof(buf), i)) {
			TH_LOG("position %u", i);
		}
		EXPECT_EQ(EINVAL, errno);
	}
	for (i = 0; i < ARRAY_SIZE(beyond); i++) {
		EXPECT_EQ(0, pread(self->fd, buf, sizeof(buf), beyond[i]));
		EXPECT_EQ(0, pread(self->fd, buf, 1, beyond[i]));
	}
}

TEST_F(page, read_in_pieces)
{
	uint8_t buf[ID_SIZE];
	struct iovec iov[] = { { buf, 5 }, { buf + 5, 0 }, { buf + 5, 11 } };

	ASSERT_EQ(ID_SIZE, readv(self->fd, iov, ARRAY_SIZE(iov)));
	EXPECT_EQ(0, memcmp(buf, self->map + self->offset, ID_SIZE));
	/* Nothing that could make it wait. */
	ASSERT_EQ(ID_SIZE, preadv2(self->fd, iov, ARRAY_SIZE(iov), 0, RWF_NOWAIT));
}

TEST_F(page, read_bad_buffer)
{
	char *bad = mmap(NULL, self->size, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)bad);
	EXPECT_EQ(-1, read(self->fd, bad, ID_SIZE));
	EXPECT_EQ(EFAULT, errno);
}

/* mmap */

TEST_F(page, mmap_forms)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	const uint8_t *map;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		map = mmap(NULL, self->size, PROT_READ, flags[i], self->fd, 0);
		ASSERT_NE(MAP_FAILED, (const void *)map);
		EXPECT_EQ(0, memcmp(map, self->map, self->size));
		/* Less than a page is a page. */
		map = mmap(NULL, 1, PROT_READ, flags[i], self->fd, 0);
		ASSERT_NE(MAP_FAILED, (const void *)map);
		EXPECT_EQ(0, memcmp(map, self->map, self->size));
	}
}

TEST_F(page, mmap_other_forms)
{
	expect_no_other_mapping(_metadata, self->fd, self->size, 2);
}

TEST_F(page, mmap_executable)
{
	expect_not_executable(_metadata, self->fd, self->size, 0);
	expect_not_executable(_metadata, self->fd, self->size, self->size);
}

TEST_F(page, mmap_of_the_node)
{
	expect_mapping_of_the_node(_metadata, NODE, (void *)self->map, self->size);
	expect_mapping_of_the_node(_metadata, NODE, (void *)self->answer, self->size);
}

TEST_F(page, mmap_writable)
{
	int prot = PROT_READ | PROT_WRITE;

	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->size, prot, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(EPERM, errno);
	/* There is no descriptor that could be asked for more. */
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->size, prot, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(page, mmap_stays_read_only)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	uint8_t before[ID_SIZE], id[ID_SIZE];
	unsigned int i;

	memcpy(before, self->map + self->offset, ID_SIZE);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		uint8_t *map = mmap(NULL, self->size, PROT_READ, flags[i], self->fd, 0);

		ASSERT_NE(MAP_FAILED, (void *)map);
		expect_read_only(_metadata, map, self->size);
		expect_read_only(_metadata,
				 mmap(NULL, self->size, PROT_READ, flags[i], self->fd,
				      self->size), self->size);
		memset(id, 0xa5, ID_SIZE);
		EXPECT_EQ(-1, force_write(map + self->offset, id, ID_SIZE));
		EXPECT_EQ(0, memcmp(map + self->offset, before, ID_SIZE));
	}
	EXPECT_EQ(0, memcmp(self->map + self->offset, before, ID_SIZE));
}

TEST_F(page, not_written_by_a_debugger)
{
	uint8_t before[ID_SIZE];
	int status;
	pid_t pid;
	long word;

	memcpy(before, self->map + self->offset, ID_SIZE);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(CHILD_SKIP);
		raise(SIGSTOP);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	memcpy(&word, before, sizeof(word));
	EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, pid, self->map + self->offset, ~word));
	EXPECT_EQ(0, memcmp(self->map + self->offset, before, ID_SIZE));
	ASSERT_EQ(0, ptrace(PTRACE_CONT, pid, NULL, NULL));
	EXPECT_EQ(0, child_status(pid));
}

TEST_F(page, mmap_survives_madvise)
{
	uint8_t *map = mmap(NULL, self->size, PROT_READ, MAP_SHARED, self->fd, 0);

	/* Refused or not: the page must not be lost. */
	ASSERT_NE(MAP_FAILED, (void *)map);
	madvise(map, self->size, MADV_DONTNEED);
	EXPECT_EQ(0, memcmp(map, self->map, self->size));
}

TEST_F(page, mmap_outlives_close_and_fork)
{
	uint8_t id[ID_SIZE];
	pid_t pid;

	ASSERT_EQ(ID_SIZE, read(self->fd, id, sizeof(id)));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(0, memcmp(self->map + self->offset, id, ID_SIZE));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(memcmp(self->map + self->offset, id, ID_SIZE) ? 1 : 0);
	EXPECT_EQ(0, child_status(pid));
}

TEST_F(page, mmap_holds_the_module)
{
	long base;

	/* Leave one mapping as all that this process holds. */
	ASSERT_EQ(0, close(self->fd));
	base = module_refcnt();
	if (base < 0)
		SKIP(return, "built into the kernel, or modules cannot be unloaded");
	ASSERT_EQ(0, munmap((void *)self->map, self->size));
	EXPECT_GT(base, module_refcnt());
	base = module_refcnt();
	ASSERT_EQ(0, munmap((void *)self->answer, self->size));
	EXPECT_GT(base, module_refcnt());
}

/* The answer */

TEST_F(page, answer_is_of_the_generation)
{
	const struct sysgenid_page *page;
	const uint8_t *bytes = (const void *)self->answer;
	uint32_t sequence;
	long i;
	int fd;

	fd = open("/dev/sysgenid", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	page = mmap(NULL, self->size, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (const void *)page);
	/* Nothing has changed the ID since the driver was loaded. */
	for (i = 0; i < 3; i++) {
		sequence = self->answer->sequence;
		EXPECT_EQ(0U, sequence % 2);
		EXPECT_EQ(0, memcmp(self->answer->id, self->map + self->offset, ID_SIZE));
		EXPECT_EQ(page->generation, self->answer->generation);
		EXPECT_EQ(page->epoch, self->answer->epoch);
		EXPECT_EQ(SYSGENID_FLAG_RESEEDED, self->answer->flags);
		EXPECT_EQ(0U, self->answer->reserved);
		/* It is written at every change, also one that is not the hypervisor's. */
		ASSERT_EQ(0, ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL));
		EXPECT_NE(sequence, self->answer->sequence);
	}
	for (i = sizeof(*self->answer); i < self->size; i++)
		ASSERT_EQ(0, bytes[i]);
}

/* What is in the page, and who is told of it. */

TEST_F(page, nothing_but_the_id)
{
	uint8_t zero[ID_SIZE] = {};
	long i;

	/* Of QEMU's page. The firmware of others may keep more in it. */
	for (i = 0; i < self->size; i++) {
		if (i < self->offset || i >= self->offset + ID_SIZE)
			ASSERT_EQ(0, self->map[i]) {
				TH_LOG("byte %ld", i);
			}
	}
	EXPECT_NE(0, memcmp(self->map + self->offset, zero, ID_SIZE));
}

TEST_F(page, ioctl_unknown)
{
	static const unsigned long cmds[] = {
		_IO(0xE4, 0), _IO(0xE4, 1), _IO(0xE4, 2), _IO(0xE4, 3),
		_IO(0xE4, 0x11), _IO(0xE5, 0x10), _IOR(0xE4, 0x10, int), 0,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], 0UL)) {
			TH_LOG("ioctl %#lx", cmds[i]);
		}
		EXPECT_EQ(ENOTTY, errno);
	}
	/* Whatever the argument is. */
	EXPECT_EQ(self->offset, ioctl(self->fd, VMGENID_GET_OFFSET, ~0UL));
}

/* The lines of the driver in fdinfo, one after the other. */
static bool read_fdinfo(int fd, char *lines, size_t size)
{
	char path[64], line[256];
	FILE *file;

	lines[0] = 0;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "vmgenid-", 8))
			strncat(lines, line, size - strlen(lines) - 1);
	}
	fclose(file);
	return true;
}

TEST_F(page, fdinfo)
{
	char lines[512], expected[256], id[2 * ID_SIZE + 1];
	unsigned int i;

	for (i = 0; i < ID_SIZE; i++)
		snprintf(id + 2 * i, 3, "%02x", self->map[self->offset + i]);
	snprintf(expected, sizeof(expected),
		 "vmgenid-offset:\t%ld\nvmgenid-id:\t%s\nvmgenid-answered:\t%s\n",
		 self->offset, id, id);
	ASSERT_TRUE(read_fdinfo(self->fd, lines, sizeof(lines)));
	EXPECT_STREQ(expected, lines);
}

/* It is who has opened the file who counts, and not who looks at its description. */
TEST_F(page, fdinfo_without_a_capability)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	uint64_t others = ((1ULL << (CAP_LAST_CAP + 1)) - 1) & ~(1ULL << CAP_SYS_ADMIN);
	struct __user_cap_data_struct data[2] = {
		{ .effective = others, .permitted = others },
		{ .effective = others >> 32, .permitted = others >> 32 },
	};
	char lines[512], expected[64];
	pid_t pid = fork();
	int fd;

	ASSERT_LE(0, pid);
	if (!pid) {
		snprintf(expected, sizeof(expected), "vmgenid-offset:\t%ld\n",
			 self->offset);
		if (syscall(__NR_capset, &header, data) ||
		    !read_fdinfo(self->fd, lines, sizeof(lines)))
			_exit(CHILD_SKIP);
		if (!strstr(lines, "vmgenid-id:"))
			_exit(1);
		fd = open(NODE, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || !read_fdinfo(fd, lines, sizeof(lines)))
			_exit(CHILD_SKIP);
		_exit(strcmp(expected, lines) ? 2 : 0);
	}
	EXPECT_EQ(0, child_status(pid));
}

TEST_HARNESS_MAIN
