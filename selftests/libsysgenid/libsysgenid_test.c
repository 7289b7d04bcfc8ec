// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of libsysgenid, function by function, with all that each can answer. A clone
 * is needed for none of them: see libsysgenid_clone_test.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sysgenid.h>

#include "kselftest_harness.h"
#include "../common.h"

/* How often a program looks that must make no system call. */
#define LOOKS		1000000

static const struct sysgenid_seen nothing;

FIXTURE(library)
{
	struct sysgenid *handle;
	struct sysgenid_watcher *watcher;
	struct sysgenid_overseer *overseer;
};

FIXTURE_SETUP(library)
{
	ASSERT_EQ(0, sysgenid_open(&self->handle)) {
		TH_LOG("%s", sysgenid_last_error());
	}
	ASSERT_EQ(0, sysgenid_watcher_open(&self->watcher));
	ASSERT_EQ(0, sysgenid_overseer_open(&self->overseer));
}

FIXTURE_TEARDOWN(library)
{
	sysgenid_overseer_close(self->overseer);
	sysgenid_watcher_close(self->watcher);
	sysgenid_close(self->handle);
}

static uint32_t trigger(struct __test_metadata *_metadata, const struct sysgenid_overseer *overseer)
{
	uint32_t generation = 0;

	EXPECT_EQ(0, sysgenid_overseer_trigger(overseer, 0, &generation)) {
		TH_LOG("%s", sysgenid_last_error());
	}
	return generation;
}

static bool is_readable(const struct sysgenid_watcher *watcher)
{
	struct pollfd pollfd = { .fd = sysgenid_watcher_fd(watcher), .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLIN;
}

/* Open, and what can be wrong with a node. */

TEST_F(library, open_looks_at_the_usual_nodes)
{
	struct sysgenid *handle;
	struct sysgenid_seen seen;

	sysgenid_look(self->handle, &seen);
	EXPECT_EQ((uint32_t)(SYSGENID_SEEN_GENERATION | SYSGENID_SEEN_ID), seen.flags);
	EXPECT_EQ(0, sysgenid_id_page(self->handle));

	ASSERT_EQ(0, sysgenid_open_at(&handle, SYSGENID_GENERATION_NODE, SYSGENID_ID_NODE,
				      SYSGENID_LIMIT_MS, 0));
	EXPECT_FALSE(sysgenid_changed(handle, &seen));
	sysgenid_close(handle);
}

TEST_F(library, the_id_is_that_of_the_node)
{
	struct sysgenid_seen seen;
	uint8_t id[sizeof(seen.id)];
	int fd = open(SYSGENID_ID_NODE, O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)sizeof(id), read(fd, id, sizeof(id)));
	close(fd);
	sysgenid_look(self->handle, &seen);
	EXPECT_EQ(0, memcmp(id, seen.id, sizeof(id)));
}

TEST_F(library, open_without_the_id)
{
	struct sysgenid *handle;
	struct sysgenid_seen seen;
	uint8_t zeroes[sizeof(seen.id)] = { 0 };

	ASSERT_EQ(0, sysgenid_open_at(&handle, SYSGENID_GENERATION_NODE, NULL, 0, 0));
	EXPECT_EQ(-ENODEV, sysgenid_id_page(handle));
	memset(&seen, 0xa5, sizeof(seen));
	sysgenid_look(handle, &seen);
	EXPECT_EQ((uint32_t)SYSGENID_SEEN_GENERATION, seen.flags);
	EXPECT_EQ(0, memcmp(zeroes, seen.id, sizeof(zeroes)));
	sysgenid_close(handle);

	ASSERT_EQ(0, sysgenid_open_at(&handle, SYSGENID_GENERATION_NODE, "/no/such/node", 0, 0));
	EXPECT_EQ(-ENODEV, sysgenid_id_page(handle));
	sysgenid_close(handle);
}

TEST_F(library, open_tells_missing_from_something_else)
{
	static const struct {
		const char *node;
		int ret;
		const char *message;
	} cases[] = {
		{ "/no/such/node", -ENODEV, "modprobe sysgenid" },
		{ "/dev/null", -ENOTTY, "/dev/null is not the device" },
		{ SYSGENID_ID_NODE, -ENOTTY, "is not the device" },
		{ NULL, -EINVAL, "NULL" },
	};
	struct sysgenid *handle;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		handle = self->handle;
		EXPECT_EQ(cases[i].ret, sysgenid_open_at(&handle, cases[i].node, NULL, 0, 0)) {
			TH_LOG("case %u: %s", i, sysgenid_last_error());
		}
		EXPECT_EQ(NULL, handle);
		EXPECT_NE(NULL, strstr(sysgenid_last_error(), cases[i].message)) {
			TH_LOG("case %u: %s", i, sysgenid_last_error());
		}
	}
	EXPECT_EQ(-EINVAL, sysgenid_open(NULL));
	EXPECT_EQ(-EINVAL, sysgenid_watcher_open(NULL));
	EXPECT_EQ(-EINVAL, sysgenid_overseer_open(NULL));
}

/* The ID is forbidden to others by its node's mode: that is no error of open. */
TEST_F(library, open_by_nobody)
{
	struct sysgenid *handle;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		_exit(sysgenid_open(&handle) ? 0 : -sysgenid_id_page(handle));
	}
	EXPECT_EQ(EACCES, child_status(pid));
}

TEST_F(library, open_tells_forbidden)
{
	struct sysgenid_watcher *watcher;
	struct sysgenid_overseer *overseer;
	struct sysgenid *handle;
	pid_t pid;

	ASSERT_EQ(0, chmod(SYSGENID_GENERATION_NODE, 0600));
	pid = fork();
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		_exit(sysgenid_open(&handle) == -EACCES && !handle &&
		      sysgenid_watcher_open(&watcher) == -EACCES && !watcher &&
		      sysgenid_overseer_open(&overseer) == -EACCES && !overseer &&
		      strstr(sysgenid_last_error(), "look at its mode") ? 0 : 1);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, chmod(SYSGENID_GENERATION_NODE, 0666));
}

TEST_F(library, open_without_descriptors)
{
	struct rlimit limit, none = { 0, 0 };
	struct sysgenid *handle;
	int ret;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	none.rlim_max = limit.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	ret = sysgenid_open(&handle);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(-EMFILE, ret);
}

TEST_F(library, close_leaves_nothing)
{
	int before = dup(0), after, i;

	/* The lowest free descriptor tells. */
	close(before);
	for (i = 0; i < 100; i++) {
		struct sysgenid_overseer *overseer;
		struct sysgenid_watcher *watcher;
		struct sysgenid *handle;

		ASSERT_EQ(0, sysgenid_open(&handle));
		ASSERT_EQ(0, sysgenid_watcher_open(&watcher));
		ASSERT_EQ(0, sysgenid_overseer_open(&overseer));
		sysgenid_overseer_close(overseer);
		sysgenid_watcher_close(watcher);
		sysgenid_close(handle);
	}
	after = dup(0);
	close(after);
	EXPECT_EQ(before, after);
	sysgenid_close(NULL);
	sysgenid_watcher_close(NULL);
	sysgenid_overseer_close(NULL);
}

/* A daemon that closes all descriptors must not close one of the library's. */
TEST_F(library, handle_holds_no_descriptor)
{
	int before = dup(0), after;
	struct sysgenid *usual, *at;

	close(before);
	ASSERT_EQ(0, sysgenid_open(&usual));
	ASSERT_EQ(0, sysgenid_open_at(&at, SYSGENID_GENERATION_NODE, SYSGENID_ID_NODE, 0, 0));
	after = dup(0);
	close(after);
	EXPECT_EQ(before, after);
	sysgenid_close(usual);
	sysgenid_close(at);
}

/* Look, settle, fill. */

TEST_F(library, look_and_changed)
{
	struct sysgenid_seen seen, again, other;

	EXPECT_TRUE(sysgenid_changed(self->handle, &nothing));
	EXPECT_TRUE(sysgenid_changed(self->handle, NULL));
	sysgenid_look(self->handle, &seen);
	EXPECT_FALSE(sysgenid_changed(self->handle, &seen));
	sysgenid_look(self->handle, &again);
	EXPECT_EQ(0, memcmp(&seen, &again, sizeof(seen)));

	other = seen;
	other.id[sizeof(other.id) - 1] ^= 1;
	EXPECT_TRUE(sysgenid_changed(self->handle, &other));

	EXPECT_EQ(seen.generation + 1, trigger(_metadata, self->overseer));
	EXPECT_TRUE(sysgenid_changed(self->handle, &seen));
	sysgenid_look(self->handle, &again);
	EXPECT_EQ(seen.generation + 1, again.generation);
	EXPECT_EQ(0, memcmp(seen.id, again.id, sizeof(seen.id)));
	sysgenid_look(self->handle, NULL);
}

TEST_F(library, open_knows_its_flags)
{
	struct sysgenid_fresh fresh;
	struct sysgenid *handle;
	unsigned int flag;

	for (flag = 1; flag; flag <<= 1) {
		int ret = sysgenid_open_at(&handle, SYSGENID_GENERATION_NODE, SYSGENID_ID_NODE, 0,
					   flag);

		EXPECT_EQ(flag == SYSGENID_HASTEN ? 0 : -EINVAL, ret);
		if (ret)
			continue;
		sysgenid_settle(handle, &fresh);
		EXPECT_EQ((uint32_t)SYSGENID_FRESH_RESEEDED, fresh.freshness);
		sysgenid_close(handle);
	}
}

TEST_F(library, settle)
{
	struct sysgenid_fresh fresh = { 0 };
	struct sysgenid_seen seen;

	/* For the first time. */
	sysgenid_look(self->handle, &seen);
	sysgenid_settle(self->handle, &fresh);
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_RESEEDED, fresh.freshness);
	EXPECT_EQ(0, memcmp(&seen, &fresh.seen, sizeof(seen)));

	/* After an overseer's change. */
	trigger(_metadata, self->overseer);
	sysgenid_settle(self->handle, &fresh);
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_RESEEDED, fresh.freshness);
	EXPECT_EQ(seen.generation + 1, fresh.seen.generation);
	if (sizeof(void *) == 8)
		EXPECT_EQ(seen.epoch + 1, fresh.seen.epoch);
	EXPECT_FALSE(sysgenid_changed(self->handle, &fresh.seen));
	sysgenid_settle(self->handle, NULL);
}

/* As far as the generation goes, which says whether the kernel was reseeded. */
TEST_F(library, settle_without_the_id)
{
	struct sysgenid_fresh fresh;
	struct sysgenid *handle;

	ASSERT_EQ(0, sysgenid_open_at(&handle, SYSGENID_GENERATION_NODE, NULL, 0, 0));
	sysgenid_settle(handle, &fresh);
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_RESEEDED, fresh.freshness);
	EXPECT_EQ((uint32_t)SYSGENID_SEEN_GENERATION, fresh.seen.flags);
	sysgenid_close(handle);
}

TEST_F(library, fill)
{
	uint8_t zeroes[64] = { 0 }, first[64], second[64];
	struct sysgenid_fresh fresh;

	sysgenid_settle(self->handle, &fresh);
	memset(first, 0, sizeof(first));
	memset(second, 0, sizeof(second));
	ASSERT_EQ(0, sysgenid_fill(&fresh, first, sizeof(first) - 1));
	ASSERT_EQ(0, sysgenid_fill(&fresh, second, sizeof(second) - 1));
	EXPECT_NE(0, memcmp(first, second, sizeof(first)));
	EXPECT_NE(0, memcmp(first + 47, zeroes, 16));
	/* No more than that is written. */
	EXPECT_EQ(0, first[63]);

	/* Where the kernel does not vouch for its bytes, more is mixed in. */
	fresh.freshness = SYSGENID_FRESH_TIMED_OUT;
	ASSERT_EQ(0, sysgenid_fill(&fresh, first, sizeof(first)));
	EXPECT_NE(0, memcmp(first, second, sizeof(first)));
	fresh.freshness = SYSGENID_FRESH_NO_DEVICE + 1;
	EXPECT_EQ(-EINVAL, sysgenid_fill(&fresh, first, sizeof(first)));
	fresh.freshness = SYSGENID_FRESH_RESEEDED;

	EXPECT_EQ(0, sysgenid_fill(&fresh, first, 0));
	EXPECT_EQ(-EINVAL, sysgenid_fill(&fresh, NULL, 1));
	EXPECT_EQ(-EINVAL, sysgenid_fill(&fresh, first, SIZE_MAX));
}

/* What cannot be used must not look as if it could. */
TEST_F(library, fill_from_nothing)
{
	static const struct sysgenid_fresh empty;
	uint8_t zeroes[16] = { 0 }, bytes[16];

	memset(bytes, 0xa5, sizeof(bytes));
	EXPECT_EQ(-EINVAL, sysgenid_fill(&empty, bytes, sizeof(bytes)));
	EXPECT_EQ(0, memcmp(zeroes, bytes, sizeof(bytes)));
	memset(bytes, 0xa5, sizeof(bytes));
	EXPECT_EQ(-EINVAL, sysgenid_fill(NULL, bytes, sizeof(bytes)));
	EXPECT_EQ(0, memcmp(zeroes, bytes, sizeof(bytes)));
}

/* A handle that is NULL is a machine where nothing ever changes. */
TEST_F(library, without_a_device)
{
	struct sysgenid_fresh fresh;
	struct sysgenid_seen seen;
	uint8_t bytes[16];

	EXPECT_TRUE(sysgenid_changed(NULL, &nothing));
	sysgenid_settle(NULL, &fresh);
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_NO_DEVICE, fresh.freshness);
	EXPECT_EQ(0, sysgenid_fill(&fresh, bytes, sizeof(bytes)));
	trigger(_metadata, self->overseer);
	EXPECT_FALSE(sysgenid_changed(NULL, &fresh.seen));
	sysgenid_look(NULL, &seen);
	EXPECT_EQ(0, memcmp(&seen, &fresh.seen, sizeof(seen)));
	EXPECT_EQ(-ENODEV, sysgenid_id_page(NULL));
}

/* In this mode, any system call but read(), write(), exit() and sigreturn() is death. */
TEST_F(library, looking_makes_no_system_call)
{
	int status, i;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct sysgenid_seen seen;
		int ret = 0;

		/* It is another process. */
		sysgenid_look(self->handle, &seen);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
			_exit(2);
		for (i = 0; i < LOOKS; i++) {
			struct sysgenid_seen now;

			sysgenid_look(self->handle, &now);
			if (now.generation != seen.generation ||
			    sysgenid_changed(self->handle, &seen))
				ret = 1;
		}
		/* Not _exit(), which calls exit_group(). */
		syscall(SYS_exit, ret);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status)) {
		TH_LOG("killed by signal %d", WTERMSIG(status));
	}
	EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST_F(library, works_in_a_forked_process)
{
	struct sysgenid_fresh fresh;
	pid_t pid;

	sysgenid_settle(self->handle, &fresh);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct sysgenid_seen seen = fresh.seen;
		uint8_t bytes[16];

		if (sysgenid_overseer_trigger(self->overseer, 0, NULL))
			_exit(1);
		if (!sysgenid_changed(self->handle, &seen))
			_exit(2);
		sysgenid_settle(self->handle, &fresh);
		if (fresh.freshness != SYSGENID_FRESH_RESEEDED ||
		    sysgenid_fill(&fresh, bytes, sizeof(bytes)))
			_exit(3);
		sysgenid_close(self->handle);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
	/* And in the parent, where it is still open. */
	EXPECT_TRUE(sysgenid_changed(self->handle, &fresh.seen));
}

/* The child has the state of its parent, and so has its own child. */
TEST_F(library, a_forked_process_is_a_change)
{
	struct sysgenid_fresh fresh;
	pid_t pid;

	sysgenid_settle(self->handle, &fresh);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct sysgenid_fresh child;

		if (!sysgenid_changed(self->handle, &fresh.seen))
			_exit(1);
		sysgenid_settle(self->handle, &child);
		if (child.freshness != SYSGENID_FRESH_RESEEDED)
			_exit(2);
		if (child.seen.generation != fresh.seen.generation)
			_exit(3);
		if (sysgenid_changed(self->handle, &child.seen))
			_exit(4);
		pid = fork();
		if (!pid)
			_exit(sysgenid_changed(self->handle, &child.seen) &&
			      sysgenid_changed(self->handle, &fresh.seen) ? 0 : 1);
		_exit(pid > 0 && !child_status(pid) &&
		      !sysgenid_changed(self->handle, &child.seen) ? 0 : 5);
	}
	EXPECT_EQ(0, child_status(pid));
	/* Nothing has happened to the parent. */
	EXPECT_FALSE(sysgenid_changed(self->handle, &fresh.seen));
}

struct looker {
	const struct sysgenid *handle;
	uint32_t last;
	int failed;
};

static void *look_until_last(void *argument)
{
	struct looker *looker = argument;
	struct sysgenid_fresh fresh;

	sysgenid_settle(looker->handle, &fresh);
	while (fresh.seen.generation != looker->last) {
		if (!sysgenid_changed(looker->handle, &fresh.seen))
			continue;
		sysgenid_settle(looker->handle, &fresh);
		if (fresh.freshness != SYSGENID_FRESH_RESEEDED)
			looker->failed = 1;
	}
	return NULL;
}

TEST_F(library, threads_share_a_handle)
{
	const unsigned int changes = 100;
	struct looker lookers[4];
	pthread_t threads[ARRAY_SIZE(lookers)];
	struct sysgenid_seen seen;
	unsigned int i;

	sysgenid_look(self->handle, &seen);
	for (i = 0; i < ARRAY_SIZE(lookers); i++) {
		lookers[i] = (struct looker) {
			.handle = self->handle,
			.last = seen.generation + changes,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, look_until_last, &lookers[i]));
	}
	for (i = 0; i < changes; i++)
		trigger(_metadata, self->overseer);
	for (i = 0; i < ARRAY_SIZE(lookers); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_EQ(0, lookers[i].failed);
	}
}

/* The watcher. */

TEST_F(library, watcher_is_told_until_it_acks)
{
	uint32_t generation = 0xa5a5a5a5, read;

	EXPECT_FALSE(is_readable(self->watcher));
	EXPECT_EQ(-EAGAIN, sysgenid_watcher_read(self->watcher, &generation));
	EXPECT_EQ(0xa5a5a5a5, generation);

	generation = trigger(_metadata, self->overseer);
	EXPECT_TRUE(is_readable(self->watcher));
	EXPECT_EQ(0, sysgenid_watcher_read(self->watcher, &read));
	EXPECT_EQ(generation, read);
	/* Reading does not acknowledge. */
	EXPECT_EQ(0, sysgenid_watcher_read(self->watcher, &read));

	EXPECT_EQ(-ESTALE, sysgenid_watcher_ack(self->watcher, generation - 1));
	EXPECT_NE(NULL, strstr(sysgenid_last_error(), "not the current generation"));
	EXPECT_TRUE(is_readable(self->watcher));
	EXPECT_EQ(0, sysgenid_watcher_ack(self->watcher, generation));
	EXPECT_FALSE(is_readable(self->watcher));
	EXPECT_EQ(-EAGAIN, sysgenid_watcher_read(self->watcher, &read));
}

TEST_F(library, watcher_descriptor)
{
	int fd = sysgenid_watcher_fd(self->watcher);

	EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
}

TEST_F(library, watcher_null)
{
	uint32_t generation;

	EXPECT_EQ(-EINVAL, sysgenid_watcher_fd(NULL));
	EXPECT_EQ(-EINVAL, sysgenid_watcher_read(NULL, &generation));
	EXPECT_EQ(-EINVAL, sysgenid_watcher_ack(NULL, 0));
	EXPECT_EQ(-EINVAL, sysgenid_watcher_set_tracked(NULL, true));
	trigger(_metadata, self->overseer);
	EXPECT_EQ(-EINVAL, sysgenid_watcher_read(self->watcher, NULL));
}

/* The overseer. */

TEST_F(library, overseer_waits_for_those_that_are_tracked)
{
	uint32_t generation = trigger(_metadata, self->overseer);

	/* Nobody has asked to be waited for. */
	EXPECT_EQ(0, sysgenid_overseer_wait_watchers(self->overseer, 0));

	EXPECT_EQ(0, sysgenid_watcher_set_tracked(self->watcher, true));
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 0));
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 20));
	EXPECT_NE(NULL, strstr(sysgenid_last_error(), "after 20 ms"));
	EXPECT_EQ(0, sysgenid_watcher_ack(self->watcher, generation));
	EXPECT_EQ(0, sysgenid_overseer_wait_watchers(self->overseer, 0));
	EXPECT_EQ(0, sysgenid_overseer_wait_watchers(self->overseer, -1));

	trigger(_metadata, self->overseer);
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 0));
	EXPECT_EQ(0, sysgenid_watcher_set_tracked(self->watcher, false));
	EXPECT_EQ(0, sysgenid_overseer_wait_watchers(self->overseer, 0));
}

TEST_F(library, overseer_waits_its_time)
{
	struct timespec start, end;
	long ms;

	ASSERT_EQ(0, sysgenid_watcher_set_tracked(self->watcher, true));
	trigger(_metadata, self->overseer);
	clock_gettime(CLOCK_MONOTONIC, &start);
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 300));
	clock_gettime(CLOCK_MONOTONIC, &end);
	ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
	EXPECT_LE(299, ms);
}

static void nothing_to_do(int number)
{
	(void)number;
}

/* What the driver waits is a millisecond at least, and here each wait ends before that. */
TEST_F(library, overseer_waits_its_time_under_a_timer)
{
	const struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { 0 };
	const struct sigaction action = { .sa_handler = nothing_to_do };

	ASSERT_EQ(0, sysgenid_watcher_set_tracked(self->watcher, true));
	trigger(_metadata, self->overseer);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 50));
	EXPECT_EQ(-ETIME, sysgenid_overseer_wait_watchers(self->overseer, 0));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
}

/* As a container may have it. */
TEST_F(library, nodes_at_other_places)
{
	const struct sysgenid_watcher *nobody = NULL;
	struct sysgenid_overseer *overseer;
	struct sysgenid_watcher *watcher;
	struct stat node;
	uint32_t generation, read;

	ASSERT_EQ(0, stat("/dev/sysgenid", &node));
	ASSERT_EQ(0, mknod("/tmp/another", S_IFCHR | 0666, node.st_rdev));
	EXPECT_EQ(0, sysgenid_watcher_open_at(&watcher, "/tmp/another"));
	EXPECT_EQ(0, sysgenid_overseer_open_at(&overseer, "/tmp/another"));
	EXPECT_EQ(0, sysgenid_overseer_trigger(overseer, 0, &generation));
	EXPECT_EQ(0, sysgenid_watcher_read(watcher, &read));
	EXPECT_EQ(generation, read);
	sysgenid_watcher_close(watcher);
	sysgenid_overseer_close(overseer);
	unlink("/tmp/another");

	EXPECT_EQ(-ENODEV, sysgenid_watcher_open_at(&watcher, "/tmp/another"));
	EXPECT_EQ(nobody, watcher);
	EXPECT_EQ(-ENODEV, sysgenid_overseer_open_at(&overseer, "/tmp/another"));
	EXPECT_EQ(-EINVAL, sysgenid_watcher_open_at(&watcher, NULL));
	EXPECT_EQ(-EINVAL, sysgenid_overseer_open_at(&overseer, NULL));
	/* It may be read only, by root as well: that is not what is wrong with it. */
	EXPECT_EQ(-ENOTTY, sysgenid_watcher_open_at(&watcher, "/dev/vmgenid"));
}

/* The parent and the child have one state, device or not. */
TEST_F(library, fork_is_noticed_without_a_device)
{
	struct sysgenid_fresh fresh;
	pid_t pid;

	sysgenid_settle(NULL, &fresh);
	EXPECT_EQ((uint32_t)SYSGENID_FRESH_NO_DEVICE, fresh.freshness);
	EXPECT_FALSE(sysgenid_changed(NULL, &fresh.seen));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(sysgenid_changed(NULL, &fresh.seen) ? 0 : 1);
	EXPECT_EQ(0, child_status(pid));
	EXPECT_FALSE(sysgenid_changed(NULL, &fresh.seen));
}

TEST_F(library, version)
{
	unsigned int version = SYSGENID_VERSION_MAJOR << 16 | SYSGENID_VERSION_MINOR << 8 |
			       SYSGENID_VERSION_PATCH;

	EXPECT_EQ(version, sysgenid_version());
}

/* Nothing is: this machine was not cloned. */
TEST_F(library, overseer_settles_what_is_due)
{
	EXPECT_EQ(0, sysgenid_overseer_settle(self->overseer, 0));
	EXPECT_EQ(0, sysgenid_overseer_settle(self->overseer, -1));
	EXPECT_EQ(-EINVAL, sysgenid_overseer_settle(NULL, 0));
}

TEST_F(library, overseer_chooses_the_generation)
{
	struct sysgenid_seen seen;
	uint32_t generation;

	sysgenid_look(self->handle, &seen);
	EXPECT_EQ(0, sysgenid_overseer_trigger(self->overseer, seen.generation + 7, &generation));
	EXPECT_EQ(seen.generation + 7, generation);
	EXPECT_EQ(0, sysgenid_overseer_trigger(self->overseer, 0, NULL));
	EXPECT_EQ(-EINVAL, sysgenid_overseer_trigger(NULL, 0, &generation));
	EXPECT_EQ(-EINVAL, sysgenid_overseer_wait_watchers(NULL, 0));
}

TEST_F(library, overseer_by_nobody)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		if (sysgenid_overseer_wait_watchers(self->overseer, 0))
			_exit(1);
		_exit(-sysgenid_overseer_trigger(self->overseer, 0, NULL));
	}
	EXPECT_EQ(EPERM, child_status(pid));
}

/* The message. */

static void *last_error(void *argument)
{
	(void)argument;
	return (void *)sysgenid_last_error();
}

TEST_F(library, last_error_is_of_the_thread)
{
	uint32_t generation;
	char kept[512];
	pthread_t thread;
	void *other;

	ASSERT_EQ(-EINVAL, sysgenid_watcher_ack(NULL, 0));
	snprintf(kept, sizeof(kept), "%s", sysgenid_last_error());
	EXPECT_NE(0, kept[0]);

	/* Success leaves it alone, and so does what fails elsewhere. */
	generation = trigger(_metadata, self->overseer);
	EXPECT_EQ(0, sysgenid_watcher_ack(self->watcher, generation));
	ASSERT_EQ(0, pthread_create(&thread, NULL, last_error, NULL));
	ASSERT_EQ(0, pthread_join(thread, &other));
	EXPECT_NE((void *)sysgenid_last_error(), other);
	EXPECT_STREQ(kept, sysgenid_last_error());
}

TEST_HARNESS_MAIN
