// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Tests of secrets.c, which is a part of this program. Prints TAP.
 *
 *	secrets_test CASE		what it does in one machine, where CASE says
 *					what there is of an ID: mapped, read or none
 *	secrets_test clones		prints READY, and goes on in each clone
 *
 * In clones, four processes have drawn before: one for each way to see that the machine is
 * another one. The first looks without a pause, the others now and then, so that it
 * has a processor for itself. Each settles and draws as soon as it sees that, which is noted
 * as "# drawn HEX", and then sends tokens, "# token HEX". Whoever runs the clones finds no
 * two of them equal.
 */

#define main secrets_main
#include "secrets.c"
#undef main

#include <signal.h>
#include <stdnoreturn.h>
#include <sys/wait.h>

#define NODE		"/dev/sysgenid"
#define ID_NODE		"/dev/vmgenid"
#define NOBODY		65534

/* So that some of them are of the second pool. */
#define TOKENS		(POOL_SIZE + 4)

static int number;
static bool failed;

static void result(bool holds, const char *name)
{
	printf("%sok %d %s\n", holds ? "" : "not ", ++number, name);
	failed |= !holds;
}

static noreturn void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

/* Takes a token that counts; there is nobody who changes anything. */
static bool take_token(char token[static 2 * TOKEN_SIZE + 1])
{
	char text[128] = "";
	int ends[2], end = 0;
	bool taken;

	if (pipe2(ends, O_CLOEXEC))
		die("pipe2");
	taken = !send_token(ends[1]) && read(ends[0], text, sizeof(text) - 1) > 0 &&
		sscanf(text, "token %32[0-9a-f]\ngood\n%n", token, &end) == 1 && end;
	close(ends[0]);
	close(ends[1]);
	if (!taken)
		printf("# sent: %s (%s)\n", text, strerror(errno));
	return taken;
}

static void open_them(const char *id_node)
{
	if (open_nodes(NODE, id_node))
		die(NODE);
}

/* In clones */

static void open_mapped(void)
{
	open_them(ID_NODE);
	if (!id_words)
		die("the hypervisor's page is not mapped");
}

/* As where mmap() says ENODEV. */
static void open_to_read(void)
{
	open_them(ID_NODE);
	id_words = NULL;
	id_fd = open(ID_NODE, O_RDONLY | O_CLOEXEC);
	if (id_fd < 0)
		die(ID_NODE);
}

static void open_without_id(void)
{
	open_them("/dev/no-such-node");
	if (answer)
		die("there is an answer");
}

static void open_forbidden(void)
{
	if (setuid(NOBODY))
		die("setuid");
	open_them(ID_NODE);
	if (answer)
		die("nobody may see the ID");
}

#define WAYS		4

static void (*const ways[WAYS])(void) = {
	open_mapped, open_to_read, open_without_id, open_forbidden,
};

/* All at once: there are others who write. */
static bool note(const char *name, const char *value)
{
	char line[64];

	snprintf(line, sizeof(line), "# %s %s\n", name, value);
	return !send_line(STDOUT_FILENO, line);
}

/* One process: has drawn, and says so to @ready; draws again when it is in a clone. */
static int live_through_it(void (*open_way)(void), int ready)
{
	unsigned long drawn[2];
	char token[2 * TOKEN_SIZE + 1];
	struct seen settled;
	int i;

	open_way();
	if (!take_token(token) || write(ready, "", 1) != 1)
		return 1;
	while (!changed(&seen))
		if (open_way != open_mapped)
			usleep(20000);
	if (settle(&settled) != FRESH || getrandom(drawn, sizeof(drawn), 0) != sizeof(drawn))
		return 2;
	snprintf(token, sizeof(token), "%016lx%016lx", drawn[0], drawn[1]);
	if (!note("drawn", token))
		return 3;
	for (i = 0; i < TOKENS; i++) {
		if (!take_token(token))
			return 4;
		if (!note("token", token))
			return 3;
	}
	return 0;
}

static void in_clones(void)
{
	static const char *const names[WAYS] = {
		"mapped", "read", "without_an_id", "forbidden",
	};
	pid_t pids[WAYS];
	int ends[2], i, status;
	char byte;

	/* The guest's clock may run faster than its kernel does. */
	limit_ms *= 20;
	if (pipe2(ends, O_CLOEXEC))
		die("pipe2");
	for (i = 0; i < WAYS; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork");
		if (!pids[i])
			_exit(live_through_it(ways[i], ends[1]));
	}
	close(ends[1]);
	for (i = 0; i < WAYS; i++)
		if (read(ends[0], &byte, 1) != 1)
			die("a process has not begun");
	printf("READY\n");
	for (i = 0; i < WAYS; i++) {
		status = -1;
		waitpid(pids[i], &status, 0);
		if (status)
			printf("# status %#x\n", status);
		result(!status, names[i]);
	}
}

/* In one machine */

static void trigger(void)
{
	int fd = open(NODE, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0UL))
		die("trigger");
	close(fd);
}

static bool is_asleep(pid_t pid)
{
	char path[32], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		die(path);
	fclose(file);
	return state == 'S';
}

/* Changes the generation when that process sleeps, and reads what it sends then. */
static int change_under_way(int fd, pid_t sender)
{
	char text[8192] = "", *sent = text, first[33], second[33];
	ssize_t length;
	int end = 0;

	while (!is_asleep(sender))
		usleep(1000);
	trigger();
	while ((length = read(fd, sent, text + sizeof(text) - 1 - sent)) > 0)
		sent += length;
	sent = strstr(text, "token");
	if (!sent)
		return 1;
	if (sscanf(sent, "token %32s\nvoid\ntoken %32s\ngood\n%n", first, second, &end) != 2)
		return 2;
	if (!end)
		return 4;
	return strcmp(first, second) ? 0 : 3;
}

/* The machine changes while a token is on its way: the pipe is full. */
static bool is_taken_back(void)
{
	int ends[2], status = -1;
	pid_t pid, self = getpid();

	if (pipe2(ends, O_CLOEXEC) || fcntl(ends[1], F_SETPIPE_SZ, 4096) < 0)
		die("pipe2");
	fcntl(ends[1], F_SETFL, O_NONBLOCK);
	while (write(ends[1], "\n", 1) == 1)
		;
	fcntl(ends[1], F_SETFL, 0);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		close(ends[1]);
		_exit(change_under_way(ends[0], self));
	}
	close(ends[0]);
	if (send_token(ends[1]))
		die("send_token");
	close(ends[1]);
	waitpid(pid, &status, 0);
	if (status)
		printf("# status %#x\n", status);
	return !status;
}

/* Both have the same pool after the fork, and so have the child and its own child. */
static bool has_tokens_of_its_own(int depth)
{
	char mine[33], theirs[33] = "";
	int ends[2], status = -1;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		die("pipe2");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		bool holds = take_token(mine) && write(ends[1], mine, sizeof(mine)) == sizeof(mine);

		_exit(!(holds && (!depth || has_tokens_of_its_own(depth - 1))));
	}
	if (read(ends[0], theirs, sizeof(theirs)) != sizeof(theirs))
		die("a child sends nothing");
	close(ends[0]);
	close(ends[1]);
	waitpid(pid, &status, 0);
	return !status && take_token(mine) && strcmp(mine, theirs);
}

/* Refuses where the kernel does not answer, and goes on when it does. */
static bool waits_for_the_answer(void)
{
	static const struct vmgenid_answer_page of_another;
	const struct vmgenid_answer_page *ours = answer;
	struct timespec start, end;
	char token[33];
	bool refused;

	clock_gettime(CLOCK_MONOTONIC, &start);
	answer = &of_another;
	trigger();
	refused = send_token(-1) && errno == EAGAIN;
	clock_gettime(CLOCK_MONOTONIC, &end);
	answer = ours;
	return refused && end.tv_sec - start.tv_sec >= limit_ms / 1000 - 1 && take_token(token);
}

static void in_one_machine(bool has_id)
{
	char first[33], token[33];
	unsigned int before;
	bool holds;
	int i;

	open_them(ID_NODE);
	result(take_token(first), "a token is sent");
	before = seen.generation;
	holds = true;
	for (i = 0; i < 2 * POOL_SIZE; i++)
		holds = holds && take_token(token) && strcmp(token, first);
	result(holds && seen.generation == before, "nothing changes by itself");
	trigger();
	result(changed(&seen) && take_token(token) && seen.generation == before + 1,
	       "a change is noticed");
	result(is_taken_back(), "what was on its way is taken back");
	result(has_tokens_of_its_own(1), "a forked process has tokens of its own");
	if (has_id)
		result(waits_for_the_answer(), "without an answer it refuses");
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	/* What is in a buffer at a fork is printed twice. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n");
	if (!strcmp(what, "clones")) {
		in_clones();
	} else if (!strcmp(what, "mapped")) {
		in_one_machine(true);
		result(id_words && id_fd >= 0, "the page is mapped");
	} else if (!strcmp(what, "read")) {
		in_one_machine(true);
		result(answer && !id_words, "the ID is read");
	} else if (!strcmp(what, "none")) {
		in_one_machine(false);
		result(!answer, "there is no ID");
	} else {
		die("usage: secrets_test mapped|read|none|clones");
	}
	printf("1..%d\n", number);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
