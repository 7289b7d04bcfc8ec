// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Draws random bytes from GnuTLS without a pause, in all ways that programs do, while
 * the machine is cloned.
 *
 *	LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so gnutls_clone_test
 *	gnutls_clone_test --plain
 *
 * It knows nothing of the library that is preloaded; with --plain it expects that there
 * is none. What it prints, and how it counts its turns, is explained in
 * userspace/openssl-provider/tests/openssl_clone_test.c: the places are others.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What this uses of <gnutls/gnutls.h> and <gnutls/crypto.h>. */
enum { GNUTLS_RND_NONCE, GNUTLS_RND_RANDOM, GNUTLS_RND_KEY };
struct gnutls_datum {
	unsigned char *data;
	unsigned int size;
};
extern int gnutls_rnd(int level, void *data, size_t len);
extern int gnutls_key_generate(struct gnutls_datum *key, unsigned int size);
extern void (*gnutls_free)(void *data);

/*
 * How many of the last turns are kept: more than there are between the resume and the
 * change. With the library there is none that lets anything out.
 */
#define KEPT		(1 << 10)
#define KEPT_PLAIN	(1 << 15)

/* How many turns there are after the change. */
#define AFTER		64

/* How long the clone may take to show a change, in seconds. */
#define LIMIT		60

enum { DRAWING = 1, LEFT = 2 };

/* Where something is drawn; those with a process have one of their own, which was forked. */
struct place {
	const char *name;
	uint64_t (*draw)(void);
	bool process;
};

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

/* The mapped generation. */
static const _Atomic uint32_t *map_generation(void)
{
	int fd = open("/dev/sysgenid", O_RDONLY | O_CLOEXEC);
	void *page;

	if (fd < 0)
		die("cannot open /dev/sysgenid: %m");
	page = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die("cannot map /dev/sysgenid: %m");
	close(fd);
	return page;
}

/* 0 if it fails: nobody draws that. */
static uint64_t draw_at(int level)
{
	uint64_t drawn = 0;

	return gnutls_rnd(level, &drawn, sizeof(drawn)) < 0 ? 0 : drawn;
}

static uint64_t draw_nonce(void)
{
	return draw_at(GNUTLS_RND_NONCE);
}

static uint64_t draw_random(void)
{
	return draw_at(GNUTLS_RND_RANDOM);
}

static uint64_t draw_key(void)
{
	return draw_at(GNUTLS_RND_KEY);
}

/* Within the library. */
static uint64_t generate(void)
{
	struct gnutls_datum key;
	uint64_t drawn;

	if (gnutls_key_generate(&key, sizeof(drawn)) < 0)
		return 0;
	memcpy(&drawn, key.data, sizeof(drawn));
	gnutls_free(key.data);
	return drawn;
}

static const struct place places[] = {
	{ "nonce", draw_nonce, false },
	{ "random", draw_random, false },
	{ "key", draw_key, false },
	{ "key_generate", generate, false },
	{ "child", draw_random, true },
};

#define PLACES		(sizeof(places) / sizeof(*places))

/* Shared with the processes. */
struct shared {
	/* In a page of its own. */
	_Alignas(4096) _Atomic uint64_t turns[512];
	_Alignas(4096) struct {
		uint64_t turns;
		uint64_t failures;
		uint64_t draws[KEPT_PLAIN];
	} reports[PLACES];
};

static struct shared *shared;
static const _Atomic uint32_t *generation;
static uint32_t before;
static uint64_t kept = KEPT;

static void take_turns(size_t number)
{
	uint64_t turn, left = AFTER;

	for (turn = 0; left > 0; turn++) {
		uint64_t drawn;

		atomic_store(&shared->turns[number], 4 * turn + DRAWING);
		drawn = places[number].draw();
		atomic_store(&shared->turns[number], 4 * turn + LEFT);
		shared->reports[number].draws[turn % kept] = drawn;
		if (!drawn)
			shared->reports[number].failures++;
		if (atomic_load(generation) != before)
			left--;
	}
	shared->reports[number].turns = turn;
}

static void *place_thread(void *number)
{
	take_turns((uintptr_t)number);
	return NULL;
}

static pid_t place_process(size_t number)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		take_turns(number);
		_exit(0);
	}
	if (pid < 0)
		die("cannot fork: %m");
	return pid;
}

/* From /proc/self/pagemap, of a page that is present. */
static uint64_t physical_address(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pread(fd, &entry, sizeof(entry), (uintptr_t)page / 4096 * 8) != sizeof(entry))
		die("cannot read /proc/self/pagemap: %m");
	close(fd);
	/* Bits 0 to 54 are the number of the frame. */
	entry &= (1ULL << 55) - 1;
	if (!entry)
		die("the page of the turns is not in memory");
	return entry * 4096;
}

static bool all_have_begun(void)
{
	for (size_t i = 0; i < PLACES; i++)
		if (atomic_load(&shared->turns[i]) < 4)
			return false;
	return true;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static void show(size_t number)
{
	uint64_t turns = shared->reports[number].turns;
	uint64_t turn = turns > kept ? turns - kept : 0;

	printf("# draws %zu %llu ", number, (unsigned long long)turn);
	for (; turn < turns; turn++)
		printf("%016llx,",
		       (unsigned long long)shared->reports[number].draws[turn % kept]);
	printf("\n");
}

/* Whether the function that draws is that of the library which is preloaded. */
static bool is_preloaded(void)
{
	Dl_info info;

	return dladdr(dlsym(RTLD_DEFAULT, "gnutls_rnd"), &info) &&
	       strstr(info.dli_fname, "sysgenid");
}

static int ok(int number, bool good, const char *name)
{
	printf("%sok %d %s\n", good ? "" : "not ", number, name);
	return !good;
}

int main(int argc, char **argv)
{
	bool preloaded = true, all = true;
	pthread_t threads[PLACES];
	pid_t processes[PLACES];
	uint64_t failures = 0;
	time_t start;
	int bad = 0;

	if (argc == 2 && !strcmp(argv[1], "--plain")) {
		preloaded = false;
		kept = KEPT_PLAIN;
	} else if (argc != 1) {
		die("usage: gnutls_clone_test [--plain]");
	}
	generation = map_generation();
	before = atomic_load(generation);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		die("no memory: %m");
	/* What the child inherits has been drawn from. */
	draw_random();

	atomic_store(&shared->turns[0], 0);
	printf("# turns %#llx %zu\n", (unsigned long long)physical_address(shared->turns), PLACES);
	for (size_t i = 0; i < PLACES; i++)
		printf("# place %zu %s\n", i, places[i].name);
	fflush(stdout);
	/* Those first: a process with threads is not one to fork. */
	for (size_t i = 0; i < PLACES; i++)
		if (places[i].process)
			processes[i] = place_process(i);
	for (uintptr_t i = 0; i < PLACES; i++)
		if (!places[i].process &&
		    pthread_create(&threads[i], NULL, place_thread, (void *)i))
			die("cannot start a thread");
	while (!all_have_begun())
		nap();
	printf("READY\n");
	fflush(stdout);

	start = time(NULL);
	while (atomic_load(generation) == before && time(NULL) - start < LIMIT)
		nap();
	if (atomic_load(generation) == before)
		die("the machine was not cloned in time");
	for (size_t i = 0; i < PLACES; i++) {
		if (places[i].process)
			waitpid(processes[i], NULL, 0);
		else
			pthread_join(threads[i], NULL);
		failures += shared->reports[i].failures;
		all = all && shared->reports[i].turns >= AFTER;
	}

	printf("TAP version 13\n1..3\n");
	bad += ok(1, is_preloaded() == preloaded, "drawn_from_what_was_preloaded");
	bad += ok(2, failures == 0, "no_draw_has_failed");
	bad += ok(3, all, "all_places_have_come_to_their_end");
	/* Last: they are long, and no detail of a test that has failed. */
	for (size_t i = 0; i < PLACES; i++)
		show(i);
	return bad ? 1 : 0;
}
