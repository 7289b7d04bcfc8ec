// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * witness - asks programs for random bytes, before and after a snapshot
 *
 *	witness NAME COMMAND [NAME COMMAND]...
 *
 * Each COMMAND is started once, by a shell. It answers each line on its standard
 * input with one line on its standard output: what it has drawn. When all have
 * answered BEFORE times, READY says that the machine can be saved.
 *
 * The witness sleeps until the kernel's log says that the kernel has reseeded its
 * random number generator for the new machine and, where there is /dev/sysgenid,
 * until its generation has changed. A second after that it asks each of them AFTER
 * times, and prints what they answer:
 *
 *	# draw NAME LINE
 *	# generation N			at the end; "none" without /dev/sysgenid
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
#include <stdnoreturn.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NODE		"/dev/sysgenid"
#define RESEEDED	"crng reseeded due to virtual machine fork"

/* How often a program is asked before the snapshot, and after the change. */
#define BEFORE		16
#define AFTER		32

/*
 * How long an answer and the change may take, in seconds; the first answer of a
 * program takes as long as its start, which are minutes where a busy host emulates
 * the machine.
 */
#define START_LIMIT	900
#define LIMIT		300

struct program {
	const char *name;
	int ask, answer;
	char line[64];
};

static noreturn void fail(const char *who, const char *what)
{
	fprintf(stderr, "witness: %s: %s\n", who, what);
	exit(EXIT_FAILURE);
}

static noreturn void fail_errno(const char *who)
{
	fail(who, strerror(errno));
}

static void start(struct program *program, const char *name, const char *command)
{
	int ask[2], answer[2];
	pid_t pid;

	if (pipe2(ask, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		fail_errno("pipe");
	pid = fork();
	if (pid < 0)
		fail_errno("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ask[0], STDIN_FILENO);
		dup2(answer[1], STDOUT_FILENO);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	close(ask[0]);
	close(answer[1]);
	program->name = name;
	program->ask = ask[1];
	program->answer = answer[0];
}

/* Asks for one line. */
static void ask(struct program *program, int seconds)
{
	struct pollfd pfd = { .fd = program->answer, .events = POLLIN };
	size_t length = 0;
	ssize_t got;

	if (write(program->ask, "\n", 1) != 1)
		fail_errno(program->name);
	do {
		if (poll(&pfd, 1, seconds * 1000) != 1)
			fail(program->name, "no answer");
		got = read(program->answer, program->line + length,
			   sizeof(program->line) - length);
		if (got <= 0)
			fail(program->name, "it has ended");
		length += got;
		if (length == sizeof(program->line)) {
			program->line[length - 1] = '\0';
			fprintf(stderr, "witness: %s: too long an answer: %s…\n", program->name,
				program->line);
			exit(EXIT_FAILURE);
		}
	} while (program->line[length - 1] != '\n');
	program->line[length - 1] = '\0';
	if (length < 10)
		fail(program->name, "too short an answer");
}

/* Waits until the kernel's log says that it has reseeded. */
static void wait_for_reseed(int log)
{
	struct pollfd pfd = { .fd = log, .events = POLLIN };
	char record[1024];
	ssize_t length;

	do {
		if (poll(&pfd, 1, LIMIT * 1000) != 1)
			fail("the kernel", "it does not reseed");
		length = read(log, record, sizeof(record) - 1);
		/* Records were overwritten: the next read goes on after them. */
		if (length < 0 && errno == EPIPE)
			length = 0;
		if (length < 0)
			fail_errno("/dev/kmsg");
		record[length] = '\0';
	} while (!strstr(record, RESEEDED));
}

/* Waits for the change, and returns the generation. */
static uint32_t wait_for_change(int watcher)
{
	struct pollfd pfd = { .fd = watcher, .events = POLLIN };
	uint32_t generation;

	if (poll(&pfd, 1, LIMIT * 1000) != 1)
		fail(NODE, "the generation does not change");
	if (read(watcher, &generation, sizeof(generation)) != sizeof(generation))
		fail_errno(NODE);
	return generation;
}

int main(int argc, char **argv)
{
	int count = argc / 2, log, watcher, i, j;
	struct program *programs;
	uint32_t generation = 0;

	if (argc < 3 || argc % 2 == 0) {
		fprintf(stderr, "Usage: %s NAME COMMAND [NAME COMMAND]...\n", argv[0]);
		return 2;
	}
	programs = calloc(count, sizeof(*programs));
	if (!programs)
		fail_errno("calloc");
	signal(SIGPIPE, SIG_IGN);
	log = open("/dev/kmsg", O_RDONLY | O_CLOEXEC);
	if (log < 0 || lseek(log, 0, SEEK_END))
		fail_errno("/dev/kmsg");
	watcher = open(NODE, O_RDONLY | O_CLOEXEC);
	if (watcher < 0 && errno != ENOENT)
		fail_errno(NODE);
	for (i = 0; i < count; i++)
		start(&programs[i], argv[2 * i + 1], argv[2 * i + 2]);
	for (i = 0; i < count; i++)
		for (j = 0; j < BEFORE; j++)
			ask(&programs[i], START_LIMIT);
	puts("READY");
	fflush(stdout);

	wait_for_reseed(log);
	if (watcher >= 0)
		generation = wait_for_change(watcher);
	sleep(1);
	for (i = 0; i < AFTER; i++) {
		for (j = 0; j < count; j++) {
			ask(&programs[j], LIMIT);
			printf("# draw %s %s\n", programs[j].name, programs[j].line);
		}
	}
	if (watcher >= 0)
		printf("# generation %u\n", generation);
	else
		puts("# generation none");
	return EXIT_SUCCESS;
}
