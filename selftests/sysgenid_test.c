// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of /dev/sysgenid, call by call.
 *
 * No test knows what the generation is when it starts: each reads it first and
 * compares with what it read, so that the suite can run again and again on one
 * device. No test needs anything to be fast either; a limit is only there so
 * that a hang becomes a failure.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
/* Addresses, which are offsets in /proc/self/mem, need it in 32-bit programs. */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"
#include "common.h"

#define NODE		"/dev/sysgenid"

/* Long enough for a guest without hardware virtualization on a loaded host. */
#define LIMIT_MS	20000

/* Descriptors that one process opens, so that what each of them costs shows. */
#define ACCOUNTED	2000

/* After this long, something that should stay asleep is believed to sleep. */
#define SETTLE_MS	50

#ifdef __NR_poll
#define NR_POLL		__NR_poll
#else
#define NR_POLL		__NR_ppoll
#endif

#ifdef __NR_epoll_wait
#define NR_EPOLL	__NR_epoll_wait
#else
#define NR_EPOLL	__NR_epoll_pwait
#endif

static void sleep_ms(unsigned int ms)
{
	struct timespec ts = {
		.tv_sec = ms / 1000,
		.tv_nsec = (ms % 1000) * 1000000L,
	};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The generation that a trigger with no wish of its own leads to. */
static uint32_t next_generation(uint32_t generation)
{
	return generation == UINT32_MAX ? 1 : generation + 1;
}

static int set_tracking(int fd, unsigned long on)
{
	return ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, on);
}

static int wait_watchers(int fd, unsigned long timeout_ms)
{
	return ioctl(fd, SYSGENID_WAIT_WATCHERS, timeout_ms);
}

static int trigger(int fd, unsigned long least)
{
	return ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, least);
}

static int ack(int fd, uint32_t generation)
{
	return write(fd, &generation, sizeof(generation)) ==
	       (ssize_t)sizeof(generation) ? 0 : -1;
}

/* The events of @fd at this moment. */
static short events_now(int fd)
{
	struct pollfd pfd = {
		.fd = fd,
		.events = POLLIN | POLLRDNORM | POLLPRI | POLLOUT | POLLWRNORM,
	};

	return poll(&pfd, 1, 0) < 0 ? -1 : pfd.revents;
}

static bool is_outdated(int fd)
{
	return events_now(fd) == (POLLIN | POLLRDNORM);
}

static bool is_acked(int fd)
{
	return events_now(fd) == 0;
}

/* Whether task @tid sleeps in the system call @nr, and in nothing else. */
static bool sleeps_in(pid_t tid, long nr)
{
	char path[64], text[32] = "";
	ssize_t len;
	char *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	/* "running", or the number of the call and what it was given. */
	return len > 0 && strtol(text, &end, 10) == nr && end != text;
}

static bool wait_until_sleeps_in(pid_t tid, long nr)
{
	uint64_t end = now_ms() + LIMIT_MS;

	while (!sleeps_in(tid, nr)) {
		if (now_ms() > end)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* One call that is meant to sleep, in a thread of its own. */
struct sleeper {
	int fd;			/* on this descriptor */
	long nr;		/* read, poll or ioctl, by number */
	unsigned long arg;	/* the timeout, for an ioctl */
	const uint32_t *word;	/* the mapped generation */

	pthread_t thread;
	pid_t tid;
	int ret;		/* what the call returned */
	int err;		/* and its errno */
	uint32_t value;		/* what a read has read */
	short revents;		/* what a poll has found */
	uint32_t seen;		/* the mapped generation right after the call */
};

static void *sleeper_main(void *data)
{
	struct sleeper *s = data;
	struct pollfd pfd = { .fd = s->fd, .events = POLLIN | POLLRDNORM };

	__atomic_store_n(&s->tid, (pid_t)syscall(__NR_gettid), __ATOMIC_RELEASE);
	if (s->nr == __NR_read)
		s->ret = read(s->fd, &s->value, sizeof(s->value));
	else if (s->nr == NR_POLL)
		s->ret = poll(&pfd, 1, -1);
	else
		s->ret = wait_watchers(s->fd, s->arg);
	s->err = s->ret < 0 ? errno : 0;
	s->revents = pfd.revents;
	s->seen = __atomic_load_n(s->word, __ATOMIC_ACQUIRE);
	return NULL;
}

/* Returns when thread @tid, which it stores there itself, is asleep in @nr. */
static void expect_to_sleep(struct __test_metadata *_metadata, const pid_t *tid,
			    long nr)
{
	uint64_t end = now_ms() + LIMIT_MS;

	while (!__atomic_load_n(tid, __ATOMIC_ACQUIRE)) {
		ASSERT_LT(now_ms(), end);
		sleep_ms(1);
	}
	ASSERT_TRUE(wait_until_sleeps_in(*tid, nr)) {
		TH_LOG("call %ld never went to sleep", nr);
	}
}

/* Returns when the call is asleep. */
static void start_sleeper(struct __test_metadata *_metadata, struct sleeper *s)
{
	ASSERT_EQ(0, pthread_create(&s->thread, NULL, sleeper_main, s));
	expect_to_sleep(_metadata, &s->tid, s->nr);
}

static void expect_asleep(struct __test_metadata *_metadata, struct sleeper *s)
{
	sleep_ms(SETTLE_MS);
	EXPECT_TRUE(sleeps_in(s->tid, s->nr)) {
		TH_LOG("call %ld did not stay asleep", s->nr);
	}
}

/* Returns when the thread has ended; the call it made is @nr. */
static void join_sleeper(struct __test_metadata *_metadata, pthread_t thread, long nr)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += LIMIT_MS / 1000;
	ASSERT_EQ(0, pthread_timedjoin_np(thread, NULL, &end)) {
		TH_LOG("call %ld was never woken", nr);
	}
}

static void finish_sleeper(struct __test_metadata *_metadata, struct sleeper *s)
{
	join_sleeper(_metadata, s->thread, s->nr);
}

struct fdinfo {
	unsigned long generation;
	unsigned long epoch;
	unsigned long acked;
	unsigned long outdated;
	unsigned long tracked;
	unsigned long watchers;
	unsigned long outdated_watchers;
	char source[32];
	unsigned long reseeded;
	unsigned long pending;	/* left out where there is no ID to be seen */
	unsigned int keys;	/* lines that start with "sysgenid-" */
	unsigned int found;	/* keys of the contract, each counted once */
};

static bool parse_number(const char *line, const char *key, unsigned long *value)
{
	size_t len = strlen(key);
	char *end;

	if (strncmp(line, key, len) || line[len] != ':' || line[len + 1] != '\t')
		return false;
	*value = strtoul(line + len + 2, &end, 10);
	return end != line + len + 2 && !strcmp(end, "\n");
}

/* Whether the ID of this machine can be seen. */
static unsigned int has_id(void)
{
	return !access("/dev/vmgenid", F_OK);
}

static bool read_fdinfo(int fd, struct fdinfo *info)
{
	char path[64], line[256], end;
	unsigned int keys;
	FILE *file;

	memset(info, 0, sizeof(*info));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "sysgenid-", 9))
			continue;
		info->keys++;
		if (parse_number(line, "sysgenid-generation", &info->generation))
			info->found |= 1 << 0;
		if (parse_number(line, "sysgenid-acked", &info->acked))
			info->found |= 1 << 1;
		if (parse_number(line, "sysgenid-outdated", &info->outdated))
			info->found |= 1 << 2;
		if (parse_number(line, "sysgenid-tracked", &info->tracked))
			info->found |= 1 << 3;
		if (parse_number(line, "sysgenid-watchers", &info->watchers))
			info->found |= 1 << 4;
		if (parse_number(line, "sysgenid-outdated-watchers",
				 &info->outdated_watchers))
			info->found |= 1 << 5;
		if (sscanf(line, "sysgenid-source:\t%31s%c", info->source, &end) == 2 &&
		    end == '\n')
			info->found |= 1 << 6;
		if (parse_number(line, "sysgenid-epoch", &info->epoch))
			info->found |= 1 << 7;
		if (parse_number(line, "sysgenid-reseeded", &info->reseeded))
			info->found |= 1 << 8;
		if (parse_number(line, "sysgenid-pending", &info->pending))
			info->found |= 1 << 9;
	}
	fclose(file);
	keys = has_id() ? 10 : 9;
	return info->keys == keys && info->found == (1U << keys) - 1;
}

FIXTURE(sysgenid)
{
	int overseer;		/* triggers; nothing is asserted about its state */
	int watcher;		/* the watcher under test, acked */
	const uint32_t *word;	/* the mapped generation */
	long page;
};

FIXTURE_SETUP(sysgenid)
{
	void *map;

	if (geteuid())
		SKIP(return, "only root may trigger a change");

	self->page = sysconf(_SC_PAGESIZE);
	self->overseer = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->overseer) {
		TH_LOG("cannot open " NODE ": %s", strerror(errno));
	}
	map = mmap(NULL, self->page, PROT_READ, MAP_SHARED, self->overseer, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->word = map;
	self->watcher = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->watcher);
}

FIXTURE_TEARDOWN(sysgenid)
{
	/* The watchers go with the process. */
}

/* The generation, as everything else in a test is compared with it. */
#define generation()	__atomic_load_n(self->word, __ATOMIC_ACQUIRE)

/* Changes the generation, and returns what it is then. */
#define change()	change_by(_metadata, self->overseer, self->word)

static uint32_t change_by(struct __test_metadata *_metadata, int fd,
			  const uint32_t *word)
{
	uint32_t expected = next_generation(__atomic_load_n(word, __ATOMIC_ACQUIRE));

	ASSERT_EQ(0, trigger(fd, 0));
	ASSERT_EQ(expected, __atomic_load_n(word, __ATOMIC_ACQUIRE));
	return expected;
}

static int open_node(struct __test_metadata *_metadata, int flags)
{
	int fd = open(NODE, flags | O_CLOEXEC);

	ASSERT_LE(0, fd);
	return fd;
}

/* An address that can neither be read nor written, after a page that can. */
static char *guarded_page(struct __test_metadata *_metadata)
{
	long page = sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)map);
	ASSERT_EQ(0, mprotect(map + page, page, PROT_NONE));
	return map + page;
}

/* Node and open. */

TEST_F(sysgenid, node_mode)
{
	struct stat st;

	ASSERT_EQ(0, stat(NODE, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0666U, st.st_mode & 07777);
}

TEST_F(sysgenid, open_by_anybody)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (setgid(NOBODY) || setuid(NOBODY))
				_exit(CHILD_SKIP);
			_exit(open(NODE, modes[i]) < 0 ? errno : 0);
		}
		EXPECT_EQ(0, child_status(pid)) {
			TH_LOG("access mode %d", modes[i]);
		}
	}
}

TEST_F(sysgenid, open_is_acked_and_untracked)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	struct fdinfo before, info;
	uint32_t now;
	unsigned int i;
	int fd;

	/* Whatever the others are: a new watcher begins anew. */
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	now = change();
	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		fd = open_node(_metadata, modes[i]);
		EXPECT_TRUE(is_acked(fd));
		ASSERT_TRUE(read_fdinfo(fd, &info));
		EXPECT_EQ(now, info.acked);
		EXPECT_EQ(0U, info.outdated);
		EXPECT_EQ(0U, info.tracked);
		EXPECT_EQ(before.watchers, info.watchers);
	}
}

TEST_F(sysgenid, access_mode_is_kept)
{
	uint32_t value = change();
	int reader = open_node(_metadata, O_RDONLY);
	int writer = open_node(_metadata, O_WRONLY);

	EXPECT_EQ(-1, ack(reader, value));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, read(writer, &value, sizeof(value)));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, PROT_READ, MAP_SHARED, writer, 0));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, PROT_READ, MAP_PRIVATE, writer, 0));
	EXPECT_EQ(EACCES, errno);

	/* What an overseer does takes no access. */
	EXPECT_EQ(0, ioctl(reader, SYSGENID_TRIGGER_GEN_UPDATE, 0UL));
	EXPECT_EQ(0, ioctl(writer, SYSGENID_TRIGGER_GEN_UPDATE, 0UL));
	EXPECT_EQ(0, ioctl(reader, SYSGENID_SETTLE, 0UL));

	/* A writer needs no read to ack what it saw elsewhere. */
	value = change();
	EXPECT_TRUE(is_outdated(writer));
	EXPECT_EQ(0, ack(writer, value));
	EXPECT_TRUE(is_acked(writer));
}

/* read */

TEST_F(sysgenid, read_sizes)
{
	uint32_t now = change();
	uint32_t buf[4] = {};
	size_t n;

	EXPECT_EQ(0, read(self->watcher, buf, 0));
	for (n = 1; n < sizeof(uint32_t); n++) {
		EXPECT_EQ(-1, read(self->watcher, buf, n));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0U, buf[0]);
	for (n = sizeof(uint32_t); n <= sizeof(buf); n++) {
		memset(buf, 0xa5, sizeof(buf));
		EXPECT_EQ((ssize_t)sizeof(uint32_t), read(self->watcher, buf, n));
		EXPECT_EQ(now, buf[0]);
		/* Four bytes, whatever there is room for. */
		EXPECT_EQ(0xa5a5a5a5U, buf[1]);
	}
}

TEST_F(sysgenid, read_sizes_while_acked)
{
	uint32_t buf = 0;
	size_t n;

	/* A blocking descriptor: neither of these may sleep. */
	EXPECT_EQ(0, read(self->watcher, &buf, 0));
	for (n = 1; n < sizeof(buf); n++) {
		EXPECT_EQ(-1, read(self->watcher, &buf, n));
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F(sysgenid, read_never_acks)
{
	uint32_t now, value;
	int i;

	now = change();
	for (i = 0; i < 3; i++) {
		value = ~now;
		EXPECT_EQ((ssize_t)sizeof(value),
			  read(self->watcher, &value, sizeof(value)));
		EXPECT_EQ(now, value);
		EXPECT_TRUE(is_outdated(self->watcher));
	}

	/* The current generation, not the one that made the watcher outdated. */
	now = change();
	EXPECT_EQ((ssize_t)sizeof(value), read(self->watcher, &value, sizeof(value)));
	EXPECT_EQ(now, value);
}

/* Ways to cut the four bytes of a generation, and pieces that are none. */
static const size_t cuts[][4] = {
	{ 1, 3 }, { 3, 1 }, { 2, 2 }, { 1, 1, 1, 1 }, { 0, 4 }, { 2, 0, 1, 1 },
};

/* Lays pieces of these sizes over @bytes, one after the other. */
static void cut(struct iovec iov[4], void *bytes, const size_t sizes[4])
{
	char *p = bytes;
	int i;

	for (i = 0; i < 4; i++) {
		iov[i].iov_base = p;
		iov[i].iov_len = sizes[i];
		p += sizes[i];
	}
}

TEST_F(sysgenid, read_in_pieces)
{
	static const size_t too_short[4] = { 1, 1, 1 };
	static const size_t long_enough[4] = { 3, 3, 1, 1 };
	uint32_t now = change();
	struct iovec iov[4];
	uint32_t value[2];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cuts); i++) {
		value[0] = ~now;
		cut(iov, value, cuts[i]);
		EXPECT_EQ((ssize_t)sizeof(now), readv(self->watcher, iov, 4));
		EXPECT_EQ(now, value[0]) {
			TH_LOG("pieces, way %u", i);
		}
	}
	cut(iov, value, too_short);
	EXPECT_EQ(-1, readv(self->watcher, iov, 4));
	EXPECT_EQ(EINVAL, errno);

	memset(value, 0xa5, sizeof(value));
	cut(iov, value, long_enough);
	EXPECT_EQ((ssize_t)sizeof(now), readv(self->watcher, iov, 4));
	EXPECT_EQ(now, value[0]);
	EXPECT_EQ(0xa5a5a5a5U, value[1]);
	EXPECT_TRUE(is_outdated(self->watcher));
}

TEST_F(sysgenid, read_without_position)
{
	uint32_t now = change(), value = ~now;
	struct iovec iov = { &value, sizeof(value) };

	/* -1 is the position of the file, which the device does not need. */
	EXPECT_EQ((ssize_t)sizeof(value), preadv2(self->watcher, &iov, 1, -1, 0));
	EXPECT_EQ(now, value);
	EXPECT_EQ(-1, preadv2(self->watcher, &iov, 1, 0, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, preadv2(self->watcher, &iov, 1, 0, RWF_NOWAIT));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwritev2(self->watcher, &iov, 1, 0, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_TRUE(is_outdated(self->watcher));
	EXPECT_EQ((ssize_t)sizeof(value), pwritev2(self->watcher, &iov, 1, -1, 0));
	EXPECT_TRUE(is_acked(self->watcher));
}

TEST_F(sysgenid, read_nonblock)
{
	int fd = open_node(_metadata, O_RDWR | O_NONBLOCK);
	uint32_t now, value;

	EXPECT_EQ(-1, read(fd, &value, sizeof(value)));
	EXPECT_EQ(EAGAIN, errno);
	now = change();
	EXPECT_EQ((ssize_t)sizeof(value), read(fd, &value, sizeof(value)));
	EXPECT_EQ(now, value);
	EXPECT_EQ(0, ack(fd, now));
	EXPECT_EQ(-1, read(fd, &value, sizeof(value)));
	EXPECT_EQ(EAGAIN, errno);

	/* The flag counts as it is now, not as it was at open. */
	ASSERT_EQ(0, fcntl(self->watcher, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(-1, read(self->watcher, &value, sizeof(value)));
	EXPECT_EQ(EAGAIN, errno);
}

TEST_F(sysgenid, read_nowait)
{
	uint32_t now, value;
	struct iovec iov = { &value, sizeof(value) };

	EXPECT_EQ(-1, preadv2(self->watcher, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	now = change();
	EXPECT_EQ((ssize_t)sizeof(value),
		  preadv2(self->watcher, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(now, value);
}

TEST_F(sysgenid, read_bad_buffer)
{
	char *bad = guarded_page(_metadata);
	uint32_t now = change();
	uint32_t value = 0;

	EXPECT_EQ(-1, read(self->watcher, bad, sizeof(value)));
	EXPECT_EQ(EFAULT, errno);
	/* Two of the four bytes would fit: still nothing is consumed. */
	EXPECT_EQ(-1, read(self->watcher, bad - 2, sizeof(value)));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(is_outdated(self->watcher));
	EXPECT_EQ((ssize_t)sizeof(value), read(self->watcher, &value, sizeof(value)));
	EXPECT_EQ(now, value);
}

TEST_F(sysgenid, read_blocks_until_outdated)
{
	struct sleeper s = { .fd = self->watcher, .nr = __NR_read, .word = self->word };
	uint32_t now;

	start_sleeper(_metadata, &s);
	expect_asleep(_metadata, &s);
	now = change();
	finish_sleeper(_metadata, &s);
	EXPECT_EQ((int)sizeof(now), s.ret);
	EXPECT_EQ(now, s.value);
	EXPECT_EQ(now, s.seen);
}

TEST_F(sysgenid, read_blocks_again_after_ack)
{
	struct sleeper s = { .fd = self->watcher, .nr = __NR_read, .word = self->word };
	uint32_t now = change();

	ASSERT_EQ(0, ack(self->watcher, now));
	start_sleeper(_metadata, &s);
	expect_asleep(_metadata, &s);
	now = change();
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(now, s.value);
}

static void on_signal(int sig)
{
	(void)sig;
}

static void catch_usr1(struct __test_metadata *_metadata, int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
}

TEST_F(sysgenid, read_interrupted)
{
	struct sleeper s = { .fd = self->watcher, .nr = __NR_read, .word = self->word };

	catch_usr1(_metadata, 0);
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, pthread_kill(s.thread, SIGUSR1));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(-1, s.ret);
	EXPECT_EQ(EINTR, s.err);
	EXPECT_TRUE(is_acked(self->watcher));
}

TEST_F(sysgenid, read_restarts)
{
	struct sleeper s = { .fd = self->watcher, .nr = __NR_read, .word = self->word };
	uint32_t now;

	catch_usr1(_metadata, SA_RESTART);
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, pthread_kill(s.thread, SIGUSR1));
	sleep_ms(SETTLE_MS);
	ASSERT_TRUE(wait_until_sleeps_in(s.tid, s.nr));
	now = change();
	finish_sleeper(_metadata, &s);
	EXPECT_EQ((int)sizeof(now), s.ret);
	EXPECT_EQ(now, s.value);
}

#define SIGNAL_ROUNDS	200

static void *signal_main(void *data)
{
	struct sleeper *s = data;

	pthread_kill(s->thread, SIGUSR1);
	return NULL;
}

/*
 * A call that is met by an event and by a signal: by one before the other, or by
 * both at once. Rounds differ in the order, and in whether the call is asleep by
 * then, or only about to be made. The event comes between begin and end.
 */
struct meeting {
	unsigned int round;
	struct sleeper s;
	pthread_t other;
};

static void begin_meeting(struct __test_metadata *_metadata, struct meeting *m)
{
	if (m->round & 1)
		start_sleeper(_metadata, &m->s);
	else
		ASSERT_EQ(0, pthread_create(&m->s.thread, NULL, sleeper_main, &m->s));
	if (m->round % 3 == 0)
		ASSERT_EQ(0, pthread_kill(m->s.thread, SIGUSR1));
	if (m->round % 3 == 1)
		ASSERT_EQ(0, pthread_create(&m->other, NULL, signal_main, &m->s));
}

static void end_meeting(struct __test_metadata *_metadata, struct meeting *m)
{
	if (m->round % 3 == 1)
		ASSERT_EQ(0, pthread_join(m->other, NULL));
	if (m->round % 3 == 2)
		ASSERT_EQ(0, pthread_kill(m->s.thread, SIGUSR1));
	finish_sleeper(_metadata, &m->s);
}

TEST_F(sysgenid, read_interrupted_by_a_change_too)
{
	unsigned int round, interrupted = 0;
	uint32_t now = 0, value;

	catch_usr1(_metadata, 0);
	for (round = 0; round < SIGNAL_ROUNDS; round++) {
		struct meeting m = {
			.round = round,
			.s = {
				.fd = self->watcher, .nr = __NR_read,
				.word = self->word,
			},
		};

		begin_meeting(_metadata, &m);
		now = change();
		end_meeting(_metadata, &m);
		if (m.s.ret < 0) {
			interrupted++;
			ASSERT_EQ(EINTR, m.s.err);
			/* The change is not lost. */
			ASSERT_EQ((ssize_t)sizeof(value),
				  read(self->watcher, &value, sizeof(value)));
			ASSERT_EQ(now, value);
		} else {
			ASSERT_EQ((int)sizeof(now), m.s.ret);
			ASSERT_EQ(now, m.s.value);
		}
		ASSERT_EQ(0, ack(self->watcher, now));
	}
	TH_LOG("%u of %u reads interrupted", interrupted, SIGNAL_ROUNDS);
}

TEST_F(sysgenid, read_restarts_and_sees_a_change)
{
	unsigned int round;
	uint32_t now = 0;

	catch_usr1(_metadata, SA_RESTART);
	for (round = 0; round < SIGNAL_ROUNDS; round++) {
		struct meeting m = {
			.round = round,
			.s = {
				.fd = self->watcher, .nr = __NR_read,
				.word = self->word,
			},
		};

		begin_meeting(_metadata, &m);
		now = change();
		end_meeting(_metadata, &m);
		ASSERT_EQ((int)sizeof(now), m.s.ret) {
			TH_LOG("%s", strerror(m.s.err));
		}
		ASSERT_EQ(now, m.s.value);
		ASSERT_EQ(0, ack(self->watcher, now));
	}
}

TEST_F(sysgenid, change_wakes_everybody)
{
	/* Three watchers of their own, and three threads that share one. */
	struct sleeper s[6] = {};
	unsigned int i;
	uint32_t now;

	for (i = 0; i < ARRAY_SIZE(s); i++) {
		s[i].fd = i < 3 ? open_node(_metadata, O_RDWR) : self->watcher;
		s[i].nr = i % 2 ? NR_POLL : __NR_read;
		s[i].word = self->word;
		start_sleeper(_metadata, &s[i]);
	}
	now = change();
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		finish_sleeper(_metadata, &s[i]);
		EXPECT_LT(0, s[i].ret);
		EXPECT_EQ(now, s[i].seen);
		if (s[i].nr == __NR_read)
			EXPECT_EQ(now, s[i].value);
	}
}

/* write */

TEST_F(sysgenid, write_sizes)
{
	static const size_t sizes[] = { 0, 1, 2, 3, 5, 8, 4096 };
	uint32_t now = change();
	uint32_t buf[1024];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buf); i++)
		buf[i] = now;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(-1, write(self->watcher, buf, sizes[i])) {
			TH_LOG("size %zu", sizes[i]);
		}
		EXPECT_EQ(ENOBUFS, errno);
		EXPECT_TRUE(is_outdated(self->watcher));
	}
}

TEST_F(sysgenid, write_bad_buffer)
{
	char *bad = guarded_page(_metadata);
	uint32_t now = change();

	EXPECT_EQ(-1, write(self->watcher, bad, sizeof(now)));
	EXPECT_EQ(EFAULT, errno);
	memcpy(bad - 2, &now, 2);
	EXPECT_EQ(-1, write(self->watcher, bad - 2, sizeof(now)));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(is_outdated(self->watcher));
}

TEST_F(sysgenid, write_other_value)
{
	uint32_t before = generation();
	uint32_t now = change();

	/* Outdated stays outdated. */
	EXPECT_EQ(-1, ack(self->watcher, before));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ack(self->watcher, next_generation(now)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(is_outdated(self->watcher));

	/* Acked stays acked. */
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(-1, ack(self->watcher, before));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(is_acked(self->watcher));
}

TEST_F(sysgenid, write_acks)
{
	uint32_t now = change();
	int other = open_node(_metadata, O_RDWR);
	struct fdinfo info;

	EXPECT_EQ(0, ack(self->watcher, now));
	EXPECT_TRUE(is_acked(self->watcher));
	EXPECT_EQ(0, ack(self->watcher, now));
	EXPECT_TRUE(is_acked(self->watcher));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(now, info.acked);

	/* For itself, and for nobody else. */
	now = change();
	EXPECT_EQ(0, ack(self->watcher, now));
	EXPECT_TRUE(is_acked(self->watcher));
	EXPECT_TRUE(is_outdated(other));
	EXPECT_EQ(now, generation());
}

TEST_F(sysgenid, write_in_pieces)
{
	static const size_t wrong[][4] = { { 1, 1, 1 }, { 2, 2, 1 }, { 4, 4 } };
	struct iovec iov[4];
	uint32_t value[2];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cuts); i++) {
		value[0] = change();
		cut(iov, value, cuts[i]);
		EXPECT_EQ((ssize_t)sizeof(*value), writev(self->watcher, iov, 4)) {
			TH_LOG("pieces, way %u", i);
		}
		EXPECT_TRUE(is_acked(self->watcher));
	}
	value[0] = change();
	value[1] = value[0];
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		cut(iov, value, wrong[i]);
		EXPECT_EQ(-1, writev(self->watcher, iov, 4));
		EXPECT_EQ(ENOBUFS, errno);
		EXPECT_TRUE(is_outdated(self->watcher));
	}
}

TEST_F(sysgenid, no_position)
{
	uint32_t now = change();
	uint32_t value = now;

	EXPECT_EQ(-1, lseek(self->watcher, 0, SEEK_SET));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, lseek(self->watcher, 0, SEEK_CUR));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pread(self->watcher, &value, sizeof(value), 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwrite(self->watcher, &value, sizeof(value), 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_TRUE(is_outdated(self->watcher));
}

/* poll, select, epoll */

TEST_F(sysgenid, poll_level)
{
	uint32_t now;

	EXPECT_EQ(0, events_now(self->watcher));
	now = change();
	EXPECT_EQ(POLLIN | POLLRDNORM, events_now(self->watcher));
	EXPECT_EQ(POLLIN | POLLRDNORM, events_now(self->watcher));
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(0, events_now(self->watcher));
}

TEST_F(sysgenid, poll_woken)
{
	struct sleeper s = { .fd = self->watcher, .nr = NR_POLL, .word = self->word };
	uint32_t now;

	start_sleeper(_metadata, &s);
	expect_asleep(_metadata, &s);
	now = change();
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(1, s.ret);
	EXPECT_EQ(POLLIN | POLLRDNORM, s.revents);
	EXPECT_EQ(now, s.seen);
}

TEST_F(sysgenid, select_level)
{
	struct timeval none = {};
	fd_set in, out;
	uint32_t now;
	int i;

	for (i = 0; i < 2; i++) {
		now = change();
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_SET(self->watcher, &in);
		FD_SET(self->watcher, &out);
		EXPECT_EQ(1, select(self->watcher + 1, &in, &out, NULL, &none));
		EXPECT_TRUE(FD_ISSET(self->watcher, &in));
		ASSERT_EQ(0, ack(self->watcher, now));
		FD_ZERO(&in);
		FD_SET(self->watcher, &in);
		EXPECT_EQ(0, select(self->watcher + 1, &in, NULL, NULL, &none));
	}
}

static int epoll_with(struct __test_metadata *_metadata, int fd, uint32_t flags)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDNORM | flags };
	int ep = epoll_create1(EPOLL_CLOEXEC);

	ASSERT_LE(0, ep);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	return ep;
}

TEST_F(sysgenid, epoll_level)
{
	int ep = epoll_with(_metadata, self->watcher, 0);
	struct epoll_event ev = {};
	uint32_t now;
	int i;

	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	now = change();
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		EXPECT_EQ((uint32_t)(EPOLLIN | EPOLLRDNORM), ev.events);
	}
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
}

TEST_F(sysgenid, epoll_edge)
{
	int ep = epoll_with(_metadata, self->watcher, EPOLLET);
	struct epoll_event ev = {};
	uint32_t now = 0;
	int i;

	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	/* One edge a change, acked or not. */
	for (i = 0; i < 3; i++) {
		now = change();
		EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		EXPECT_EQ((uint32_t)(EPOLLIN | EPOLLRDNORM), ev.events);
		EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	}
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	change();
	EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
}

/* A thread in epoll_wait(), which can be told to go. */
struct epoll_sleeper {
	int ep;
	int fd;			/* the descriptor that is waited on */
	int leave[2];		/* a pipe: what is written there ends the wait */
	pthread_t thread;
	pid_t tid;
	bool woken;		/* by @fd */
};

static void *epoll_sleeper_main(void *data)
{
	struct epoll_sleeper *s = data;
	struct epoll_event ev[2];
	int i, n;

	__atomic_store_n(&s->tid, (pid_t)syscall(__NR_gettid), __ATOMIC_RELEASE);
	n = epoll_wait(s->ep, ev, ARRAY_SIZE(ev), -1);
	for (i = 0; i < n; i++)
		if (ev[i].data.fd == s->fd)
			__atomic_store_n(&s->woken, true, __ATOMIC_RELEASE);
	return NULL;
}

static void start_exclusive(struct __test_metadata *_metadata,
			    struct epoll_sleeper *s)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE };

	s->ep = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, s->ep);
	ev.data.fd = s->fd;
	ASSERT_EQ(0, epoll_ctl(s->ep, EPOLL_CTL_ADD, s->fd, &ev));
	ASSERT_EQ(0, pipe2(s->leave, O_CLOEXEC));
	ev.events = EPOLLIN;
	ev.data.fd = s->leave[0];
	ASSERT_EQ(0, epoll_ctl(s->ep, EPOLL_CTL_ADD, s->leave[0], &ev));
	ASSERT_EQ(0, pthread_create(&s->thread, NULL, epoll_sleeper_main, s));
	expect_to_sleep(_metadata, &s->tid, NR_EPOLL);
}

/* Whether the watcher is ready in its set at this moment. */
static bool ready_in_set(const struct epoll_sleeper *s)
{
	struct epoll_event ev[2];
	int i, n = epoll_wait(s->ep, ev, ARRAY_SIZE(ev), 0);

	for (i = 0; i < n; i++)
		if (ev[i].data.fd == s->fd)
			return true;
	return false;
}

static bool was_woken(const struct epoll_sleeper *s)
{
	return __atomic_load_n(&s->woken, __ATOMIC_ACQUIRE);
}

TEST_F(sysgenid, epoll_exclusive_one_watcher)
{
	struct epoll_sleeper s[2] = {
		{ .fd = self->watcher }, { .fd = self->watcher },
	};
	uint64_t end;
	uint32_t now;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		start_exclusive(_metadata, &s[i]);
	now = change();
	end = now_ms() + LIMIT_MS;
	while (!was_woken(&s[0]) && !was_woken(&s[1]) && now_ms() < end)
		sleep_ms(1);
	/* One is enough to be woken, but everybody can see why. */
	EXPECT_TRUE(was_woken(&s[0]) || was_woken(&s[1]));
	for (i = 0; i < ARRAY_SIZE(s); i++)
		EXPECT_TRUE(ready_in_set(&s[i]));
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		ASSERT_EQ(1, write(s[i].leave[1], "", 1));
		join_sleeper(_metadata, s[i].thread, NR_EPOLL);
	}
	ASSERT_EQ(0, ack(self->watcher, now));
	for (i = 0; i < ARRAY_SIZE(s); i++)
		EXPECT_FALSE(ready_in_set(&s[i]));
}

TEST_F(sysgenid, epoll_exclusive_two_watchers)
{
	struct epoll_sleeper s[2] = {
		{ .fd = self->watcher }, { .fd = open_node(_metadata, O_RDWR) },
	};
	unsigned int i;

	/* Exclusive is among those who share a watcher: these do not. */
	for (i = 0; i < ARRAY_SIZE(s); i++)
		start_exclusive(_metadata, &s[i]);
	change();
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		join_sleeper(_metadata, s[i].thread, NR_EPOLL);
		EXPECT_TRUE(was_woken(&s[i]));
	}
}

TEST_F(sysgenid, epoll_forgets_a_closed_watcher)
{
	struct epoll_event ev = {};
	int ep, fd, i;

	for (i = 0; i < 2; i++) {
		fd = open_node(_metadata, O_RDWR);
		ep = epoll_with(_metadata, fd, 0);
		/* The second time, when it is already known to be ready. */
		if (i) {
			change();
			EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		}
		ASSERT_EQ(0, close(fd));
		EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
		change();
		EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
		EXPECT_EQ(-1, epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
		EXPECT_EQ(EBADF, errno);

		/* The set itself is as good as before. */
		ev.events = EPOLLIN;
		ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->watcher, &ev));
		EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		ASSERT_EQ(0, ack(self->watcher, generation()));
		EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	}
}

TEST_F(sysgenid, epoll_of_a_dup)
{
	struct epoll_event ev[3] = {};
	int fd = dup(self->watcher);
	uint32_t now;
	int ep;

	/* One set has both, and both are the same watcher. */
	ASSERT_LE(0, fd);
	ep = epoll_with(_metadata, fd, 0);
	ev[0].events = EPOLLIN;
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->watcher, &ev[0]));
	now = change();
	EXPECT_EQ(2, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(0, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));

	/* What was asked for by the dup outlives the original. */
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_DEL, self->watcher, NULL));
	ASSERT_EQ(0, close(self->watcher));
	now = change();
	EXPECT_EQ(1, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));
	ASSERT_EQ(0, ack(fd, now));
	EXPECT_EQ(0, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));
	change();
	EXPECT_EQ(1, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(0, epoll_wait(ep, ev, ARRAY_SIZE(ev), 0));
}

/* io_uring, by hand: a bare guest has no liburing. */

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array;
	unsigned int *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static bool ring_setup(struct ring *r)
{
	struct io_uring_params p = {};
	char *sq, *cq;

	r->fd = syscall(__NR_io_uring_setup, 4, &p);
	if (r->fd < 0)
		return false;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned int),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes),
		       PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		return false;
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_mask = (void *)(sq + p.sq_off.ring_mask);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = (void *)(cq + p.cq_off.ring_mask);
	r->cqes = (void *)(cq + p.cq_off.cqes);
	return true;
}

static int ring_submit(struct ring *r, const struct io_uring_sqe *sqe)
{
	unsigned int tail = *r->sq_tail;

	r->sqes[tail & *r->sq_mask] = *sqe;
	r->sq_array[tail & *r->sq_mask] = tail & *r->sq_mask;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	return syscall(__NR_io_uring_enter, r->fd, 1, 0, 0, NULL, 0);
}

static bool ring_has_result(struct ring *r)
{
	/* Runs what the kernel left for this thread to complete. */
	syscall(__NR_io_uring_enter, r->fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	return *r->cq_head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE);
}

static int ring_result(struct ring *r)
{
	unsigned int head = *r->cq_head;
	int res;

	while (!ring_has_result(r))
		syscall(__NR_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS,
			NULL, 0);
	res = r->cqes[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return res;
}

/* Threads of this process, the kernel's io_uring workers among them. */
static unsigned long thread_count(void)
{
	unsigned long threads = 0;
	char line[128];
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Threads: %lu", &threads) == 1)
			break;
	if (file)
		fclose(file);
	return threads;
}

TEST_F(sysgenid, io_uring_read)
{
	uint32_t now, value = 0;
	struct ring ring;
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_READ,
		.fd = self->watcher,
		.addr = (uintptr_t)&value,
		.len = sizeof(value),
		.off = -1,
	};

	if (!ring_setup(&ring))
		SKIP(return, "no io_uring: %s", strerror(errno));
	ASSERT_EQ(1UL, thread_count());
	ASSERT_EQ(1, ring_submit(&ring, &sqe));
	sleep_ms(SETTLE_MS);
	EXPECT_FALSE(ring_has_result(&ring));
	/* It waits as a poller does: no worker thread sleeps in read(). */
	EXPECT_EQ(1UL, thread_count());
	now = change();
	EXPECT_EQ((int)sizeof(value), ring_result(&ring));
	EXPECT_EQ(now, value);
}

TEST_F(sysgenid, io_uring_read_while_outdated)
{
	uint32_t now, value = 0;
	struct ring ring;
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_READ,
		.fd = self->watcher,
		.addr = (uintptr_t)&value,
		.len = sizeof(value),
		.off = -1,
	};

	if (!ring_setup(&ring))
		SKIP(return, "no io_uring: %s", strerror(errno));
	now = change();
	ASSERT_EQ(1, ring_submit(&ring, &sqe));
	/* There is nothing to wait for, so it is done by now. */
	EXPECT_TRUE(ring_has_result(&ring));
	EXPECT_EQ((int)sizeof(value), ring_result(&ring));
	EXPECT_EQ(now, value);
	EXPECT_TRUE(is_outdated(self->watcher));

	sqe.opcode = IORING_OP_WRITE;
	ASSERT_EQ(1, ring_submit(&ring, &sqe));
	EXPECT_EQ((int)sizeof(value), ring_result(&ring));
	EXPECT_TRUE(is_acked(self->watcher));
	EXPECT_EQ(1UL, thread_count());
}

TEST_F(sysgenid, io_uring_poll)
{
	struct ring ring;
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_POLL_ADD,
		.fd = self->watcher,
		.poll32_events = POLLIN | POLLRDNORM,
	};

	if (!ring_setup(&ring))
		SKIP(return, "no io_uring: %s", strerror(errno));
	ASSERT_EQ(1, ring_submit(&ring, &sqe));
	sleep_ms(SETTLE_MS);
	EXPECT_FALSE(ring_has_result(&ring));
	EXPECT_EQ(1UL, thread_count());
	change();
	EXPECT_EQ(POLLIN | POLLRDNORM, ring_result(&ring));
}

/* mmap */

TEST_F(sysgenid, mmap_forms)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	static const int modes[] = { O_RDONLY, O_RDWR };
	uint32_t now = change();
	const uint32_t *map[4];
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(map); i++) {
		void *p = mmap(NULL, self->page, PROT_READ, flags[i % 2],
			       open_node(_metadata, modes[i / 2]), 0);

		ASSERT_NE(MAP_FAILED, p);
		map[i] = p;
		EXPECT_EQ(now, map[i][0]);
		for (j = sizeof(struct sysgenid_page) / sizeof(uint32_t);
		     j < self->page / sizeof(uint32_t); j++)
			ASSERT_EQ(0U, map[i][j]);
	}

	/* All of them follow, the private ones too. */
	now = change();
	for (i = 0; i < ARRAY_SIZE(map); i++)
		EXPECT_EQ(now, __atomic_load_n(map[i], __ATOMIC_ACQUIRE));
}

TEST_F(sysgenid, mmap_four_bytes)
{
	/* This is how AWS-LC asks. */
	int fd = open_node(_metadata, O_RDONLY);
	const uint32_t *map = mmap(NULL, sizeof(*map), PROT_READ, MAP_SHARED, fd, 0);

	ASSERT_NE(MAP_FAILED, (const void *)map);
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(generation(), *map);
}

TEST_F(sysgenid, mmap_other_forms)
{
	expect_no_other_mapping(_metadata, self->watcher, self->page, 1);
}

TEST_F(sysgenid, mmap_executable)
{
	expect_not_executable(_metadata, self->watcher, self->page, 0);
}

TEST_F(sysgenid, mmap_of_the_node)
{
	expect_mapping_of_the_node(_metadata, NODE, (void *)self->word, self->page);
}

/* Opened through the link, it is a watcher like any other. */
TEST_F(sysgenid, mmap_is_opened_as_a_watcher)
{
	char path[64];
	uint32_t now;
	int fd;

	change();
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx",
		 (unsigned long)self->word, (unsigned long)self->word + self->page);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_TRUE(is_acked(fd));
	now = change();
	EXPECT_TRUE(is_outdated(fd));
	EXPECT_EQ(0, ack(fd, now));
	EXPECT_TRUE(is_outdated(self->watcher));
}

/* The page has more than the generation, and all of it is of the same change. */
TEST_F(sysgenid, mmap_shows_flags_and_epoch)
{
	const struct sysgenid_page *page = (const void *)self->word;
	struct fdinfo info;
	uint64_t epoch;
	uint32_t now;
	int i;

	EXPECT_EQ(&page->generation, self->word);
	for (i = 0; i < 3; i++) {
		epoch = page->epoch;
		now = change();
		EXPECT_EQ(now, page->generation);
		EXPECT_EQ(epoch + 1, page->epoch);
		EXPECT_EQ(SYSGENID_FLAG_FIELDS, page->flags & ~SYSGENID_FLAG_RESEEDED);
		ASSERT_TRUE(read_fdinfo(self->watcher, &info));
		EXPECT_EQ(page->epoch, info.epoch);
		EXPECT_EQ(page->flags & SYSGENID_FLAG_RESEEDED,
			  info.reseeded * SYSGENID_FLAG_RESEEDED);
	}
	/* The random number generator of a machine in which there are tests is ready. */
	EXPECT_EQ(has_id(), info.reseeded);
	/* Nor does it change by what changes nothing. */
	epoch = page->epoch;
	EXPECT_EQ(-1, ack(self->watcher, generation() + 1));
	EXPECT_EQ(0, ack(self->watcher, generation()));
	EXPECT_EQ(epoch, page->epoch);
}

TEST_F(sysgenid, mmap_writable)
{
	int reader = open_node(_metadata, O_RDONLY);
	int prot = PROT_READ | PROT_WRITE;

	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, prot, MAP_SHARED,
				   self->watcher, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, prot, MAP_PRIVATE,
				   self->watcher, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, prot, MAP_PRIVATE, reader, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->page, prot, MAP_SHARED, reader, 0));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(sysgenid, mmap_stays_read_only)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	uint32_t before;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		uint32_t *map = mmap(NULL, self->page, PROT_READ, flags[i],
				     self->watcher, 0);

		ASSERT_NE(MAP_FAILED, (void *)map);
		before = *map;
		expect_read_only(_metadata, map, self->page);
		EXPECT_EQ(before, *map);
		EXPECT_EQ(before, generation());
		EXPECT_EQ(change(), *map);
	}
}

TEST_F(sysgenid, mmap_survives_madvise)
{
	uint32_t *map = mmap(NULL, self->page, PROT_READ, MAP_SHARED,
			     self->watcher, 0);

	/* Refused or not: the page must not be lost. */
	ASSERT_NE(MAP_FAILED, (void *)map);
	madvise(map, self->page, MADV_DONTNEED);
	EXPECT_EQ(change(), *map);
}

TEST_F(sysgenid, mmap_outlives_close)
{
	uint32_t *map = mmap(NULL, self->page, PROT_READ, MAP_SHARED,
			     self->watcher, 0);

	ASSERT_NE(MAP_FAILED, (void *)map);
	ASSERT_EQ(0, close(self->watcher));
	EXPECT_EQ(change(), *map);
}

TEST_F(sysgenid, mmap_keeps_no_watcher)
{
	struct fdinfo before, info;
	void *map;

	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	map = mmap(NULL, self->page, PROT_READ, MAP_SHARED, self->watcher, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, ack(self->overseer, change()));
	ASSERT_EQ(0, close(self->watcher));
	/* Whoever only looks at the page is not waited for. */
	EXPECT_EQ(0, wait_watchers(self->overseer, LIMIT_MS));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers, info.watchers);
}

TEST_F(sysgenid, mmap_outlives_fork)
{
	uint32_t before = generation();
	uint64_t end;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(self->overseer);
		close(self->watcher);
		end = now_ms() + LIMIT_MS;
		while (generation() == before && now_ms() < end)
			sleep_ms(1);
		_exit(generation() == next_generation(before) ? 0 : 1);
	}
	change();
	EXPECT_EQ(0, child_status(pid));
}

/* What a process that makes no system call has to tell. */
struct report {
	uint32_t spins;		/* counts while it looks */
	uint32_t seen;		/* the first new value, 0 until then */
};

/* Looks at the word, and does nothing else, until it changes. */
static void spin(const uint32_t *word, struct report *report)
{
	uint32_t before = __atomic_load_n(word, __ATOMIC_ACQUIRE), now;
	uint32_t spins = 0;

	do {
		__atomic_store_n(&report->spins, ++spins, __ATOMIC_RELEASE);
		now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	} while (now == before);
	__atomic_store_n(&report->seen, now, __ATOMIC_RELEASE);
	for (;;)
		;
}

TEST_F(sysgenid, mmap_without_a_system_call)
{
	struct report *report = mmap(NULL, self->page, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int i;
	uint32_t now;
	uint64_t end;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)report);
	/* The parent's mapping, and shared and private ones of its own. */
	for (i = 0; i < 3; i++) {
		memset(report, 0, sizeof(*report));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			const uint32_t *word = self->word;
			int fd = open(NODE, O_RDONLY);
			void *map;

			if (i) {
				map = mmap(NULL, sizeof(*word), PROT_READ,
					   i == 1 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
				if (fd < 0 || map == MAP_FAILED)
					_exit(1);
				word = map;
			}
			close(fd);
			close(self->overseer);
			close(self->watcher);
			spin(word, report);
		}
		end = now_ms() + LIMIT_MS;
		while (!__atomic_load_n(&report->spins, __ATOMIC_ACQUIRE) &&
		       now_ms() < end)
			sleep_ms(1);
		EXPECT_EQ(0U, __atomic_load_n(&report->seen, __ATOMIC_ACQUIRE));
		now = change();
		while (!__atomic_load_n(&report->seen, __ATOMIC_ACQUIRE) &&
		       now_ms() < end)
			sleep_ms(1);
		EXPECT_EQ(now, __atomic_load_n(&report->seen, __ATOMIC_ACQUIRE)) {
			TH_LOG("mapping %u", i);
		}
		EXPECT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(pid, waitpid(pid, NULL, 0));
	}
}

TEST_F(sysgenid, mmap_holds_the_module)
{
	void *map;
	long base;

	/* Leave one mapping, made below, as all that this process holds. */
	ASSERT_EQ(0, close(self->watcher));
	base = module_refcnt();
	if (base < 0)
		SKIP(return, "built into the kernel, or modules cannot be unloaded");
	self->watcher = open_node(_metadata, O_RDONLY);
	map = mmap(NULL, self->page, PROT_READ, MAP_SHARED, self->watcher, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, close(self->watcher));
	EXPECT_LT(base, module_refcnt());
	ASSERT_EQ(0, munmap(map, self->page));
	EXPECT_EQ(base, module_refcnt());
}

/* Descriptors that share a watcher. */

TEST_F(sysgenid, dup_shares_the_watcher)
{
	int fd = dup(self->watcher);
	uint32_t now;

	ASSERT_LE(0, fd);
	now = change();
	EXPECT_TRUE(is_outdated(fd));
	EXPECT_EQ(0, ack(fd, now));
	EXPECT_TRUE(is_acked(self->watcher));

	/* The watcher lives until the last of its descriptors is closed. */
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	ASSERT_EQ(0, close(self->watcher));
	now = change();
	ASSERT_EQ(0, ack(self->overseer, now));
	EXPECT_EQ(-1, wait_watchers(self->overseer, 1));
	EXPECT_EQ(ETIME, errno);
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(0, wait_watchers(self->overseer, LIMIT_MS));
}

TEST_F(sysgenid, fork_shares_the_watcher)
{
	uint32_t now = change();
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(ack(self->watcher, now) ? errno : 0);
	EXPECT_EQ(0, child_status(pid));
	EXPECT_TRUE(is_acked(self->watcher));
}

/* What is beside the byte in a message that carries a descriptor. */
union passing {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static bool send_fd(int sock, int fd)
{
	union passing control = {};
	char byte = 0;
	struct iovec iov = { &byte, sizeof(byte) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1;
}

static int receive_fd(int sock)
{
	union passing control = {};
	char byte;
	struct iovec iov = { &byte, sizeof(byte) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	int fd = -1;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* One side tells the other to go on, or waits to be told. */
static bool tell(int fd)
{
	return write(fd, "", 1) == 1;
}

static bool told(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 1;
}

/* A process that has nothing of the watcher but what it is given. */
static int receiver_main(int sock)
{
	int fd = receive_fd(sock);
	uint32_t value;

	if (fd < 0)
		return 1;
	if (set_tracking(fd, 1) || !tell(sock) || !told(sock))
		return 2;
	if (!is_outdated(fd) || read(fd, &value, sizeof(value)) != sizeof(value))
		return 3;
	if (ack(fd, value) || !tell(sock) || !told(sock))
		return 4;
	return 0;
}

TEST_F(sysgenid, passed_on_shares_the_watcher)
{
	struct fdinfo before, info;
	int sock[2];
	pid_t pid;

	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(self->overseer);
		close(self->watcher);
		close(sock[0]);
		_exit(receiver_main(sock[1]));
	}
	ASSERT_EQ(0, close(sock[1]));
	ASSERT_TRUE(send_fd(sock[0], self->watcher));
	ASSERT_TRUE(told(sock[0]));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(1U, info.tracked);
	EXPECT_EQ(before.watchers + 1, info.watchers);

	change();
	EXPECT_TRUE(is_outdated(self->watcher));
	ASSERT_TRUE(tell(sock[0]));
	ASSERT_TRUE(told(sock[0]));
	EXPECT_TRUE(is_acked(self->watcher));

	/* The receiver's is the last one, and goes with the receiver. */
	ASSERT_EQ(0, close(self->watcher));
	ASSERT_EQ(0, ack(self->overseer, change()));
	EXPECT_EQ(-1, wait_watchers(self->overseer, 1));
	EXPECT_EQ(ETIME, errno);
	ASSERT_TRUE(tell(sock[0]));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, wait_watchers(self->overseer, LIMIT_MS));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers, info.watchers);
}

TEST_F(sysgenid, passed_on_and_not_received)
{
	struct fdinfo before, info;
	int sock[2];

	/* A descriptor in a message that nobody has read is one too. */
	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	ASSERT_TRUE(send_fd(sock[0], self->watcher));
	ASSERT_EQ(0, close(self->watcher));
	ASSERT_EQ(0, ack(self->overseer, change()));
	EXPECT_EQ(-1, wait_watchers(self->overseer, 1));
	EXPECT_EQ(ETIME, errno);
	ASSERT_EQ(0, close(sock[0]));
	ASSERT_EQ(0, close(sock[1]));
	EXPECT_EQ(0, wait_watchers(self->overseer, LIMIT_MS));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers, info.watchers);
}

static const long sleeping_calls[] = { __NR_read, NR_POLL, __NR_ioctl };

/* Whether the call has ended as it does when there was a change to @now. */
static bool saw_change(const struct sleeper *s, uint32_t now)
{
	if (s->seen != now)
		return false;
	if (s->nr == __NR_read)
		return s->ret == sizeof(now) && s->value == now;
	if (s->nr == NR_POLL)
		return s->ret == 1 && s->revents == (POLLIN | POLLRDNORM);
	return s->ret == -1 && s->err == EINTR;
}

TEST_F(sysgenid, close_while_a_thread_sleeps)
{
	struct fdinfo before, info;
	bool poll_of_nothing;
	unsigned int i;
	uint32_t now;

	/* Without somebody to wait for, WAIT_WATCHERS would not sleep. */
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	change();
	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	for (i = 0; i < 2 * ARRAY_SIZE(sleeping_calls); i++) {
		struct sleeper s = { .nr = sleeping_calls[i / 2], .word = self->word };
		int fd = open_node(_metadata, O_RDWR);

		/* It sleeps on a descriptor of its own, or on the one that goes. */
		ASSERT_EQ(0, set_tracking(fd, 1));
		s.fd = i & 1 ? dup(fd) : fd;
		ASSERT_LE(0, s.fd);
		start_sleeper(_metadata, &s);
		ASSERT_EQ(0, close(fd));
		expect_asleep(_metadata, &s);
		ASSERT_TRUE(read_fdinfo(self->overseer, &info));
		EXPECT_EQ(before.watchers + 1, info.watchers);
		now = change();
		finish_sleeper(_metadata, &s);
		/* poll() looks the number up again: it is no descriptor any more. */
		poll_of_nothing = s.fd == fd && s.nr == NR_POLL;
		EXPECT_TRUE(poll_of_nothing ? s.revents == POLLNVAL :
					      saw_change(&s, now)) {
			TH_LOG("call %ld: %d, errno %d", s.nr, s.ret, s.err);
		}
		if (i & 1) {
			ASSERT_TRUE(read_fdinfo(self->overseer, &info));
			EXPECT_EQ(before.watchers + 1, info.watchers);
			ASSERT_EQ(0, close(s.fd));
		}
		ASSERT_TRUE(read_fdinfo(self->overseer, &info));
		EXPECT_EQ(before.watchers, info.watchers);
		EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
	}
}

TEST_F(sysgenid, close_while_a_child_sleeps)
{
	struct fdinfo before, info;
	unsigned int i;
	uint32_t now;
	int sock[2];
	pid_t pid;

	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	change();
	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	for (i = 0; i < ARRAY_SIZE(sleeping_calls); i++) {
		struct sleeper s = { .nr = sleeping_calls[i], .word = self->word };

		s.fd = open_node(_metadata, O_RDWR);
		ASSERT_EQ(0, set_tracking(s.fd, 1));
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
					sock));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			close(sock[0]);
			sleeper_main(&s);
			_exit(write(sock[1], &s, sizeof(s)) != sizeof(s) ||
			      !told(sock[1]));
		}
		ASSERT_EQ(0, close(sock[1]));
		ASSERT_TRUE(wait_until_sleeps_in(pid, s.nr));
		ASSERT_EQ(0, close(s.fd));
		sleep_ms(SETTLE_MS);
		EXPECT_TRUE(sleeps_in(pid, s.nr));
		now = change();
		ASSERT_EQ((ssize_t)sizeof(s), read(sock[0], &s, sizeof(s)));
		EXPECT_TRUE(saw_change(&s, now)) {
			TH_LOG("call %ld: %d, errno %d", s.nr, s.ret, s.err);
		}
		ASSERT_TRUE(read_fdinfo(self->overseer, &info));
		EXPECT_EQ(before.watchers + 1, info.watchers);
		ASSERT_TRUE(tell(sock[0]));
		EXPECT_EQ(0, child_status(pid));
		ASSERT_EQ(0, close(sock[0]));
		ASSERT_TRUE(read_fdinfo(self->overseer, &info));
		EXPECT_EQ(before.watchers, info.watchers);
		EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
	}
}

/* SET_WATCHER_TRACKING */

TEST_F(sysgenid, tracking_is_idempotent)
{
	static const unsigned long on[] = { 1, 1, 2, ULONG_MAX };
	struct fdinfo before, info;
	unsigned int i;

	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	EXPECT_EQ(0U, before.tracked);
	for (i = 0; i < ARRAY_SIZE(on); i++) {
		EXPECT_EQ(0, set_tracking(self->watcher, on[i]));
		ASSERT_TRUE(read_fdinfo(self->watcher, &info));
		EXPECT_EQ(1U, info.tracked);
		EXPECT_EQ(before.watchers + 1, info.watchers);
	}
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, set_tracking(self->watcher, 0));
		ASSERT_TRUE(read_fdinfo(self->watcher, &info));
		EXPECT_EQ(0U, info.tracked);
		EXPECT_EQ(before.watchers, info.watchers);
	}
}

/* A 32-bit program has no such argument. */
#ifdef __LP64__
TEST_F(sysgenid, tracking_needs_a_writer)
{
	int reader = open_node(_metadata, O_RDONLY);
	int writer = open_node(_metadata, O_WRONLY);
	struct fdinfo before, info;

	/* It could never ack. */
	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	EXPECT_EQ(-1, set_tracking(reader, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, set_tracking(reader, ULONG_MAX));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(0, set_tracking(reader, 0));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before.watchers, info.watchers);
	EXPECT_EQ(0, set_tracking(writer, 1));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before.watchers + 1, info.watchers);
}

TEST_F(sysgenid, tracking_takes_a_whole_long)
{
	struct fdinfo info;

	/* Non-zero, though the low 32 bits are zero. */
	EXPECT_EQ(0, set_tracking(self->watcher, 1UL << 32));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(1U, info.tracked);
}
#endif

TEST_F(sysgenid, tracking_counts)
{
	struct fdinfo before, info;
	uint32_t now;
	int other;

	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	other = open_node(_metadata, O_RDWR);
	ASSERT_EQ(0, set_tracking(other, 1));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers + 2, info.watchers);
	EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);

	/* Twice is still once. */
	now = change();
	now = change();
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.outdated_watchers + 2, info.outdated_watchers);
	ASSERT_EQ(0, ack(other, now));
	ASSERT_EQ(0, ack(other, now));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.outdated_watchers + 1, info.outdated_watchers);
	ASSERT_EQ(0, close(self->watcher));
	ASSERT_EQ(0, close(other));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers, info.watchers);
	EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
}

TEST_F(sysgenid, tracking_while_outdated)
{
	struct fdinfo before, info;
	uint32_t now;

	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	now = change();
	ASSERT_EQ(0, ack(self->overseer, now));
	EXPECT_EQ(0, wait_watchers(self->overseer, 1));

	/* On counts at once, off is enough to be released. */
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before.outdated_watchers + 1, info.outdated_watchers);
	EXPECT_EQ(-1, wait_watchers(self->overseer, 1));
	EXPECT_EQ(ETIME, errno);
	ASSERT_EQ(0, set_tracking(self->watcher, 0));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
	EXPECT_EQ(0, wait_watchers(self->overseer, LIMIT_MS));
	EXPECT_TRUE(is_outdated(self->watcher));
}

/* Turns tracking on and off, on a descriptor that others share. */
struct toggler {
	int fd;
	bool stop;
	unsigned long turns;
};

static void *toggler_main(void *data)
{
	struct toggler *t = data;
	unsigned long turn;

	for (turn = 0; !__atomic_load_n(&t->stop, __ATOMIC_RELAXED); turn++)
		set_tracking(t->fd, turn & 1);
	__atomic_add_fetch(&t->turns, turn, __ATOMIC_RELAXED);
	return NULL;
}

TEST_F(sysgenid, tracking_by_many_threads)
{
	struct toggler t = { .fd = self->watcher };
	struct fdinfo before, info;
	pthread_t thread[4];
	unsigned int i;

	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, toggler_main, &t));
	/* Changes in between make outdated what is being counted. */
	for (i = 0; i < 50; i++) {
		change();
		sleep_ms(1);
		if (i & 1)
			EXPECT_EQ(0, ack(self->watcher, generation()));
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	EXPECT_LT(50UL, t.turns);
	ASSERT_EQ(0, set_tracking(self->watcher, 0));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before.watchers, info.watchers);
	EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
}

#define TOGGLES		50000

/* As toggler_main(), but so many times, and then it is done. */
static void *count_toggles(void *data)
{
	struct toggler *t = data;
	unsigned long turn;

	for (turn = 0; turn < TOGGLES; turn++)
		set_tracking(t->fd, turn & 1);
	__atomic_add_fetch(&t->turns, turn, __ATOMIC_RELEASE);
	return NULL;
}

TEST_F_TIMEOUT(sysgenid, tracking_toggled_while_changing, 60)
{
	struct toggler t = { .fd = self->watcher };
	struct fdinfo before, info;
	pthread_t thread[2];
	unsigned int i;

	ASSERT_TRUE(read_fdinfo(self->overseer, &before));
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, count_toggles, &t));
	while (__atomic_load_n(&t.turns, __ATOMIC_ACQUIRE) !=
	       ARRAY_SIZE(thread) * TOGGLES) {
		change();
		ASSERT_TRUE(read_fdinfo(self->overseer, &info));
		ASSERT_LE(before.watchers, info.watchers);
		ASSERT_GE(before.watchers + 1, info.watchers);
		/* Nobody acks, so whoever is tracked is outdated. */
		ASSERT_EQ(before.outdated_watchers + info.watchers - before.watchers,
			  info.outdated_watchers);
		sleep_ms(2);
	}
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	ASSERT_EQ(0, set_tracking(self->watcher, 0));
	ASSERT_TRUE(read_fdinfo(self->overseer, &info));
	EXPECT_EQ(before.watchers, info.watchers);
	EXPECT_EQ(before.outdated_watchers, info.outdated_watchers);
}

/* WAIT_WATCHERS */

TEST_F(sysgenid, wait_for_nobody)
{
	EXPECT_EQ(0, wait_watchers(self->watcher, 0));
	EXPECT_EQ(0, wait_watchers(self->watcher, 1));

	/* A tracked one that is acked is nobody to wait for, the caller too. */
	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	EXPECT_EQ(0, wait_watchers(self->watcher, 0));
	EXPECT_EQ(0, wait_watchers(self->overseer, 0));

	/* Neither is an untracked one that is outdated. */
	ASSERT_EQ(0, set_tracking(self->watcher, 0));
	ASSERT_EQ(0, ack(self->overseer, change()));
	EXPECT_EQ(0, wait_watchers(self->overseer, 0));
}

/* Makes the watcher hold the overseer up, which itself is acked. */
#define hold_up()							\
	({								\
		uint32_t __now;						\
									\
		ASSERT_EQ(0, set_tracking(self->watcher, 1));		\
		__now = change();					\
		ASSERT_EQ(0, ack(self->overseer, __now));		\
		__now;							\
	})

TEST_F(sysgenid, wait_times_out)
{
	static const unsigned long timeouts[] = { 1, 150 };
	uint64_t start;
	unsigned int i;

	hold_up();
	for (i = 0; i < ARRAY_SIZE(timeouts); i++) {
		start = now_ms();
		EXPECT_EQ(-1, wait_watchers(self->overseer, timeouts[i]));
		EXPECT_EQ(ETIME, errno);
		/* now_ms() cuts to whole milliseconds at both ends. */
		EXPECT_LE(timeouts[i], now_ms() - start + 1);
	}
}

TEST_F(sysgenid, wait_caller_outdated)
{
	change();
	/* Nobody is waited for: this would be 0. */
	EXPECT_EQ(-1, wait_watchers(self->watcher, 0));
	EXPECT_EQ(EINTR, errno);
	EXPECT_EQ(-1, wait_watchers(self->watcher, 1));
	EXPECT_EQ(EINTR, errno);

	/* This would be a timeout, or for ever. */
	hold_up();
	EXPECT_EQ(-1, wait_watchers(self->watcher, 1));
	EXPECT_EQ(EINTR, errno);
	EXPECT_EQ(-1, wait_watchers(self->watcher, 0));
	EXPECT_EQ(EINTR, errno);
}

TEST_F(sysgenid, wait_caller_becomes_outdated)
{
	struct sleeper s = {
		.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
	};
	int other = open_node(_metadata, O_RDWR);

	hold_up();
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, trigger(other, 0));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(-1, s.ret);
	EXPECT_EQ(EINTR, s.err);
}

TEST_F(sysgenid, wait_interrupted)
{
	static const int flags[] = { 0, SA_RESTART };
	unsigned int i;

	hold_up();
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct sleeper s = {
			.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
			.arg = i ? 1000UL * 1000 : 0,
		};

		catch_usr1(_metadata, flags[i]);
		start_sleeper(_metadata, &s);
		ASSERT_EQ(0, pthread_kill(s.thread, SIGUSR1));
		finish_sleeper(_metadata, &s);
		EXPECT_EQ(-1, s.ret);
		EXPECT_EQ(EINTR, s.err);
	}
}

static bool write_text(const char *dir, const char *name, const char *text)
{
	ssize_t len = strlen(text);
	char path[256];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, len) == len;
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool write_number(const char *dir, const char *name, int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", number);
	return write_text(dir, name, text);
}

/* Whether all that is in that cgroup is frozen, and something is. */
static bool is_frozen(const char *dir)
{
	char path[256], text[256] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.events", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			text[0] = 0;
		close(fd);
	}
	return strstr(text, "frozen 1");
}

/* What objects of the kernel that cannot be reclaimed cost that cgroup, in bytes; -1 if unknown. */
static long slab_of(const char *dir)
{
	char path[256], key[64];
	long value, found = -1;
	FILE *file;

	/* The kernel adds up every two seconds what its processors have counted. */
	sleep_ms(2500);
	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	file = fopen(path, "re");
	while (file && fscanf(file, "%63s %ld", key, &value) == 2) {
		if (!strcmp(key, "slab_unreclaimable"))
			found = value;
	}
	if (file)
		fclose(file);
	return found;
}

static bool open_many(const char *node)
{
	unsigned int i;

	for (i = 0; i < ACCOUNTED; i++) {
		if (open(node, O_RDONLY | O_CLOEXEC) < 0)
			return false;
	}
	return true;
}

/* Whoever opens the node many times does so at the expense of his own cgroup. */
TEST_F(sysgenid, open_is_accounted)
{
	char dir[] = "/tmp/sysgenid-cgroup-XXXXXX", path[128];
	struct rlimit files = { 2 * ACCOUNTED + 64, 2 * ACCOUNTED + 64 };
	pid_t pid;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("none", dir, "cgroup2", 0, NULL));
	ASSERT_TRUE(write_text(dir, "cgroup.subtree_control", "+memory"));
	snprintf(path, sizeof(path), "%s/accounted", dir);
	ASSERT_EQ(0, mkdir(path, 0700));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		long before, null, ours;

		if (!write_number(path, "cgroup.procs", 0) || setrlimit(RLIMIT_NOFILE, &files))
			_exit(100);
		/* The table of descriptors grows with this. */
		if (dup2(0, 2 * ACCOUNTED + 32) < 0)
			_exit(101);
		before = slab_of(path);
		null = open_many("/dev/null") ? slab_of(path) - before : -1;
		ours = open_many(NODE) ? slab_of(path) - before - null : -1;
		if (before < 0 || null < 0 || ours < 0)
			_exit(102);
		/* An open file costs the same. What is ours comes on top, some 30 bytes. */
		_exit(ours < null + 16L * ACCOUNTED);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, rmdir(path));
	EXPECT_TRUE(write_text(dir, "cgroup.subtree_control", "-memory"));
	EXPECT_EQ(0, umount(dir));
	EXPECT_EQ(0, rmdir(dir));
}

/* A process that is stopped, and goes on, has no handler that anything could be told to. */
TEST_F(sysgenid, wait_goes_on_after_a_stop)
{
	static const unsigned long timeouts[] = { 0, LIMIT_MS };
	unsigned int i;
	int status;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(timeouts); i++) {
		uint32_t now = hold_up();

		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(wait_watchers(self->overseer, timeouts[i]) ? errno : 0);
		while (!sleeps_in(pid, __NR_ioctl))
			sleep_ms(10);
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		if (!timeouts[i]) {
			sleep_ms(100);
			EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
			ASSERT_EQ(0, ack(self->watcher, now));
		}
		/* What is left of a limit is for the caller to know. */
		EXPECT_EQ(timeouts[i] ? EINTR : 0, child_status(pid));
		ASSERT_EQ(0, ack(self->watcher, now));
	}
}

/* Nor has one that is frozen, which is how a container is paused. */
TEST_F(sysgenid, wait_goes_on_after_a_freeze)
{
	char dir[] = "/tmp/sysgenid-cgroup-XXXXXX", path[128];
	uint32_t now = hold_up();
	int status;
	pid_t pid;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("none", dir, "cgroup2", 0, NULL));
	snprintf(path, sizeof(path), "%s/frozen", dir);
	ASSERT_EQ(0, mkdir(path, 0700));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(wait_watchers(self->overseer, 0) ? errno : 0);
	while (!sleeps_in(pid, __NR_ioctl))
		sleep_ms(10);
	ASSERT_TRUE(write_number(path, "cgroup.procs", pid));
	ASSERT_TRUE(write_number(path, "cgroup.freeze", 1));
	while (!is_frozen(path))
		sleep_ms(10);
	ASSERT_TRUE(write_number(path, "cgroup.freeze", 0));
	sleep_ms(100);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_EQ(0, ack(self->watcher, now));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, rmdir(path));
	EXPECT_EQ(0, umount(dir));
	EXPECT_EQ(0, rmdir(dir));
}

TEST_F(sysgenid, wait_interrupted_by_a_change_too)
{
	int other = open_node(_metadata, O_RDWR);
	unsigned int round;
	uint32_t now = 0;

	catch_usr1(_metadata, SA_RESTART);
	now = hold_up();
	for (round = 0; round < SIGNAL_ROUNDS; round++) {
		struct meeting m = {
			.round = round,
			.s = {
				.fd = self->overseer, .nr = __NR_ioctl,
				.word = self->word,
				.arg = round & 4 ? 1000UL * 1000 : 0,
			},
		};

		begin_meeting(_metadata, &m);
		now = change_by(_metadata, other, self->word);
		end_meeting(_metadata, &m);
		ASSERT_EQ(-1, m.s.ret);
		ASSERT_EQ(EINTR, m.s.err);
		ASSERT_TRUE(is_outdated(self->overseer));
		ASSERT_EQ(0, ack(self->overseer, now));
	}
}

TEST_F(sysgenid, wait_interrupted_by_the_last_ack_too)
{
	unsigned int round;
	uint32_t now;

	catch_usr1(_metadata, 0);
	for (round = 0; round < SIGNAL_ROUNDS; round++) {
		struct meeting m = {
			.round = round,
			.s = {
				.fd = self->overseer, .nr = __NR_ioctl,
				.word = self->word,
				.arg = round & 4 ? 1000UL * 1000 : 0,
			},
		};

		now = hold_up();
		begin_meeting(_metadata, &m);
		ASSERT_EQ(0, ack(self->watcher, now));
		end_meeting(_metadata, &m);
		if (m.s.ret)
			ASSERT_EQ(EINTR, m.s.err);
		/* Interrupted or not: the next call finds nobody to wait for. */
		ASSERT_EQ(0, wait_watchers(self->overseer, 0));
	}
}

/* Several overseers that wait at once, each with a watcher of its own. */
static void start_overseers(struct __test_metadata *_metadata, const uint32_t *word,
			    struct sleeper *s, const unsigned long *timeouts,
			    unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		s[i].fd = open_node(_metadata, O_RDWR);
		s[i].nr = __NR_ioctl;
		s[i].word = word;
		s[i].arg = timeouts[i];
		start_sleeper(_metadata, &s[i]);
	}
	sleep_ms(SETTLE_MS);
	for (i = 0; i < n; i++) {
		EXPECT_TRUE(sleeps_in(s[i].tid, __NR_ioctl)) {
			TH_LOG("timeout %lu", timeouts[i]);
		}
	}
}

static const unsigned long overseer_timeouts[] = { 0, 1000UL * 1000, 0 };

TEST_F(sysgenid, wait_releases_all_overseers)
{
	unsigned int i, way;
	uint32_t now;

	/* By an ack, by being no longer tracked, and by a close. */
	for (way = 0; way < 3; way++) {
		struct sleeper s[ARRAY_SIZE(overseer_timeouts)] = {};

		now = hold_up();
		start_overseers(_metadata, self->word, s, overseer_timeouts,
				ARRAY_SIZE(s));
		if (way == 0)
			ASSERT_EQ(0, ack(self->watcher, now));
		if (way == 1)
			ASSERT_EQ(0, set_tracking(self->watcher, 0));
		if (way == 2)
			ASSERT_EQ(0, close(self->watcher));
		for (i = 0; i < ARRAY_SIZE(s); i++) {
			finish_sleeper(_metadata, &s[i]);
			EXPECT_EQ(0, s[i].ret);
		}
	}
}

TEST_F(sysgenid, wait_change_interrupts_all_overseers)
{
	struct sleeper s[ARRAY_SIZE(overseer_timeouts)] = {};
	unsigned int i;

	hold_up();
	start_overseers(_metadata, self->word, s, overseer_timeouts,
			ARRAY_SIZE(s));
	change();
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		finish_sleeper(_metadata, &s[i]);
		EXPECT_EQ(-1, s[i].ret);
		EXPECT_EQ(EINTR, s[i].err);
	}
}

TEST_F(sysgenid, wait_huge_timeouts)
{
	/*
	 * Cut to 32 bits, or counted in nanoseconds, microseconds or jiffies of
	 * any length, these are nothing, a moment, or in the past.
	 */
	static const unsigned long timeouts[] = {
		INT_MAX, INT_MAX + 1UL, UINT32_MAX / 1000UL + 1,
		UINT32_MAX / 250UL + 1, UINT32_MAX - 1UL, LONG_MAX, LONG_MAX + 1UL,
		ULONG_MAX - 1, ULONG_MAX,
#ifdef __LP64__
		UINT32_MAX + 1UL, UINT32_MAX + 2UL,
		LONG_MAX / 1000000 + 1UL, ULONG_MAX / 1000000 + 1,
		LONG_MAX / 1000 + 1UL, ULONG_MAX / 1000 + 1,
		LONG_MAX / 250 + 1UL, ULONG_MAX / 250 + 1,
#endif
	};
	struct sleeper s[ARRAY_SIZE(timeouts)] = {};
	uint32_t now = hold_up();
	unsigned int i;

	start_overseers(_metadata, self->word, s, timeouts, ARRAY_SIZE(s));
	ASSERT_EQ(0, ack(self->watcher, now));
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		finish_sleeper(_metadata, &s[i]);
		EXPECT_EQ(0, s[i].ret) {
			TH_LOG("timeout %lu: %s", timeouts[i], strerror(s[i].err));
		}
	}
}

TEST_F(sysgenid, wait_released_by_ack)
{
	/* None, a usual one, and two that must not overflow into the past. */
	static const unsigned long timeouts[] = {
		0, 1000UL * 1000, UINT32_MAX, ULONG_MAX,
	};
	unsigned int i;
	uint32_t now;

	for (i = 0; i < ARRAY_SIZE(timeouts); i++) {
		struct sleeper s = {
			.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
			.arg = timeouts[i],
		};

		now = hold_up();
		start_sleeper(_metadata, &s);
		expect_asleep(_metadata, &s);
		ASSERT_EQ(0, ack(self->watcher, now));
		finish_sleeper(_metadata, &s);
		EXPECT_EQ(0, s.ret) {
			TH_LOG("timeout %lu: %s", timeouts[i], strerror(s.err));
		}
	}
}

TEST_F(sysgenid, wait_released_by_the_last)
{
	struct sleeper s = {
		.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
	};
	int other = open_node(_metadata, O_RDWR);
	uint32_t now;

	ASSERT_EQ(0, set_tracking(other, 1));
	now = hold_up();
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, ack(self->watcher, now));
	expect_asleep(_metadata, &s);
	ASSERT_EQ(0, ack(other, now));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(0, s.ret);
}

TEST_F(sysgenid, wait_released_by_untracking)
{
	struct sleeper s = {
		.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
	};

	hold_up();
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, set_tracking(self->watcher, 0));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(0, s.ret);
}

TEST_F(sysgenid, wait_released_by_close)
{
	struct sleeper s = {
		.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
	};

	hold_up();
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, close(self->watcher));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(0, s.ret);
}

TEST_F(sysgenid, wait_released_by_death)
{
	struct sleeper s = {
		.fd = self->overseer, .nr = __NR_ioctl, .word = self->word,
	};
	int ready[2], fd;
	pid_t pid;
	char byte;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		fd = open(NODE, O_RDWR);
		if (fd < 0 || set_tracking(fd, 1) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ASSERT_EQ(0, close(ready[1]));
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	ASSERT_EQ(0, ack(self->overseer, change()));
	start_sleeper(_metadata, &s);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	finish_sleeper(_metadata, &s);
	EXPECT_EQ(0, s.ret);
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
}

/* TRIGGER_GEN_UPDATE */

TEST_F(sysgenid, trigger_plain)
{
	uint32_t before = generation();

	EXPECT_EQ(0, trigger(self->overseer, 0));
	EXPECT_EQ(next_generation(before), generation());
	EXPECT_EQ(0, trigger(self->overseer, 0));
	EXPECT_EQ(next_generation(next_generation(before)), generation());

	/* The caller is a watcher as any other. */
	EXPECT_TRUE(is_outdated(self->overseer));
	EXPECT_TRUE(is_outdated(self->watcher));
}

TEST_F(sysgenid, trigger_least)
{
	uint32_t before = change();

	/* What is not above the current one has no effect of its own. */
	EXPECT_EQ(0, trigger(self->overseer, before - 1));
	EXPECT_EQ(before + 1, generation());
	EXPECT_EQ(0, trigger(self->overseer, before + 1));
	EXPECT_EQ(before + 2, generation());
	EXPECT_EQ(0, trigger(self->overseer, before + 3));
	EXPECT_EQ(before + 3, generation());
	EXPECT_EQ(0, trigger(self->overseer, before + 10));
	EXPECT_EQ(before + 10, generation());
}

/* A 32-bit program has no such argument. */
#ifdef __LP64__
TEST_F(sysgenid, trigger_too_much)
{
	static const unsigned long least[] = {
		UINT32_MAX + 1UL, 5000000000UL, LONG_MAX, ULONG_MAX,
	};
	uint32_t before = generation();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(least); i++) {
		EXPECT_EQ(-1, trigger(self->overseer, least[i]));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(before, generation());
	EXPECT_TRUE(is_acked(self->watcher));
}
#endif

/* Triggers with the given capabilities only, and returns the errno. */
static int trigger_with(int fd, uint64_t caps)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {
		{ .effective = caps, .permitted = caps },
		{ .effective = caps >> 32, .permitted = caps >> 32 },
	};
	pid_t pid = fork();

	if (!pid) {
		if (syscall(__NR_capset, &header, data))
			_exit(CHILD_SKIP);
		_exit(trigger(fd, 0) ? errno : 0);
	}
	return child_status(pid);
}

TEST_F(sysgenid, trigger_capabilities)
{
	uint64_t restore = 1ULL << CAP_CHECKPOINT_RESTORE;
	uint64_t admin = 1ULL << CAP_SYS_ADMIN;
	uint64_t most = (1ULL << (CAP_LAST_CAP + 1)) - 1;
	uint32_t before = generation();

	EXPECT_EQ(EACCES, trigger_with(self->overseer, 0));
	EXPECT_EQ(EACCES, trigger_with(self->overseer, most & ~restore & ~admin));
	EXPECT_EQ(before, generation());
	EXPECT_TRUE(is_acked(self->watcher));
	EXPECT_EQ(0, trigger_with(self->overseer, restore));
	EXPECT_EQ(0, trigger_with(self->overseer, admin));
	EXPECT_EQ(next_generation(next_generation(before)), generation());
}

TEST_F(sysgenid, trigger_by_nobody)
{
	uint32_t before = generation();
	pid_t pid = fork();
	int fd;

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		fd = open(NODE, O_RDWR);
		_exit(trigger(fd, 0) ? errno : 0);
	}
	EXPECT_EQ(EACCES, child_status(pid));
	EXPECT_EQ(before, generation());
}

TEST_F(sysgenid, trigger_in_user_namespace)
{
	uint32_t before = generation();
	pid_t pid = fork();
	int status;

	ASSERT_LE(0, pid);
	if (!pid) {
		/* Every capability, but over nothing. */
		if (unshare(CLONE_NEWUSER))
			_exit(CHILD_SKIP);
		_exit(trigger(self->overseer, 0) ? errno : 0);
	}
	status = child_status(pid);
	if (status == CHILD_SKIP)
		SKIP(return, "no user namespaces");
	EXPECT_EQ(EACCES, status);
	EXPECT_EQ(before, generation());
}

/* Makes @id of this user namespace, which is new, the @outside of its parent. */
static bool map_id(const char *file, unsigned int id, unsigned int outside)
{
	char path[64], text[64];
	int fd, len;
	bool ok;

	snprintf(path, sizeof(path), "/proc/self/%s", file);
	len = snprintf(text, sizeof(text), "%u %u 1", id, outside);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, len) == len;
	if (fd >= 0)
		close(fd);
	return ok;
}

static uint64_t effective_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {};

	if (syscall(__NR_capget, &header, data))
		return 0;
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

/* Triggers as user @uid who is root in a namespace of its own. */
static int trigger_as_root_of_a_namespace(int fd, unsigned int uid)
{
	uint64_t both = 1ULL << CAP_CHECKPOINT_RESTORE | 1ULL << CAP_SYS_ADMIN;

	if (uid && (setgid(uid) || setuid(uid) || prctl(PR_SET_DUMPABLE, 1)))
		return CHILD_SKIP;
	if (unshare(CLONE_NEWUSER))
		return CHILD_SKIP;
	if (!map_id("uid_map", 0, uid) || setuid(0) || geteuid())
		return CHILD_SKIP - 1;
	if ((effective_capabilities() & both) != both)
		return CHILD_SKIP - 2;
	if (!trigger(fd, 0))
		return 0;
	if (errno != EACCES)
		return errno;
	/* A descriptor of its own does not help. */
	fd = open(NODE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return CHILD_SKIP - 3;
	return trigger(fd, 0) ? errno : 0;
}

TEST_F(sysgenid, trigger_by_root_of_a_namespace)
{
	static const unsigned int uids[] = { 0, NOBODY };
	uint32_t before = generation();
	unsigned int i;
	int status;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(trigger_as_root_of_a_namespace(self->overseer, uids[i]));
		status = child_status(pid);
		if (status == CHILD_SKIP)
			SKIP(return, "no user namespaces for user %u", uids[i]);
		EXPECT_EQ(EACCES, status) {
			TH_LOG("user %u", uids[i]);
		}
	}
	EXPECT_EQ(before, generation());
	EXPECT_TRUE(is_acked(self->watcher));
}

TEST_F(sysgenid, trigger_by_nobody_with_a_capability)
{
	static const int caps[] = { CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN, CAP_SYS_BOOT };
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	uint32_t before = generation();
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		uint64_t set = 1ULL << caps[i];
		struct __user_cap_data_struct data[2] = {
			{ .effective = set, .permitted = set },
			{ .effective = set >> 32, .permitted = set >> 32 },
		};

		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (prctl(PR_SET_KEEPCAPS, 1) || setgid(NOBODY) ||
			    setuid(NOBODY) || syscall(__NR_capset, &header, data) ||
			    effective_capabilities() != set)
				_exit(CHILD_SKIP);
			_exit(trigger(self->overseer, 0) ? errno : 0);
		}
		EXPECT_EQ(i < 2 ? 0 : EACCES, child_status(pid)) {
			TH_LOG("capability %d", caps[i]);
		}
	}
	EXPECT_EQ(next_generation(next_generation(before)), generation());
}

/*
 * A fixture of its own, because it must not leave the generation where the next
 * test, or the next run, would meet the wrap.
 */
FIXTURE(wrap)
{
	int fd;
	const uint32_t *word;
};

FIXTURE_SETUP(wrap)
{
	void *map;

	if (geteuid())
		SKIP(return, "only root may trigger a change");
	self->fd = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	map = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	self->word = map;
}

FIXTURE_TEARDOWN(wrap)
{
	int i;

	for (i = 0; i < 16 && generation() > UINT32_MAX - 16; i++)
		trigger(self->fd, 0);
}

TEST_F(wrap, full_range)
{
	uint32_t value;

	/* The older driver took the least generation for a signed int. */
	ASSERT_EQ(0, trigger(self->fd, 0x7fffffff));
	EXPECT_LE(0x7fffffffU, generation());
	ASSERT_EQ(0, trigger(self->fd, 0xc0000000));
	EXPECT_LE(0xc0000000U, generation());
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	EXPECT_EQ(UINT32_MAX, generation());
	EXPECT_EQ((ssize_t)sizeof(value), read(self->fd, &value, sizeof(value)));
	EXPECT_EQ(UINT32_MAX, value);

	/* 0 would mean that there was no change yet. */
	ASSERT_EQ(0, trigger(self->fd, 0));
	EXPECT_EQ(1U, generation());
	EXPECT_EQ(-1, ack(self->fd, UINT32_MAX));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, ack(self->fd, 1));
}

TEST_F(wrap, always_changes)
{
	/* The least generation is the current one, and nothing is greater. */
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(UINT32_MAX, generation());
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	EXPECT_NE(UINT32_MAX, generation());
	EXPECT_NE(0U, generation());
}

TEST_F(wrap, same_value_again)
{
	unsigned long epoch;
	struct fdinfo info;
	int overseer;

	/* Once round, back to the value that the watcher acked. */
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(0, trigger(self->fd, 0));
	ASSERT_EQ(1U, generation());
	ASSERT_EQ(0, ack(self->fd, 1));
	ASSERT_EQ(0, set_tracking(self->fd, 1));
	ASSERT_TRUE(read_fdinfo(self->fd, &info));
	epoch = info.epoch;
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(0, trigger(self->fd, 0));
	ASSERT_EQ(1U, generation());

	EXPECT_TRUE(is_outdated(self->fd));
	ASSERT_TRUE(read_fdinfo(self->fd, &info));
	EXPECT_EQ(1U, info.outdated);
	EXPECT_EQ(1U, info.acked);
	EXPECT_EQ(1U, info.generation);
	/* The generation has come back, and the epoch has not. */
	EXPECT_EQ(epoch + 2, info.epoch);
	overseer = open_node(_metadata, O_RDWR);
	EXPECT_EQ(-1, wait_watchers(overseer, 1));
	EXPECT_EQ(ETIME, errno);
	EXPECT_EQ(0, ack(self->fd, 1));
	EXPECT_TRUE(is_acked(self->fd));
	EXPECT_EQ(0, wait_watchers(overseer, LIMIT_MS));
}

TEST_F(wrap, least_generation)
{
	static const struct {
		uint32_t least, then;
	} steps[] = {
		{ 0, 2 }, { 2, 3 }, { 4, 4 }, { 1, 5 }, { 7, 7 },
		{ 0x80000000, 0x80000000 }, { 0x7fffffff, 0x80000001 },
		{ 0x80000001, 0x80000002 }, { 0x80000003, 0x80000003 },
		{ UINT32_MAX - 1, UINT32_MAX - 1 }, { UINT32_MAX, UINT32_MAX },
		/* What is not above the current one is above 1, which comes next. */
		{ 5, 5 }, { UINT32_MAX, UINT32_MAX }, { 0, 1 },
		{ UINT32_MAX, UINT32_MAX }, { UINT32_MAX, 1 },
		{ UINT32_MAX, UINT32_MAX }, { 1, 1 },
	};
	unsigned int i;

	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(0, trigger(self->fd, 0));
	ASSERT_EQ(1U, generation());
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
#ifdef __LP64__
		uint32_t before = generation();

		EXPECT_EQ(-1, trigger(self->fd, UINT32_MAX + 1UL));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, trigger(self->fd, UINT32_MAX + 1UL + steps[i].least));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, trigger(self->fd, UINT64_MAX));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(before, generation());
#endif
		EXPECT_EQ(0, trigger(self->fd, steps[i].least));
		ASSERT_EQ(steps[i].then, generation()) {
			TH_LOG("least generation %u", steps[i].least);
		}
	}
}

/* A watcher of each kind, and what it acked last. */
struct kind {
	unsigned int outdated, tracked;
	int fd;
	uint32_t acked;
};

/* Whether the watcher, and all tracked ones together, are as they should be. */
static void expect_kind_by(struct __test_metadata *_metadata, const struct kind *k,
			   uint32_t now, unsigned int outdated,
			   unsigned long watchers, unsigned long outdated_watchers)
{
	struct fdinfo info;

	ASSERT_TRUE(read_fdinfo(k->fd, &info));
	EXPECT_EQ(now, info.generation);
	EXPECT_EQ(k->acked, info.acked);
	EXPECT_EQ(k->tracked, info.tracked);
	EXPECT_EQ(outdated, info.outdated);
	EXPECT_EQ(!!outdated, is_outdated(k->fd));
	EXPECT_EQ(!outdated, is_acked(k->fd));
	EXPECT_EQ(watchers, info.watchers);
	EXPECT_EQ(outdated_watchers, info.outdated_watchers);
}

#define expect_kind(k, outdated, watchers, outdated_watchers)		\
	expect_kind_by(_metadata, k, generation(), outdated, watchers,	\
		       outdated_watchers)

TEST_F(wrap, watchers_of_all_kinds)
{
	struct kind k[] = {
		{ 0, 0, -1, 0 }, { 0, 1, -1, 0 },
		{ 1, 0, -1, 0 }, { 1, 1, -1, 0 },
	};
	struct fdinfo before;
	unsigned long held;
	unsigned int i, round;
	int overseer;

	ASSERT_TRUE(read_fdinfo(self->fd, &before));
	overseer = open_node(_metadata, O_RDWR);

	/* On the far side: two of them acked u32::MAX, the others 1. */
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(0, trigger(self->fd, 0));
	ASSERT_EQ(1U, generation());
	for (i = 0; i < ARRAY_SIZE(k); i++) {
		k[i].fd = open_node(_metadata, O_RDWR);
		k[i].acked = 1;
		ASSERT_EQ(0, set_tracking(k[i].fd, k[i].tracked));
	}
	ASSERT_EQ(0, trigger(self->fd, UINT32_MAX));
	ASSERT_EQ(0, ack(overseer, UINT32_MAX));
	for (i = 0; i < ARRAY_SIZE(k); i++) {
		if (k[i].outdated)
			continue;
		ASSERT_EQ(0, ack(k[i].fd, UINT32_MAX));
		k[i].acked = UINT32_MAX;
	}
	for (i = 0; i < ARRAY_SIZE(k); i++)
		expect_kind(&k[i], k[i].outdated, before.watchers + 2,
			    before.outdated_watchers + 1);
	EXPECT_EQ(-1, wait_watchers(overseer, 1));
	EXPECT_EQ(ETIME, errno);

	/* The wrap: all are outdated, whatever they acked, 1 not excepted. */
	ASSERT_EQ(0, trigger(self->fd, 0));
	ASSERT_EQ(1U, generation());
	EXPECT_EQ(-1, wait_watchers(overseer, 1));
	EXPECT_EQ(EINTR, errno);
	ASSERT_EQ(0, ack(overseer, 1));
	for (i = 0; i < ARRAY_SIZE(k); i++) {
		expect_kind(&k[i], 1, before.watchers + 2,
			    before.outdated_watchers + 2);
		EXPECT_EQ(-1, ack(k[i].fd, UINT32_MAX));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(-1, ack(k[i].fd, 0));
		EXPECT_EQ(EINVAL, errno);
	}

	/* The near side, twice: at 1, which they ack, and one change later. */
	for (round = 0; round < 2; round++) {
		held = before.outdated_watchers + 2;
		for (i = 0; i < ARRAY_SIZE(k); i++) {
			EXPECT_EQ(-1, wait_watchers(overseer, 1)) {
				TH_LOG("round %u, watcher %u", round, i);
			}
			EXPECT_EQ(ETIME, errno);
			if (!round || !k[i].outdated) {
				k[i].acked = generation();
				ASSERT_EQ(0, ack(k[i].fd, k[i].acked));
				held -= k[i].tracked;
			}
			expect_kind(&k[i], round && k[i].outdated,
				    before.watchers + 2, held);
		}
		if (round)
			break;
		EXPECT_EQ(0, wait_watchers(overseer, LIMIT_MS));
		ASSERT_EQ(0, trigger(self->fd, 0));
		ASSERT_EQ(2U, generation());
		ASSERT_EQ(0, ack(overseer, 2));
	}
	EXPECT_EQ(-1, wait_watchers(overseer, 1));
	EXPECT_EQ(ETIME, errno);
	ASSERT_EQ(0, close(k[3].fd));
	EXPECT_EQ(0, wait_watchers(overseer, LIMIT_MS));
}

/* Everything else that can be asked of the node. */

/* Nothing is due here: what it does when something is, vmgenid_id_test.sh tells. */
TEST_F(sysgenid, settle_when_nothing_is_due)
{
	static const unsigned long timeouts[] = { 0, 1, UINT_MAX, ULONG_MAX };
	int reader = open_node(_metadata, O_RDONLY);
	uint32_t before = change();
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(timeouts); i++) {
		EXPECT_EQ(0, ioctl(reader, SYSGENID_SETTLE, timeouts[i]));
		EXPECT_EQ(0, ioctl(self->watcher, SYSGENID_SETTLE, timeouts[i]));
	}
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY))
			_exit(CHILD_SKIP);
		_exit(ioctl(reader, SYSGENID_SETTLE, 0UL) ? errno : 0);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(before, generation());
	/* It acks nothing. */
	EXPECT_TRUE(is_outdated(self->watcher));
}

TEST_F(sysgenid, ioctl_unknown)
{
	static const unsigned long cmds[] = {
		_IO(0xE4, 0), _IO(0xE4, 5), _IO(0xE4, 0x10), _IO(0xE4, 0xff),
		_IOR(0xE4, 4, int),
		_IO(0xE5, 1), _IOR(0xE4, 1, int), _IOW(0xE4, 3, long),
		0, 1, TCGETS, FIONREAD,
	};
	uint32_t before = generation();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->watcher, cmds[i], 0UL)) {
			TH_LOG("ioctl %#lx", cmds[i]);
		}
		EXPECT_EQ(ENOTTY, errno);
	}
	EXPECT_EQ(before, generation());
}

TEST_F(sysgenid, fdinfo)
{
	uint32_t before = change();
	struct fdinfo info;
	uint32_t now;

	ASSERT_EQ(0, ack(self->watcher, before));
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(before, info.generation);
	EXPECT_EQ(before, info.acked);
	EXPECT_EQ(0U, info.outdated);
	EXPECT_EQ(0U, info.tracked);

	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	now = change();
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	EXPECT_EQ(now, info.generation);
	EXPECT_EQ(before, info.acked);
	EXPECT_EQ(1U, info.outdated);
	EXPECT_EQ(1U, info.tracked);
	EXPECT_LE(1U, info.watchers);
	EXPECT_LE(1U, info.outdated_watchers);
	EXPECT_STREQ("ioctl", info.source);
	/* What this change was for has nothing to do with the hypervisor. */
	EXPECT_EQ(0U, info.pending);
	EXPECT_EQ(has_id(), info.reseeded);
}

TEST_F(sysgenid, fdinfo_lines)
{
	static const char * const keys[] = {
		"sysgenid-generation", "sysgenid-epoch", "sysgenid-acked",
		"sysgenid-outdated", "sysgenid-tracked", "sysgenid-watchers",
		"sysgenid-outdated-watchers", "sysgenid-source", "sysgenid-reseeded",
		"sysgenid-pending",
	};
	unsigned int count = ARRAY_SIZE(keys) - !has_id();
	char path[64], line[256], expected[128];
	struct fdinfo info;
	unsigned int i = 0;
	uint32_t now;
	FILE *file;

	ASSERT_EQ(0, set_tracking(self->watcher, 1));
	now = change();
	ASSERT_TRUE(read_fdinfo(self->watcher, &info));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->watcher);
	file = fopen(path, "re");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file)) {
		const unsigned long values[] = {
			now, info.epoch, info.acked, 1, 1, info.watchers,
			info.outdated_watchers,
		};

		/* The driver's lines come last: nothing is between or after them. */
		if (!i && strncmp(line, "sysgenid-", 9))
			continue;
		ASSERT_GT(count, i) {
			TH_LOG("one line too many: %s", line);
		}
		if (i < ARRAY_SIZE(values))
			snprintf(expected, sizeof(expected), "%s:\t%lu\n", keys[i],
				 values[i]);
		else if (i == ARRAY_SIZE(values))
			snprintf(expected, sizeof(expected), "%s:\tioctl\n", keys[i]);
		else
			snprintf(expected, sizeof(expected), "%s:\t%lu\n", keys[i],
				 i == ARRAY_SIZE(values) + 1 ? info.reseeded : 0);
		EXPECT_STREQ(expected, line);
		i++;
	}
	fclose(file);
	EXPECT_EQ(count, i);
}

/* Changes the generation and acks on one watcher, until it is told to stop. */
struct changer {
	int overseer;
	int fd;
	const uint32_t *word;
	bool stop;
};

static void *changer_main(void *data)
{
	struct changer *c = data;
	unsigned int turn;

	for (turn = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); turn++) {
		/* The log is not to be filled: a change every now and then. */
		if (turn % 256 == 0)
			trigger(c->overseer, 0);
		if (turn % 256 == 128)
			ack(c->fd, __atomic_load_n(c->word, __ATOMIC_ACQUIRE));
		set_tracking(c->fd, turn & 1);
	}
	return NULL;
}

TEST_F(sysgenid, fdinfo_is_one_moment)
{
	struct changer c = {
		.overseer = self->overseer, .fd = self->watcher, .word = self->word,
	};
	struct fdinfo before, info;
	uint64_t start = now_ms();
	pthread_t thread;
	unsigned int i;

	ASSERT_TRUE(read_fdinfo(self->watcher, &before));
	ASSERT_EQ(0, pthread_create(&thread, NULL, changer_main, &c));
	/* As often as it can be done in two seconds: a debug kernel is slow. */
	for (i = 0; i < 2000 && now_ms() - start < 2000; i++) {
		ASSERT_TRUE(read_fdinfo(self->watcher, &info));
		/* All of them are of the same moment, so they agree. */
		ASSERT_EQ(info.acked != info.generation, !!info.outdated);
		ASSERT_EQ(before.watchers + info.tracked, info.watchers);
		ASSERT_EQ(before.outdated_watchers + (info.tracked & info.outdated),
			  info.outdated_watchers);
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

static int uevent_socket(struct __test_metadata *_metadata)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	struct timeval limit = { .tv_sec = LIMIT_MS / 1000 };
	int room = 4 << 20, sock;

	sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	ASSERT_LE(0, sock);
	/* What nobody has received yet is kept. */
	ASSERT_EQ(0, setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)));
	ASSERT_EQ(0, bind(sock, (struct sockaddr *)&addr, sizeof(addr)));
	ASSERT_EQ(0, setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit,
				sizeof(limit)));
	return sock;
}

/* The driver logs ten changes that somebody has asked for in so much time. */
#define LOG_INTERVAL_MS	5100

/* A uevent, as far as it matters here. */
struct event {
	bool right;			/* everything but the number is as it should be */
	unsigned int numbers;		/* how many of them there are */
	unsigned long generation;	/* the last one */
};

/* The next event of the device, if there is one; those of others are not. */
static bool next_event(int sock, int flags, struct event *event)
{
	static const char path[] = "/devices/virtual/misc/sysgenid";
	char buf[8192], expected[64];
	bool action = false, subsystem = false, name = false, source = false;
	bool reseeded = false;
	ssize_t len;
	char *p;

	for (;;) {
		/* Not recv(), which is this call or another one. */
		len = syscall(__NR_recvfrom, sock, buf, sizeof(buf) - 1, flags, NULL,
			      NULL);
		if (len <= 0)
			return false;
		buf[len] = '\0';
		p = strchr(buf, '@');
		if (p && !strcmp(p + 1, path))
			break;
	}
	memset(event, 0, sizeof(*event));
	for (p = buf; p < buf + len; p += strlen(p) + 1) {
		action |= !strcmp(p, "ACTION=change");
		subsystem |= !strcmp(p, "SUBSYSTEM=misc");
		name |= !strcmp(p, "DEVNAME=sysgenid");
		source |= !strcmp(p, "SYSGENID_SOURCE=ioctl");
		reseeded |= !strcmp(p, has_id() ? "SYSGENID_RESEEDED=1" :
						  "SYSGENID_RESEEDED=0");
		if (strncmp(p, "SYSGENID=", 9))
			continue;
		event->numbers++;
		event->generation = strtoul(p + 9, NULL, 10);
		snprintf(expected, sizeof(expected), "SYSGENID=%lu",
			 event->generation);
		if (strcmp(p, expected))
			event->numbers = UINT_MAX;
	}
	event->right = action && subsystem && name && source && reseeded &&
		       event->numbers == 1 &&
		       !strncmp(buf, "change@", 7);
	return true;
}

/* Somebody who listens all the time, and looks at the word at once. */
struct listener {
	int sock;
	const uint32_t *word;
	pthread_t thread;
	pid_t tid;
	bool heard;
	struct event event;
	uint32_t seen;
};

static void *listener_main(void *data)
{
	struct sched_param param = { .sched_priority = 1 };
	struct listener *l = data;

	/* To be faster than the one who tells, where there is one CPU only. */
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
	__atomic_store_n(&l->tid, (pid_t)syscall(__NR_gettid), __ATOMIC_RELEASE);
	l->heard = next_event(l->sock, 0, &l->event);
	l->seen = __atomic_load_n(l->word, __ATOMIC_ACQUIRE);
	return NULL;
}

TEST_F(sysgenid, uevent)
{
	struct event event;
	uint32_t now;
	int sock, i;

	sock = uevent_socket(_metadata);
	for (i = 0; i < 20; i++) {
		struct listener l = { .sock = sock, .word = self->word };

		ASSERT_EQ(0, pthread_create(&l.thread, NULL, listener_main, &l));
		expect_to_sleep(_metadata, &l.tid, __NR_recvfrom);
		now = change();
		ASSERT_EQ(0, pthread_join(l.thread, NULL));
		ASSERT_TRUE(l.heard);
		ASSERT_TRUE(l.event.right);
		ASSERT_EQ(now, l.event.generation);
		/* Whoever hears of the change finds it made. */
		ASSERT_EQ(now, l.seen);
		/* There is one for each change, which may come after the call returns. */
		ASSERT_FALSE(next_event(sock, MSG_DONTWAIT, &event));
	}
}

TEST_F(sysgenid, uevents_in_order)
{
	unsigned long first, i;
	struct event event;
	int sock;

	sock = uevent_socket(_metadata);
	/* More than the driver keeps until they are sent. */
	first = change();
	for (i = 1; i < 300; i++)
		change();
	/* What changes nothing is not announced. */
	EXPECT_EQ(-1, ack(self->watcher, first));
	EXPECT_EQ(0, ack(self->watcher, generation()));
	EXPECT_EQ(0, set_tracking(self->watcher, 1));
	EXPECT_EQ(EACCES, trigger_with(self->overseer, 0));
	for (i = 0; i < 300; i++) {
		ASSERT_TRUE(next_event(sock, 0, &event));
		EXPECT_TRUE(event.right);
		ASSERT_EQ(first + i, event.generation);
	}
	EXPECT_FALSE(next_event(sock, MSG_DONTWAIT, &event));
	EXPECT_EQ(EAGAIN, errno);
}

static bool has_number(const char *text, uint32_t number)
{
	unsigned long value;
	char *end;

	while (*text) {
		if (*text < '0' || *text > '9') {
			text++;
			continue;
		}
		value = strtoul(text, &end, 10);
		if (value == number)
			return true;
		text = end;
	}
	return false;
}

/* The next of the driver's messages, within the limit: they come after the change. */
static bool next_message(int kmsg, char *message, size_t size)
{
	struct pollfd pfd = { .fd = kmsg, .events = POLLIN };
	char record[1024], *found;
	ssize_t len;

	while (poll(&pfd, 1, LIMIT_MS) == 1) {
		len = read(kmsg, record, sizeof(record) - 1);
		if (len < 0)
			continue;	/* one that was overwritten */
		record[len] = '\0';
		/* What comes before the message has numbers of its own. */
		found = strchr(record, ';');
		if (!found || strncmp(found, ";sysgenid: ", 11))
			continue;
		found[strcspn(found, "\n")] = '\0';
		snprintf(message, size, "%s", found + 11);
		return true;
	}
	return false;
}

TEST_F(sysgenid, log_line)
{
	char message[1024], expected[1024];
	uint32_t before, now;
	int kmsg;

	/* Others may have used up how many are logged. */
	sleep_ms(LOG_INTERVAL_MS);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	ASSERT_EQ(0, lseek(kmsg, 0, SEEK_END));
	before = generation();
	now = change();
	snprintf(expected, sizeof(expected), "generation changed from %u to %u, source ioctl, %s",
		 before, now, has_id() ? "reseeded" : "not reseeded");
	ASSERT_TRUE(next_message(kmsg, message, sizeof(message)));
	if (strstr(message, "were not logged"))
		ASSERT_TRUE(next_message(kmsg, message, sizeof(message)));
	EXPECT_STREQ(expected, message);
}

/* Whoever may change the generation cannot fill the log by that. */
TEST_F(sysgenid, log_lines_are_limited)
{
	unsigned int lines = 0, i;
	char message[1024];
	uint32_t last;
	int kmsg;

	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	sleep_ms(LOG_INTERVAL_MS);
	ASSERT_EQ(0, lseek(kmsg, 0, SEEK_END));
	for (i = 0; i < 100; i++)
		change();
	sleep_ms(LOG_INTERVAL_MS);
	last = change();
	do {
		ASSERT_TRUE(next_message(kmsg, message, sizeof(message)));
		lines++;
	} while (!has_number(message, last));
	EXPECT_LE(10U, lines);
	/* Ten in five seconds, however slow this is, and one of how many were kept back. */
	EXPECT_GT(60U, lines);
}

TEST_HARNESS_MAIN
