// SPDX-License-Identifier: GPL-2.0
/*
 * CRIU checkpoints and restores a process that maps the generation page, the VM
 * generation ID and the answer to it.
 *
 * Wants CRIU, to be root, the loopback interface up, and /plugins with sysgenid_plugin.so
 * and nothing else. The module's file is /sysgenid.ko; the module is loaded again.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sysgenid.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "../common.h"

#define NODE		"/dev/sysgenid"
#define VMGENID		"/dev/vmgenid"
#define MODULE		"/sysgenid.ko"
#define PLUGINS		"/plugins"
#define NO_PLUGINS	"/no-plugins"
#define IMAGES		"/images"
#define REPORT		"/report"

/* Turn a hang into a failure. */
#define LIMIT_S		240
#define REPORT_LIMIT_MS	60000

/* The pages that a process maps. */
enum { SHARED, PRIVATE, ID, PRIVATE_ID, ANSWER, PAGES };

/* What the process says of itself. */
struct report {
	bool maps, writable;
	/* How the pages begin, but for those of the ID, which is at its offset. */
	uint8_t page[PAGES][sizeof(struct vmgenid_answer_page)];
};

/* Maps all pages, and closes the nodes. */
static bool map_pages(void *pages[PAGES], int *offset)
{
	static const int flags[PAGES] = {
		[SHARED] = MAP_SHARED,
		[PRIVATE] = MAP_PRIVATE,
		[ID] = MAP_SHARED,
		[PRIVATE_ID] = MAP_PRIVATE,
		[ANSWER] = MAP_SHARED,
	};
	long size = sysconf(_SC_PAGESIZE);
	int sysgenid = open(NODE, O_RDONLY | O_CLOEXEC);
	int vmgenid = open(VMGENID, O_RDONLY | O_CLOEXEC);
	bool all = true;
	int i;

	*offset = ioctl(vmgenid, VMGENID_GET_OFFSET);
	for (i = 0; i < PAGES; i++) {
		pages[i] = mmap(NULL, size, PROT_READ, flags[i], i < ID ? sysgenid : vmgenid,
				i == ANSWER ? size : 0);
		all = all && pages[i] != MAP_FAILED;
	}
	close(sysgenid);
	close(vmgenid);
	return all && *offset >= 0;
}

static struct report look(void *pages[PAGES], int offset)
{
	struct report report = { .maps = pages };
	size_t size = sysconf(_SC_PAGESIZE);
	int i;

	for (i = 0; pages && i < PAGES; i++) {
		bool is_id = i == ID || i == PRIVATE_ID;

		memcpy(report.page[i], (char *)pages[i] + (is_id ? offset : 0), is_id ? 16 :
		       i == ANSWER ? sizeof(struct vmgenid_answer_page) :
				     sizeof(struct sysgenid_page));
		report.writable |= !mprotect(pages[i], size, PROT_READ | PROT_WRITE);
	}
	return report;
}

/* The process: it reports when it gets the signal, which is blocked. */
static void subject(const sigset_t *wanted, bool maps)
{
	int offset = 0, fd, sig;
	void *pages[PAGES];
	struct report report;

	setsid();
	close_range(0, ~0U, 0);
	if (open("/dev/null", O_RDWR) || dup(0) != 1 || dup(0) != 2)
		_exit(1);
	if (maps && !map_pages(pages, &offset))
		_exit(2);
	for (;;) {
		if (sigwait(wanted, &sig))
			_exit(3);
		report = look(maps ? pages : NULL, offset);
		fd = open(REPORT ".part", O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (write(fd, &report, sizeof(report)) != sizeof(report))
			_exit(4);
		close(fd);
		if (rename(REPORT ".part", REPORT))
			_exit(5);
	}
}

/* Asks @pid for a report. */
static bool ask(pid_t pid, struct report *report)
{
	struct timespec turn = { .tv_nsec = 1000000 };
	bool is_whole;
	int fd, i;

	unlink(REPORT);
	if (kill(pid, SIGUSR1))
		return false;
	for (i = 0; i < REPORT_LIMIT_MS; i++) {
		fd = open(REPORT, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			is_whole = read(fd, report, sizeof(*report)) == sizeof(*report);
			close(fd);
			return is_whole;
		}
		nanosleep(&turn, NULL);
	}
	return false;
}

/* What CRIU found wrong. */
static void show_errors(const char *log)
{
	FILE *file = fopen(log, "re");
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (strstr(line, "Error"))
			fprintf(stderr, "criu: %s", line);
	}
	if (file)
		fclose(file);
}

/* Calls CRIU, which is to exit with @status. */
static bool criu(int status, const char *verb, const char *option, const char *value,
		 const char *plugins)
{
	char log[64];
	pid_t pid;

	snprintf(log, sizeof(log), IMAGES "/%s.log", verb);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		execlp("criu", "criu", verb, "-v4", "--images-dir", IMAGES, "--log-file", log,
		       "--network-lock", "skip", "--libdir", plugins, option, value, NULL);
		_exit(127);
	}
	if (child_status(pid) == status)
		return true;
	show_errors(log);
	return false;
}

static bool dump(int status, pid_t pid, const char *plugins)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return criu(status, "dump", "--tree", text, plugins);
}

/* What a test has. */
struct state {
	/* As this machine shows them. */
	void *pages[PAGES];
	int offset;
	const struct sysgenid_page *page;
	int overseer;
	pid_t pid;		/* the process has it, or had it */
	bool runs;
};

FIXTURE(criu) {
	struct state state;
};

static void open_device(struct __test_metadata *_metadata, struct state *state)
{
	state->overseer = open(NODE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, state->overseer) {
		TH_LOG("%s cannot be opened: %s", NODE, strerror(errno));
	}
	ASSERT_TRUE(map_pages(state->pages, &state->offset));
	state->page = state->pages[SHARED];
}

static void close_device(struct state *state)
{
	int i;

	for (i = 0; i < PAGES; i++)
		munmap(state->pages[i], sysconf(_SC_PAGESIZE));
	close(state->overseer);
}

/* Ends the process. */
static void finish(struct __test_metadata *_metadata, struct state *state)
{
	int status;

	if (!state->runs)
		return;
	kill(state->pid, SIGKILL);
	EXPECT_EQ(state->pid, waitpid(state->pid, &status, 0));
	state->runs = false;
}

FIXTURE_SETUP(criu)
{
	open_device(_metadata, &self->state);
	/* What CRIU restores is left to this process. */
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, system("rm -rf " IMAGES " " NO_PLUGINS));
	ASSERT_EQ(0, mkdir(IMAGES, 0700));
	ASSERT_EQ(0, mkdir(NO_PLUGINS, 0700));
}

FIXTURE_TEARDOWN(criu)
{
	finish(_metadata, &self->state);
	close_device(&self->state);
}

static void start(struct __test_metadata *_metadata, struct state *state, bool maps)
{
	struct report report;
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	state->pid = fork();
	ASSERT_LE(0, state->pid);
	if (!state->pid) {
		close_device(state);
		subject(&signals, maps);
	}
	state->runs = true;
	ASSERT_TRUE(ask(state->pid, &report));
	EXPECT_EQ(maps, report.maps);
}

/* Checkpoints the process, which ends it. */
static void checkpoint(struct __test_metadata *_metadata, struct state *state,
		       const char *plugins)
{
	int status;

	ASSERT_TRUE(dump(0, state->pid, plugins));
	ASSERT_EQ(state->pid, waitpid(state->pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	state->runs = false;
}

/* Restores the process, which has its number again. */
static void restart(struct __test_metadata *_metadata, struct state *state,
		    const char *plugins)
{
	ASSERT_TRUE(criu(0, "restore", "--restore-detached", NULL, plugins));
	state->runs = true;
}

/* What the process says is what this machine says. */
static void expect_same(struct __test_metadata *_metadata, struct state *state)
{
	struct report here = look(state->pages, state->offset), report;
	int i;

	ASSERT_TRUE(ask(state->pid, &report));
	EXPECT_TRUE(report.maps);
	EXPECT_FALSE(report.writable);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(0, memcmp(here.page[i], report.page[i], sizeof(here.page[i]))) {
			TH_LOG("page %d", i);
		}
	}
}

/* Without the page, nothing has changed. */
TEST_F_TIMEOUT(criu, process_without_the_page, LIMIT_S)
{
	uint32_t before = self->state.page->generation;
	struct report report;

	start(_metadata, &self->state, false);
	checkpoint(_metadata, &self->state, NO_PLUGINS);
	restart(_metadata, &self->state, NO_PLUGINS);
	EXPECT_TRUE(ask(self->state.pid, &report));
	finish(_metadata, &self->state);

	/* Nor does the plugin change anything. */
	start(_metadata, &self->state, false);
	checkpoint(_metadata, &self->state, PLUGINS);
	restart(_metadata, &self->state, PLUGINS);
	EXPECT_TRUE(ask(self->state.pid, &report));
	EXPECT_EQ(before, self->state.page->generation);
}

/* A control: CRIU refuses what it does not know, and leaves the process alone. */
TEST_F_TIMEOUT(criu, page_without_a_plugin, LIMIT_S)
{
	start(_metadata, &self->state, true);
	EXPECT_TRUE(dump(1, self->state.pid, NO_PLUGINS));
	expect_same(_metadata, &self->state);
}

TEST_F_TIMEOUT(criu, page_is_restored, LIMIT_S)
{
	uint32_t before;
	int i;

	start(_metadata, &self->state, true);
	checkpoint(_metadata, &self->state, PLUGINS);
	/* Each of the restored processes is another clone. */
	for (i = 0; i < 2; i++) {
		before = self->state.page->generation;
		restart(_metadata, &self->state, PLUGINS);
		EXPECT_EQ(before + 1, self->state.page->generation);
		expect_same(_metadata, &self->state);
		EXPECT_EQ(0, ioctl(self->state.overseer, SYSGENID_TRIGGER_GEN_UPDATE, 0));
		expect_same(_metadata, &self->state);
		finish(_metadata, &self->state);
	}
}

/* On a machine that is a younger one, and has had fewer changes. */
TEST_F_TIMEOUT(criu, page_is_restored_elsewhere, LIMIT_S)
{
	uint32_t before;
	int module;

	ASSERT_EQ(0, ioctl(self->state.overseer, SYSGENID_TRIGGER_GEN_UPDATE, 1000));
	start(_metadata, &self->state, true);
	before = self->state.page->generation;
	checkpoint(_metadata, &self->state, PLUGINS);
	close_device(&self->state);
	ASSERT_EQ(0, syscall(SYS_delete_module, "sysgenid", O_NONBLOCK)) {
		TH_LOG("%s, %ld references", strerror(errno), module_refcnt());
	}
	module = open(MODULE, O_RDONLY | O_CLOEXEC);
	ASSERT_EQ(0, syscall(SYS_finit_module, module, "", 0));
	close(module);
	open_device(_metadata, &self->state);
	EXPECT_EQ(0U, self->state.page->generation);
	restart(_metadata, &self->state, PLUGINS);
	EXPECT_EQ(before + 1, self->state.page->generation);
	EXPECT_EQ(1U, self->state.page->epoch);
	expect_same(_metadata, &self->state);
}

TEST_HARNESS_MAIN
