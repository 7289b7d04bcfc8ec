/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the nodes have in common. Included after the harness.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#ifndef _SYSGENID_SELFTESTS_COMMON_H
#define _SYSGENID_SELFTESTS_COMMON_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

/* What nobody can map of a node of which there are @pages pages, each by itself, to read. */
static inline void expect_no_other_mapping(struct __test_metadata *_metadata, int fd,
					   long page, unsigned int pages)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page + 1, PROT_READ, flags[i], fd, 0));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_READ, flags[i], fd,
					   pages * page));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page + 1, PROT_READ, flags[i], fd,
					   (pages - 1) * page));
		EXPECT_EQ(EINVAL, errno);
	}
}

/* The line of /proc/self/maps about what is mapped at @addr, or "". */
static inline void line_of_mapping(const void *addr, char *line, size_t size)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char start[32];

	snprintf(start, sizeof(start), "%lx-", (unsigned long)addr);
	while (file && fgets(line, size, file)) {
		/* A 32-bit program's addresses have zeros before them. */
		if (!strncmp(line + strspn(line, "0"), start, strlen(start))) {
			fclose(file);
			return;
		}
	}
	if (file)
		fclose(file);
	line[0] = 0;
}

/* Whether the node's file system is mounted noexec: the VFS answers first there. */
static inline bool is_noexec(int fd)
{
	struct statvfs st;

	return !fstatvfs(fd, &st) && st.f_flag & ST_NOEXEC;
}

/* A mapping that asks to be executable is made, and is not; nor can it become so. */
static inline void expect_not_executable(struct __test_metadata *_metadata, int fd,
					 long page, off_t offset)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i, implied;
	char line[256];
	void *map;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		for (implied = 0; implied < 2; implied++) {
			int prot = PROT_READ | (implied ? 0 : PROT_EXEC);

			if (implied)
				ASSERT_LE(0, personality(READ_IMPLIES_EXEC));
			map = mmap(NULL, page, prot, flags[i], fd, offset);
			if (implied)
				ASSERT_LE(0, personality(0));
			if (!implied && is_noexec(fd)) {
				EXPECT_EQ(MAP_FAILED, map);
				EXPECT_EQ(EPERM, errno);
				continue;
			}
			ASSERT_NE(MAP_FAILED, map);
			line_of_mapping(map, line, sizeof(line));
			EXPECT_NE(NULL, strstr(line, flags[i] == MAP_SHARED ? " r--s " :
									     " r--p ")) {
				TH_LOG("%s", line);
			}
			EXPECT_EQ(-1, mprotect(map, page, PROT_READ | PROT_EXEC));
			EXPECT_EQ(EACCES, errno);
		}
	}
}

/*
 * What the link in map_files leads to is the node's own inode, which can be opened: so a
 * tool that checkpoints processes knows what it has before it.
 */
static inline void expect_mapping_of_the_node(struct __test_metadata *_metadata,
					      const char *node, void *map, long page)
{
	char path[64], line[256], target[256];
	struct stat of_map, of_node;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + page);
	ASSERT_EQ(0, stat(node, &of_node));
	ASSERT_EQ(0, stat(path, &of_map)) {
		TH_LOG("%s: %s", path, strerror(errno));
	}
	EXPECT_TRUE(S_ISCHR(of_map.st_mode));
	EXPECT_EQ(of_node.st_rdev, of_map.st_rdev);
	EXPECT_EQ(of_node.st_ino, of_map.st_ino);
	EXPECT_EQ(of_node.st_dev, of_map.st_dev);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	EXPECT_LE(0, fd);
	if (fd >= 0)
		close(fd);
	line_of_mapping(map, line, sizeof(line));
	EXPECT_NE(NULL, strstr(line, node)) {
		TH_LOG("%s", line);
	}
	length = readlink(path, target, sizeof(target) - 1);
	ASSERT_LT(0, length);
	target[length] = 0;
	EXPECT_EQ(0, strncmp(target, node, strlen(node))) {
		TH_LOG("%s", target);
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
