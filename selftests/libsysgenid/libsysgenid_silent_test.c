// SPDX-License-Identifier: GPL-2.0
/*
 * The C library under a hypervisor that writes another ID and notifies nobody: the
 * driver finds it when it looks for itself, or when it is asked. A module plays that
 * hypervisor (selftests/hypervisor), and has to be loaded.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <sysgenid.h>

#include "kselftest_harness.h"
#include "../common.h"

#define HYPERVISOR	"/sys/module/sysgenid_hypervisor/parameters/id"

/* Turns a hang into a failure: the driver looks every four seconds. */
#define LIMIT_MS	60000

/* How often the ID is changed where times are compared. */
#define CHANGES		3

/* What the hypervisor does. No ID comes twice. */
static bool change_id(uint8_t id[16])
{
	char text[33];
	FILE *file;
	int i;

	if (getrandom(id, 16, 0) != 16)
		return false;
	for (i = 0; i < 16; i++)
		sprintf(text + 2 * i, "%02x", id[i]);
	file = fopen(HYPERVISOR, "we");
	if (!file)
		return false;
	fputs(text, file);
	return !fclose(file);
}

FIXTURE(silent)
{
	struct sysgenid *handle;
	struct sysgenid *hastening;
};

static int open_handle(struct sysgenid **handle, unsigned int limit_ms, unsigned int flags)
{
	return sysgenid_open_at(handle, SYSGENID_GENERATION_NODE, SYSGENID_ID_NODE, limit_ms,
				flags);
}

FIXTURE_SETUP(silent)
{
	ASSERT_EQ(0, open_handle(&self->handle, LIMIT_MS, 0));
	ASSERT_EQ(0, open_handle(&self->hastening, LIMIT_MS, SYSGENID_HASTEN));
	ASSERT_EQ(0, sysgenid_id_page(self->handle));
}

FIXTURE_TEARDOWN(silent)
{
	sysgenid_close(self->hastening);
	sysgenid_close(self->handle);
}

/*
 * Whether that ID was settled: the kernel was reseeded with it, and the generation is
 * another one than it was before.
 */
static bool settles(const struct sysgenid *handle, uint32_t before, const uint8_t id[16])
{
	struct sysgenid_fresh fresh;

	sysgenid_settle(handle, &fresh);
	return fresh.freshness == SYSGENID_FRESH_RESEEDED && !memcmp(fresh.seen.id, id, 16) &&
	       fresh.seen.generation != before && !sysgenid_changed(handle, &fresh.seen);
}

static uint32_t generation(const struct sysgenid *handle)
{
	struct sysgenid_seen seen;

	sysgenid_look(handle, &seen);
	return seen.generation;
}

TEST_F_TIMEOUT(silent, the_drivers_own_look_is_waited_for, 120)
{
	struct sysgenid_fresh before;
	uint8_t id[16];

	sysgenid_settle(self->handle, &before);
	ASSERT_TRUE(change_id(id));
	/* At once: the ID is there. */
	EXPECT_TRUE(sysgenid_changed(self->handle, &before.seen));
	EXPECT_TRUE(settles(self->handle, before.seen.generation, id));
}

/* A program that is started now looks at what nobody has answered yet. */
TEST_F_TIMEOUT(silent, a_handle_that_is_new_waits_as_well, 120)
{
	uint32_t before = generation(self->handle);
	struct sysgenid *handle;
	uint8_t id[16];

	ASSERT_TRUE(change_id(id));
	ASSERT_EQ(0, open_handle(&handle, LIMIT_MS, 0));
	EXPECT_TRUE(settles(handle, before, id));
	sysgenid_close(handle);
}

static long settles_in_ms(struct __test_metadata *_metadata, const struct sysgenid *handle)
{
	struct timespec start, end;
	uint8_t id[16];
	int i;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < CHANGES; i++) {
		uint32_t before = generation(handle);

		ASSERT_TRUE(change_id(id));
		EXPECT_TRUE(settles(handle, before, id));
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
}

TEST_F_TIMEOUT(silent, hastening_does_not_wait_for_the_driver_to_look, 240)
{
	long patient = settles_in_ms(_metadata, self->handle);
	long hastening = settles_in_ms(_metadata, self->hastening);

	EXPECT_GT(patient, 4 * hastening) {
		TH_LOG("%ld ms, hastening %ld ms", patient, hastening);
	}
}

TEST_F_TIMEOUT(silent, an_overseer_settles_what_is_due, 120)
{
	struct sysgenid_overseer *overseer;
	struct sysgenid_seen seen, now;
	uint8_t id[16];

	ASSERT_EQ(0, sysgenid_overseer_open(&overseer));
	sysgenid_look(self->handle, &seen);
	ASSERT_TRUE(change_id(id));
	EXPECT_EQ(0, sysgenid_overseer_settle(overseer, -1));
	sysgenid_look(self->handle, &now);
	EXPECT_EQ(seen.generation + 1, now.generation);
	EXPECT_EQ(0, memcmp(id, now.id, sizeof(id)));
	sysgenid_overseer_close(overseer);
}

/* At the limit it goes on, says so, and is told later all the same. */
TEST_F_TIMEOUT(silent, the_limit_is_no_answer, 120)
{
	uint8_t bytes[32], zeroes[32] = { 0 };
	struct sysgenid_fresh fresh;
	struct sysgenid *handle;
	uint32_t before;
	uint8_t id[16];
	int i;

	ASSERT_EQ(0, open_handle(&handle, 0, 0));
	/* The driver may look in this very moment. */
	for (i = 0; i < 10; i++) {
		before = generation(handle);
		ASSERT_TRUE(change_id(id));
		sysgenid_settle(handle, &fresh);
		if (fresh.freshness != SYSGENID_FRESH_RESEEDED)
			break;
	}
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_TIMED_OUT, fresh.freshness);
	EXPECT_EQ(0, memcmp(fresh.seen.id, id, sizeof(id)));
	EXPECT_EQ(0, sysgenid_fill(&fresh, bytes, sizeof(bytes)));
	EXPECT_NE(0, memcmp(bytes, zeroes, sizeof(bytes)));

	/* Until there is one, what is derived serves. */
	EXPECT_TRUE(settles(self->handle, before, id));
	EXPECT_TRUE(sysgenid_changed(handle, &fresh.seen));
	EXPECT_TRUE(settles(handle, before, id));
	sysgenid_close(handle);
}

static void allow_only_what_the_library_needs(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_nanosleep, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {
		.len = ARRAY_SIZE(filter),
		.filter = filter,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(2);
}

/* Looks until there is something new, settles, and draws, in a sandbox. */
static void draw_in_a_sandbox(const struct sysgenid *handle, atomic_bool *ready)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	struct sysgenid_fresh fresh;
	uint8_t bytes[64];
	uint32_t before;

	sysgenid_settle(handle, &fresh);
	before = fresh.seen.generation;
	allow_only_what_the_library_needs();
	atomic_store(ready, true);
	while (!sysgenid_changed(handle, &fresh.seen))
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	sysgenid_settle(handle, &fresh);
	if (fresh.freshness != SYSGENID_FRESH_RESEEDED || fresh.seen.generation == before)
		_exit(3);
	_exit(sysgenid_fill(&fresh, bytes, sizeof(bytes)) ? 4 : 0);
}

static void in_a_sandbox(struct __test_metadata *_metadata, const struct sysgenid *handle,
			 int *status)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	atomic_bool *ready = mmap(NULL, sizeof(*ready), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t id[16];
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)ready);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		draw_in_a_sandbox(handle, ready);
	while (!atomic_load(ready) && !waitpid(pid, status, WNOHANG))
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	ASSERT_TRUE(atomic_load(ready));
	ASSERT_TRUE(change_id(id));
	ASSERT_EQ(pid, waitpid(pid, status, 0));
	munmap(ready, sizeof(*ready));
}

TEST_F_TIMEOUT(silent, settling_takes_two_system_calls, 120)
{
	int status;

	in_a_sandbox(_metadata, self->handle, &status);
	EXPECT_TRUE(WIFEXITED(status)) {
		TH_LOG("killed by signal %d", WTERMSIG(status));
	}
	EXPECT_EQ(0, WEXITSTATUS(status));
}

/* The control: that option takes more, and the sandbox would show it. */
TEST_F_TIMEOUT(silent, hastening_takes_more_system_calls, 120)
{
	int status;

	in_a_sandbox(_metadata, self->hastening, &status);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGSYS, WTERMSIG(status));
}

TEST_HARNESS_MAIN
