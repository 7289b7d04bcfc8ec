// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * witness - asks programs for random bytes, across a snapshot of the machine
 *
 *	witness NAME COMMAND [NAME COMMAND]...
 *
 * Each COMMAND is started once, by a shell. It answers each line on its standard
 * input with one line on its standard output: what it has drawn. All have
 * answered BEFORE times when READY says that the machine can be saved. From then
 * on they are asked in turn, without a pause, so that the snapshot falls among
 * the questions, and the first answers in a clone come as early as can be.
 *
 * That goes on until the kernel's log says that the kernel has reseeded its random
 * number generator for the new machine, and where there is /dev/sysgenid, until its
 * generation has changed. A second after that, they are asked AFTER times each.
 *
 * An emulated machine has just begun to translate its code when it is resumed: a
 * draw takes it ten milliseconds, and the way to the reseed not much more. So
 * that more than one draw falls in between, the witness makes that way longer: it
 * needs two processors, and keeps the one busy on which the kernel would do this.
 *
 * No program can know when it was frozen. So the number of the last question lies
 * in a page whose physical address the witness prints: whoever has saved the
 * machine can look it up. What has a higher number was asked after the resume.
 *
 *	# asked ADDRESS			where the number of the last question lies
 *	# draw NAME window NUMBER LINE	asked before the kernel had reseeded
 *	# draw NAME later NUMBER LINE	asked a second later, or more
 *	# generation N			at the end; "none" without /dev/sysgenid
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NODE		"/dev/sysgenid"
#define RESEEDED	"crng reseeded due to virtual machine fork"

/* How often a program is asked before the snapshot, and after the change. */
#define BEFORE		16
#define AFTER		32
/* How many of its last answers in the window are kept. */
#define KEPT		256
/*
 * How many questions have been asked differs between clones. The first one of
 * those after the change is a multiple of this in all of them, so that programs
 * that go on with a stream stand at the same place in it.
 */
#define ALIGN		512

/*
 * How long an answer may take, in seconds; the first one of a program takes as long
 * as its start, which are minutes where a busy host emulates the machine.
 */
#define START_LIMIT	900
#define LIMIT		300

struct draw {
	uint64_t number;
	char line[64];
};

struct program {
	const char *name;
	int ask, answer;
	uint64_t asked;		/* this program, so far */
	uint64_t kept;		/* draws in the window, so far */
	struct draw window[KEPT];
	struct draw later[AFTER];
};

/* The number of the last question, alone in a page. */
static atomic_ullong *asked;

static noreturn void fail(const char *who, const char *what)
{
	fprintf(stderr, "witness: %s: %s\n", who, what);
	exit(EXIT_FAILURE);
}

static noreturn void fail_errno(const char *who)
{
	fail(who, strerror(errno));
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static uint64_t physical_address(const void *at)
{
	uint64_t page = sysconf(_SC_PAGESIZE), entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &entry, sizeof(entry), (uintptr_t)at / page * sizeof(entry)) !=
	    sizeof(entry))
		fail_errno("/proc/self/pagemap");
	close(fd);
	/* Bit 63: it is there. The page's number is what the lower 55 say. */
	if (!(entry >> 63) || !(entry << 9))
		fail("/proc/self/pagemap", "it shows no physical address");
	return (entry & ((1ull << 55) - 1)) * page;
}

static void count_in_a_page(void)
{
	size_t page = sysconf(_SC_PAGESIZE);
	void *map = mmap(NULL, page, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (map == MAP_FAILED || mlock(map, page))
		fail_errno("a locked page");
	asked = map;
}

static void run_on(int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail_errno("sched_setaffinity");
}

/*
 * Keeps the first processor, on which the kernel handles the notification, busy
 * with a real-time priority. The kernel gives the rest, its own work included, a
 * twentieth of each second there, so that the window lasts up to a second.
 */
static pid_t keep_the_first_processor(void)
{
	struct sched_param param = { .sched_priority = 1 };
	pid_t pid = fork();

	if (pid < 0)
		fail_errno("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run_on(0);
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		fail_errno("sched_setscheduler");
	for (;;)
		;
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

/* Asks for one line, and keeps it in `draw`. */
static void ask(struct program *program, struct draw *draw, int seconds)
{
	struct pollfd pfd = { .fd = program->answer, .events = POLLIN };
	size_t length = 0;
	ssize_t got;

	draw->number = *asked + 1;
	*asked = draw->number;
	program->asked++;
	if (write(program->ask, "\n", 1) != 1)
		fail_errno(program->name);
	do {
		if (poll(&pfd, 1, seconds * 1000) != 1)
			fail(program->name, "no answer");
		got = read(program->answer, draw->line + length, sizeof(draw->line) - length);
		if (got <= 0)
			fail(program->name, "it has ended");
		length += got;
		if (length == sizeof(draw->line))
			fail(program->name, "too long an answer");
	} while (draw->line[length - 1] != '\n');
	draw->line[length - 1] = '\0';
	if (length < 10)
		fail(program->name, "too short an answer");
}

/* Whether the kernel's log has said, since the last look, that it has reseeded. */
static bool reseeded(int log)
{
	char record[1024];
	ssize_t length;

	for (;;) {
		length = read(log, record, sizeof(record) - 1);
		if (length < 0 && errno == EAGAIN)
			return false;
		/* Records were overwritten: the next read goes on after them. */
		if (length < 0 && errno == EPIPE)
			continue;
		if (length <= 0)
			fail_errno("/dev/kmsg");
		record[length] = '\0';
		if (strstr(record, RESEEDED))
			return true;
	}
}

static void ask_until_reseeded(struct program *programs, int count, int log)
{
	uint64_t end = now_ms() + LIMIT * 1000;
	struct program *program;

	for (;;) {
		for (program = programs; program < programs + count; program++) {
			if (reseeded(log))
				return;
			ask(program, &program->window[program->kept++ % KEPT], LIMIT);
		}
		if (now_ms() > end)
			fail("the kernel", "it does not reseed");
	}
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

static void ask_later(struct program *programs, int count)
{
	uint64_t end = now_ms() + 1000, now;
	struct program *program;
	struct draw dropped;
	int i;

	for (program = programs; program < programs + count; program++)
		while (program->asked % ALIGN)
			ask(program, &dropped, LIMIT);
	now = now_ms();
	if (now < end)
		usleep((end - now) * 1000);
	for (i = 0; i < AFTER; i++)
		for (program = programs; program < programs + count; program++)
			ask(program, &program->later[i], LIMIT);
}

static void print(const struct program *program)
{
	uint64_t first = program->kept > KEPT ? program->kept - KEPT : 0, i;
	const struct draw *draw;

	for (i = first; i < program->kept; i++) {
		draw = &program->window[i % KEPT];
		printf("# draw %s window %llu %s\n", program->name,
		       (unsigned long long)draw->number, draw->line);
	}
	for (draw = program->later; draw < program->later + AFTER; draw++)
		printf("# draw %s later %llu %s\n", program->name,
		       (unsigned long long)draw->number, draw->line);
}

int main(int argc, char **argv)
{
	int count = argc / 2, log, watcher, i, j;
	struct program *programs;
	uint32_t generation = 0;
	struct draw dropped;
	pid_t busy;

	if (argc < 3 || argc % 2 == 0) {
		fprintf(stderr, "Usage: %s NAME COMMAND [NAME COMMAND]...\n", argv[0]);
		return 2;
	}
	programs = calloc(count, sizeof(*programs));
	if (!programs)
		fail_errno("calloc");
	signal(SIGPIPE, SIG_IGN);
	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (log < 0 || lseek(log, 0, SEEK_END))
		fail_errno("/dev/kmsg");
	watcher = open(NODE, O_RDONLY | O_CLOEXEC);
	if (watcher < 0 && errno != ENOENT)
		fail_errno(NODE);
	count_in_a_page();
	run_on(1);
	for (i = 0; i < count; i++)
		start(&programs[i], argv[2 * i + 1], argv[2 * i + 2]);
	for (i = 0; i < count; i++)
		for (j = 0; j < BEFORE; j++)
			ask(&programs[i], &dropped, START_LIMIT);
	busy = keep_the_first_processor();
	printf("# asked %#llx\nREADY\n", (unsigned long long)physical_address((void *)asked));
	fflush(stdout);

	/* From here on, nothing is printed before something has happened. */
	ask_until_reseeded(programs, count, log);
	kill(busy, SIGKILL);
	if (watcher >= 0)
		generation = wait_for_change(watcher);
	ask_later(programs, count);
	for (i = 0; i < count; i++)
		print(&programs[i]);
	if (watcher >= 0)
		printf("# generation %u\n", generation);
	else
		puts("# generation none");
	return EXIT_SUCCESS;
}
