/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the nodes have in common. Included after the harness.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#ifndef _SYSGENID_SELFTESTS_COMMON_H
#define _SYSGENID_SELFTESTS_COMMON_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A user that is nobody. */
#define NOBODY		65534

/* What a child says when it could not try what it was started for. */
#define CHILD_SKIP	255

/* What a child has exited with, or -1. */
static inline int child_status(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* How often the module is in use; -1 if there is no module, or it stays for ever. */
static inline long module_refcnt(void)
{
	FILE *file = fopen("/sys/module/sysgenid/refcnt", "re");
	long refcnt = -1;

	if (file) {
		if (fscanf(file, "%ld", &refcnt) != 1)
			refcnt = -1;
		fclose(file);
	}
	return refcnt;
}

/* Writes as a debugger would, who may even write to read-only code. */
static inline ssize_t force_write(const void *addr, const void *bytes, size_t size)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ssize_t ret;

	if (fd < 0)
		return 0;
	ret = pwrite(fd, bytes, size, (uintptr_t)addr);
	close(fd);
	return ret;
}

/* What nobody can map of a node of which there is one page, to read. */
static inline void expect_no_other_mapping(struct __test_metadata *_metadata, int fd,
					   long page)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page + 1, PROT_READ, flags[i], fd, 0));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_READ, flags[i], fd, page));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_READ | PROT_EXEC, flags[i],
					   fd, 0));
		EXPECT_EQ(EPERM, errno);
	}
}

/* Nor can a mapping become anything but less than it is. */
static inline void expect_read_only(struct __test_metadata *_metadata, void *map,
				    long page)
{
	uint8_t other = ~*(uint8_t *)map;

	EXPECT_EQ(-1, mprotect(map, page, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(map, page, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, force_write(map, &other, sizeof(other)));
	EXPECT_EQ((uint8_t)~other, *(uint8_t *)map);
	EXPECT_EQ(MAP_FAILED, mremap(map, page, 2 * page, 0));
	EXPECT_EQ(MAP_FAILED, mremap(map, page, 2 * page, MREMAP_MAYMOVE));

	/* Less is allowed, and so is the way back to what it was. */
	EXPECT_EQ(0, mprotect(map, page, PROT_NONE));
	EXPECT_EQ(0, mprotect(map, page, PROT_READ));
}

#endif
