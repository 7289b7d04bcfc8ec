// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The guest's part of the demonstration: some programs that live through a
 * snapshot, each with its own way to notice that it has been cloned.
 *
 * It also shows how to use /dev/sysgenid from C. Read watch_by_poll(),
 * watch_by_read() and watch_by_looking() for the three ways to learn of a change,
 * oversee() for how to wait until everybody is done, and draw_with_a_look() for how
 * a program reseeds a library. It looks at the generation only, which changes some
 * milliseconds after the resume; a program that keeps secrets looks at /dev/vmgenid
 * as well: samples/secrets.c does.
 *
 * Roles, each a process of its own, forked by the parent:
 *	poll		 asleep in poll(); acks at once
 *	read		 asleep in read(); acks after 40 ms of "reseeding"
 *	mmap		 looks at the mapped word each millisecond; acks after 90 ms
 *	overseer	 waits until these three, which are tracked, have acked
 *	openssl-ignores	 has drawn from OpenSSL before the snapshot, draws again
 *			 after it, and knows nothing of generations
 *	openssl-looks	 the same, but looks at the generation before it draws
 *
 * What it prints is for the host's tool to read. Each line is one write():
 *	event name=ROLE what=WHAT generation=N at_ns=NS [key=value]...
 * where WHAT is one of
 *	ready	  (parent) all roles watch; right before READY
 *	noticed	  the role has learned of the change
 *	acked	  the role has confirmed the generation
 *	released  (overseer) nobody is waited for any more; result=0, or an errno
 *	drew	  (openssl-*) 16 bytes in bytes=HEX, and reseeded=0 or 1
 *	unnoticed the role has seen no change in SECONDS
 *	failed	  a call has failed: call=NAME error=ERRNO
 *	done	  (parent) all roles are done
 *
 * Time
 * ----
 * at_ns is CLOCK_MONOTONIC of the guest. Under QEMU that clock stands still
 * between the snapshot and the resume, as all clocks of the guest do, so no
 * program can see by a clock when it was resumed. The host can: it knows when it
 * told the machine to go on, and when each line came. The mmap role's `noticed`
 * also carries last_old_ns, its last look that found the old generation: the
 * change lies between the two.
 *
 *	demo_guest [SECONDS]
 *
 * Where nothing has changed SECONDS (default: 4) of guest time after READY, the
 * roles say so, the two OpenSSL programs draw all the same, and that is the end.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/sysgenid.h>
#include <openssl/rand.h>

#define NODE		"/dev/sysgenid"

#define LIMIT_S		30
#define QUIET_S		4
#define DRAW_LEN	16

enum role { POLL, READ, MMAP, OVERSEER, IGNORES, LOOKS, ROLES };

static const char *const role_name[ROLES] = {
	"poll", "read", "mmap", "overseer", "openssl-ignores", "openssl-looks",
};

/* What the processes tell each other. It is no part of the API. */
struct shared {
	atomic_bool ready[ROLES];	/* this role watches */
	atomic_bool noticed[ROLES];	/* this role has seen a change */
	atomic_bool draw_now;		/* draw, although nothing has changed */
};

static struct shared *shared;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void sleep_ms(unsigned int ms)
{
	struct timespec ts = {
		.tv_sec = ms / 1000,
		.tv_nsec = (ms % 1000) * 1000000L,
	};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* Prints one line with one write, so that processes do not mix their lines. */
__attribute__((format(printf, 5, 6)))
static void event(const char *name, const char *what, uint32_t generation,
		  uint64_t at_ns, const char *more, ...)
{
	char line[256];
	va_list args;
	size_t len;

	len = snprintf(line, sizeof(line), "event name=%s what=%s generation=%u at_ns=%llu",
		       name, what, generation, (unsigned long long)at_ns);
	va_start(args, more);
	len += vsnprintf(line + len, sizeof(line) - len, more, args);
	va_end(args);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, len) != (ssize_t)len)
		_exit(EXIT_FAILURE);
}

/* A call that the demonstration cannot do without has failed. */
static _Noreturn void fail(const char *name, const char *call)
{
	event(name, "failed", 0, now_ns(), " call=%s error=%d", call, errno);
	_exit(EXIT_FAILURE);
}

static int open_watcher(const char *name)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail(name, "open");
	return fd;
}

/*
 * The page that starts with the generation. The descriptor is not needed for
 * it: most programs close theirs right after.
 */
static const _Atomic uint32_t *map_generation(const char *name, int fd)
{
	void *map = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		fail(name, "mmap");
	return map;
}

/*
 * An acquire load: whatever is read after it, getrandom() included, is not older
 * than the generation that it returns.
 */
static uint32_t look(const _Atomic uint32_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

/* Reads the generation. Reading does not ack: it can be done again. */
static uint32_t read_generation(const char *name, int fd)
{
	uint32_t generation;

	if (read(fd, &generation, sizeof(generation)) != sizeof(generation))
		fail(name, "read");
	return generation;
}

/*
 * Confirms a generation by writing it back. EINVAL means that the system has
 * been cloned once more in the meantime, and that the work has to be done again.
 */
static bool ack(const char *name, int fd, uint32_t generation)
{
	/* Before the write: whoever is released by it is so at a later time. */
	uint64_t at_ns = now_ns();

	if (write(fd, &generation, sizeof(generation)) == sizeof(generation)) {
		event(name, "acked", generation, at_ns, "");
		return true;
	}
	if (errno != EINVAL)
		fail(name, "write");
	return false;
}

/* Asks the overseer to wait for this watcher. */
static void track(const char *name, int fd)
{
	if (ioctl(fd, SYSGENID_SET_WATCHER_TRACKING, 1UL))
		fail(name, "SET_WATCHER_TRACKING");
}

static void ready(enum role role)
{
	atomic_store(&shared->ready[role], true);
}

static void noticed(enum role role, uint32_t generation)
{
	event(role_name[role], "noticed", generation, now_ns(), "");
	atomic_store(&shared->noticed[role], true);
}

/* For a program with an event loop: an outdated watcher is readable. */
static void watch_by_poll(void)
{
	const char *name = role_name[POLL];
	int fd = open_watcher(name);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	uint32_t generation;

	track(name, fd);
	ready(POLL);
	do {
		if (poll(&pfd, 1, -1) != 1)
			fail(name, "poll");
		generation = read_generation(name, fd);
		noticed(POLL, generation);
		/* Nothing to rebuild here. */
	} while (!ack(name, fd, generation));
}

/* For a thread that does nothing else: a read sleeps until there is a change. */
static void watch_by_read(void)
{
	const char *name = role_name[READ];
	int fd = open_watcher(name);
	uint32_t generation;

	track(name, fd);
	ready(READ);
	do {
		generation = read_generation(name, fd);
		noticed(READ, generation);
		sleep_ms(40);	/* as if it reseeded something */
	} while (!ack(name, fd, generation));
}

/*
 * For a library that looks before each use, which costs one load and no system
 * call. This one is tracked besides, and so it keeps its descriptor.
 */
static void watch_by_looking(void)
{
	const char *name = role_name[MMAP];
	int fd = open_watcher(name);
	const _Atomic uint32_t *word = map_generation(name, fd);
	uint64_t last_old, looking = now_ns();
	uint32_t known = look(word), generation;

	track(name, fd);
	ready(MMAP);
	do {
		do {
			last_old = looking;
			sleep_ms(1);
			looking = now_ns();
			generation = look(word);
		} while (generation == known);
		event(name, "noticed", generation, now_ns(), " last_old_ns=%llu",
		      (unsigned long long)last_old);
		atomic_store(&shared->noticed[MMAP], true);
		known = generation;
		sleep_ms(90);	/* as if it rebuilt a lot */
	} while (!ack(name, fd, generation));
}

/*
 * The overseer waits until all tracked watchers have acked. It is a watcher too:
 * while it is outdated itself, WAIT_WATCHERS fails with EINTR at once, so that
 * no change can slip in between its learning of one and its waiting. So it acks
 * first, and begins anew after an EINTR.
 */
static void oversee(void)
{
	const char *name = role_name[OVERSEER];
	int fd = open_watcher(name);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	uint32_t generation;
	int error;

	ready(OVERSEER);
	if (poll(&pfd, 1, -1) != 1)
		fail(name, "poll");
	do {
		do {
			generation = read_generation(name, fd);
			noticed(OVERSEER, generation);
		} while (!ack(name, fd, generation));
		error = ioctl(fd, SYSGENID_WAIT_WATCHERS, 20000UL) ? errno : 0;
	} while (error == EINTR && poll(&pfd, 1, 0) == 1);
	event(name, "released", generation, now_ns(), " result=%d", error);
	if (error)
		_exit(EXIT_FAILURE);
}

static void draw(enum role role, unsigned char bytes[static DRAW_LEN])
{
	if (RAND_bytes(bytes, DRAW_LEN) != 1)
		fail(role_name[role], "RAND_bytes");
}

static void show(enum role role, uint32_t generation, bool reseeded,
		 const unsigned char bytes[static DRAW_LEN])
{
	char hex[2 * DRAW_LEN + 1];
	int i;

	for (i = 0; i < DRAW_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	event(role_name[role], "drew", generation, now_ns(), " reseeded=%d bytes=%s",
	      reseeded, hex);
}

/* Sleeps until there is a change, or the parent asks for a draw without one. */
static bool wait_for_change(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	while (poll(&pfd, 1, 20) == 0)
		if (atomic_load(&shared->draw_now))
			return false;
	return true;
}

/*
 * A program as they are today. It draws once, so that OpenSSL has its generators
 * seeded before the snapshot. It waits for the change only to draw right after it:
 * what it draws then is the same in every clone. Neither process forks after its
 * first draw: OpenSSL would see a new process ID, and reseed by itself.
 */
static void draw_without_a_look(void)
{
	const char *name = role_name[IGNORES];
	int fd = open_watcher(name);
	const _Atomic uint32_t *word = map_generation(name, fd);
	unsigned char bytes[DRAW_LEN];

	draw(IGNORES, bytes);
	ready(IGNORES);
	if (wait_for_change(fd))
		noticed(IGNORES, look(word));
	draw(IGNORES, bytes);
	show(IGNORES, look(word), false, bytes);
}

/*
 * Gives OpenSSL fresh entropy. RAND_seed() with the default RAND method reseeds
 * the primary generator, from the operating system and with the given bytes
 * mixed in. The public and the private generator of each thread are its
 * children: before they next produce anything, they see that their parent has
 * been reseeded, and reseed from it. So one call is enough for all threads.
 * (RAND_poll() does the same without bytes of our own.)
 *
 * getrandom() is safe here: the kernel reseeds itself before the generation
 * changes.
 */
static void reseed_openssl(const char *name)
{
	unsigned char fresh[48];

	if (getrandom(fresh, sizeof(fresh), 0) != sizeof(fresh))
		fail(name, "getrandom");
	RAND_seed(fresh, sizeof(fresh));
	explicit_bzero(fresh, sizeof(fresh));
}

/*
 * A program that looks before each use, and once more before what it has drawn
 * leaves it: the snapshot may have been taken in between. It waits for the change
 * before it draws. One that draws at any moment is not safe with the generation
 * alone, for getrandom() repeats itself until that has changed: see samples/secrets.c.
 */
static void draw_with_a_look(void)
{
	const char *name = role_name[LOOKS];
	int fd = open_watcher(name);
	const _Atomic uint32_t *word = map_generation(name, fd);
	uint32_t known = look(word), generation;
	unsigned char bytes[DRAW_LEN];
	bool reseeded = false;

	draw(LOOKS, bytes);
	ready(LOOKS);
	if (wait_for_change(fd))
		noticed(LOOKS, look(word));
	do {
		generation = look(word);
		if (generation != known) {
			reseed_openssl(name);
			reseeded = true;
			known = generation;
		}
		draw(LOOKS, bytes);
	} while (look(word) != known);
	show(LOOKS, known, reseeded, bytes);
}

static void (*const role_main[ROLES])(void) = {
	watch_by_poll, watch_by_read, watch_by_looking, oversee,
	draw_without_a_look, draw_with_a_look,
};

static pid_t start(enum role role)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("parent", "fork");
	if (!pid) {
		/* No role outlives the parent. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		role_main[role]();
		_exit(EXIT_SUCCESS);
	}
	return pid;
}

/*
 * Waits until the role has ended, and forgets its process. Returns false where it
 * has failed, or is still there at the end of the time.
 */
static bool finish(pid_t *pid, uint64_t end_ns)
{
	int status;
	pid_t ret;

	while ((ret = waitpid(*pid, &status, WNOHANG)) == 0) {
		if (now_ns() > end_ns)
			return false;
		sleep_ms(5);
	}
	*pid = 0;
	return ret > 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* Waits until all roles watch; a role that ends before has failed, and said so. */
static void wait_until_ready(const pid_t pid[static ROLES])
{
	uint64_t end = now_ns() + LIMIT_S * 1000000000ull;
	enum role role;

	for (role = 0; role < ROLES; role++) {
		while (!atomic_load(&shared->ready[role])) {
			if (now_ns() > end ||
			    waitpid(pid[role], NULL, WNOHANG) == pid[role]) {
				errno = ETIMEDOUT;
				fail("parent", "ready");
			}
			sleep_ms(1);
		}
	}
	/* They are about to fall asleep; nothing breaks where one has not yet. */
	sleep_ms(200);
}

/* Waits until a role has seen a change, or the time is over. */
static bool wait_for_notice(unsigned int seconds)
{
	uint64_t end = now_ns() + seconds * 1000000000ull;
	enum role role;

	do {
		for (role = 0; role < ROLES; role++)
			if (atomic_load(&shared->noticed[role]))
				return true;
		sleep_ms(5);
	} while (now_ns() < end);
	return false;
}

/* All roles end by themselves after a change. */
static bool finish_all(pid_t pid[static ROLES])
{
	uint64_t end = now_ns() + LIMIT_S * 1000000000ull;
	bool good = true;
	enum role role;

	for (role = 0; role < ROLES; role++) {
		if (!finish(&pid[role], end)) {
			event(role_name[role], "failed", 0, now_ns(),
			      " call=role error=%d", pid[role] ? ETIMEDOUT : ECHILD);
			good = false;
		}
	}
	return good;
}

/* Nothing has changed; the two that draw are asked to. */
static bool finish_unchanged(pid_t pid[static ROLES], const _Atomic uint32_t *word)
{
	bool good = true;
	enum role role;

	for (role = 0; role < ROLES; role++)
		event(role_name[role], "unnoticed", look(word), now_ns(), "");
	atomic_store(&shared->draw_now, true);
	for (role = IGNORES; role <= LOOKS; role++)
		good &= finish(&pid[role], now_ns() + LIMIT_S * 1000000000ull);
	return good;
}

int main(int argc, char **argv)
{
	static const char READY[] = "READY\n";
	const _Atomic uint32_t *word;
	unsigned int seconds = QUIET_S;
	pid_t pid[ROLES] = {};
	enum role role;
	bool good;
	int fd;

	if (argc == 2)
		seconds = strtoul(argv[1], NULL, 10);
	if (argc > 2 || !seconds) {
		fprintf(stderr, "Usage: %s [SECONDS]\n", argv[0]);
		return 2;
	}

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("parent", "mmap");
	fd = open_watcher("parent");
	word = map_generation("parent", fd);
	close(fd);

	for (role = 0; role < ROLES; role++)
		pid[role] = start(role);
	wait_until_ready(pid);
	event("parent", "ready", look(word), now_ns(), "");
	if (write(STDOUT_FILENO, READY, sizeof(READY) - 1) < 0)
		fail("parent", "write");

	/* From here on, nothing is printed before something has happened. */
	good = wait_for_notice(seconds) ? finish_all(pid) : finish_unchanged(pid, word);

	for (role = 0; role < ROLES; role++)
		if (pid[role])
			kill(pid[role], SIGKILL);
	event("parent", "done", look(word), now_ns(), "");
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
