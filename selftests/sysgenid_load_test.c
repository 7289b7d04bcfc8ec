// SPDX-License-Identifier: GPL-2.0
/*
 * Loads and unloads the module again and again, while other processes use
 * /dev/sysgenid whenever it is there.
 *
 * The module's file is /sysgenid.ko, or what $SYSGENID_MODULE names. The module is
 * loaded when this ends, whatever it was at the start. Wants to be root.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"

#define NODE	"/dev/sysgenid"
#define MODULE	"/sys/module/sysgenid"

#define ROUNDS	500
#define USERS	4

/*
 * A round takes milliseconds; a debug kernel that is emulated takes 130 of them, and
 * on a machine that is busy with others half a second and more.
 */
#define LIMIT_S	1800

/* What the users tell the one who loads and unloads, and the other way round. */
struct shared {
	bool stop;
	bool failed;
	unsigned int opened;	/* times that the node was found and opened */
	unsigned int changed;	/* changes of the generation */
};

static int load(int file)
{
	return syscall(SYS_finit_module, file, "", 0);
}

/* Does not wait: EWOULDBLOCK if the module is in use. */
static int unload(void)
{
	return syscall(SYS_delete_module, "sysgenid", O_NONBLOCK);
}

static bool is_loaded(void)
{
	return !access(MODULE, F_OK);
}

static void pause_us(long us)
{
	struct timespec time = {
		.tv_sec = us / 1000000,
		.tv_nsec = us % 1000000 * 1000,
	};

	nanosleep(&time, NULL);
}

static long now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

FIXTURE(load)
{
	int file;
	long page;
	struct shared *shared;
};

FIXTURE_SETUP(load)
{
	const char *path = getenv("SYSGENID_MODULE");

	self->page = sysconf(_SC_PAGESIZE);
	self->file = open(path ? path : "/sysgenid.ko", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->file) {
		TH_LOG("the module's file cannot be opened: %s", strerror(errno));
	}
	self->shared = mmap(NULL, self->page, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	if (is_loaded())
		ASSERT_EQ(0, unload());
}

FIXTURE_TEARDOWN(load)
{
	if (!is_loaded())
		ASSERT_EQ(0, load(self->file));
	close(self->file);
	munmap(self->shared, self->page);
}

TEST_F(load, not_unloaded_while_in_use)
{
	uint32_t *word;
	int fd;

	ASSERT_EQ(0, load(self->file));
	fd = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, unload());
	EXPECT_EQ(EWOULDBLOCK, errno);

	word = mmap(NULL, self->page, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)word);
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(-1, unload());
	EXPECT_EQ(EWOULDBLOCK, errno);
	EXPECT_EQ(0U, __atomic_load_n(word, __ATOMIC_ACQUIRE));

	ASSERT_EQ(0, munmap(word, self->page));
	EXPECT_EQ(0, unload());
	EXPECT_EQ(-1, access(NODE, F_OK));
	EXPECT_EQ(ENOENT, errno);
}

/* Does with a watcher what there is to do. Returns the line that failed, or 0. */
static int use(int fd, long page, struct shared *shared, bool triggers)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };
	uint32_t generation;
	uint32_t *word;

	word = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
	if (word == MAP_FAILED)
		return __LINE__;
	if (ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1UL))
		return __LINE__;
	if (triggers) {
		if (ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL))
			return __LINE__;
		if (poll(&polled, 1, 0) != 1 || !(polled.revents & POLLIN))
			return __LINE__;
		if (read(fd, &generation, sizeof(generation)) != sizeof(generation))
			return __LINE__;
		if (!generation || !__atomic_load_n(word, __ATOMIC_ACQUIRE))
			return __LINE__;
		__atomic_add_fetch(&shared->changed, 1, __ATOMIC_RELAXED);
	}
	/* Somebody else may have changed it since. */
	generation = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	if (write(fd, &generation, sizeof(generation)) < 0 && errno != EINVAL)
		return __LINE__;
	if (munmap(word, page))
		return __LINE__;
	return 0;
}

/* Uses the node whenever it is there, until it is told to stop. */
static int be_a_user(struct shared *shared, long page, int number)
{
	int fd, line;
	long start;

	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		start = now_us();
		fd = open(NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0) {
			/* Not there, or there no more. */
			if (errno != ENOENT && errno != ENODEV && errno != ENXIO) {
				printf("# open: %s\n", strerror(errno));
				return 1;
			}
			/* Who loads it is to get on. */
			pause_us(500);
			continue;
		}
		__atomic_add_fetch(&shared->opened, 1, __ATOMIC_RELAXED);
		line = use(fd, page, shared, number % 2);
		if (line) {
			printf("# line %d: %s\n", line, strerror(errno));
			return 1;
		}
		close(fd);
		/*
		 * Nobody is to have it at some times, however slow this system is: that is
		 * when it can be unloaded.
		 */
		pause_us((now_us() - start) * (USERS + number));
	}
	return 0;
}

TEST_F_TIMEOUT(load, five_hundred_rounds, LIMIT_S)
{
	unsigned int round, opened, refused = 0;
	pid_t users[USERS];
	int i, fd, status;

	for (i = 0; i < USERS; i++) {
		users[i] = fork();
		ASSERT_LE(0, users[i]);
		if (!users[i]) {
			/* The harness kills only this test, if it takes too long. */
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			status = be_a_user(self->shared, self->page, i);
			fflush(stdout);
			if (status)
				__atomic_store_n(&self->shared->failed, true,
						 __ATOMIC_RELAXED);
			_exit(status);
		}
	}

	for (round = 0; round < ROUNDS; round++) {
		opened = __atomic_load_n(&self->shared->opened, __ATOMIC_RELAXED);
		ASSERT_EQ(0, load(self->file)) {
			TH_LOG("round %u: %s", round, strerror(errno));
		}
		while (__atomic_load_n(&self->shared->opened, __ATOMIC_RELAXED) == opened) {
			ASSERT_FALSE(__atomic_load_n(&self->shared->failed,
						     __ATOMIC_RELAXED));
			pause_us(500);
		}
		if (round % 10 == 0) {
			fd = open(NODE, O_RDONLY | O_CLOEXEC);
			ASSERT_LE(0, fd);
			ASSERT_EQ(-1, unload());
			ASSERT_EQ(EWOULDBLOCK, errno);
			ASSERT_EQ(0, close(fd));
		}
		while (unload()) {
			ASSERT_EQ(EWOULDBLOCK, errno);
			refused++;
			pause_us(500);
		}
		ASSERT_FALSE(is_loaded());
		ASSERT_EQ(-1, access(NODE, F_OK));
	}

	__atomic_store_n(&self->shared->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < USERS; i++) {
		ASSERT_EQ(users[i], waitpid(users[i], &status, 0));
		EXPECT_EQ(0, status);
	}
	TH_LOG("opened %u times, changed %u times; %u times too early to unload",
	       self->shared->opened, self->shared->changed, refused);
	EXPECT_LT(0U, self->shared->changed);
	EXPECT_LT(0U, refused);
}

TEST_HARNESS_MAIN
