// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Draws random bytes from OpenSSL without a pause, in all ways that programs do,
 * while the machine is cloned.
 *
 *	openssl_clone_test [--plain]
 *
 * It knows nothing of the provider: the configuration that OPENSSL_CONF names
 * decides. With --plain it expects that there is none.
 *
 * Each of several places, threads and processes, takes turns, and draws 8 bytes in
 * each. Nobody can know in which turn a place was frozen. So it counts in a page
 * whose physical address is printed before READY, for the host to look at what was
 * saved. Each eight bytes are a place's: four times the number of the turn, plus 1
 * if it is drawing, 2 if the bytes have left. In each clone it prints, besides TAP:
 *
 *	# turns ADDRESS PLACES		where that page is (before READY)
 *	# place NUMBER NAME		what the place does (before READY)
 *	# draws PLACE TURN HEX,HEX,...	what left the place in that turn, and those after
 *
 * What has left in turns that began after the snapshot must be different
 * everywhere. That comparison is the host's.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "common.h"

/*
 * How many of the last turns are kept: more than there are between the resume and
 * the change. With the provider there is none that lets anything out.
 */
#define KEPT		(1 << 10)
#define KEPT_PLAIN	(1 << 15)

/* How many turns there are after the change. */
#define AFTER		64

/* How long the clone may take to show a change, in seconds. */
#define LIMIT		60

enum { DRAWING = 1, LEFT = 2 };

typedef uint64_t draw_fn(void);

struct place {
	const char *name;
	draw_fn *draw;
	/* In a process of its own, because it forks or was forked. */
	bool process;
};

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

static OSSL_LIB_CTX *own_context;

/* What a child draws for its parent. */
static uint64_t *drawn_by_child;

static uint64_t checked(int result, uint64_t drawn)
{
	if (result == 1)
		return drawn;
	/* Nobody draws a zero. */
	ERR_print_errors_fp(stderr);
	return 0;
}

static uint64_t draw(void)
{
	uint64_t drawn;
	int result = RAND_bytes((void *)&drawn, sizeof(drawn));

	return checked(result, drawn);
}

static uint64_t draw_private(void)
{
	uint64_t drawn;
	int result = RAND_priv_bytes((void *)&drawn, sizeof(drawn));

	return checked(result, drawn);
}

static uint64_t draw_from_own_context(void)
{
	uint64_t drawn;
	int result = RAND_bytes_ex(own_context, (void *)&drawn, sizeof(drawn), 0);

	return checked(result, drawn);
}

static void *thread(void *drawn)
{
	*(uint64_t *)drawn = draw();
	return NULL;
}

static uint64_t draw_in_new_thread(void)
{
	uint64_t drawn = 0;
	pthread_t id;

	if (!pthread_create(&id, NULL, thread, &drawn))
		pthread_join(id, NULL);
	return drawn;
}

static uint64_t draw_in_new_child(void)
{
	pid_t pid;

	*drawn_by_child = 0;
	pid = fork();
	if (pid == 0) {
		*drawn_by_child = draw();
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return *drawn_by_child;
}

static const struct place places[] = {
	{ "RAND_bytes", draw, false },
	{ "RAND_priv_bytes", draw_private, false },
	{ "own_context", draw_from_own_context, false },
	{ "child", draw, true },
	{ "new_threads", draw_in_new_thread, false },
	{ "new_children", draw_in_new_child, true },
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

/* How often the provider had to do without a word of the kernel. */
static uint64_t unconfirmed(void)
{
	OSSL_PROVIDER *provider = OSSL_PROVIDER_load(NULL, "sysgenid");
	uint64_t count = UINT64_MAX;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint64("sysgenid-unconfirmed", &count),
		OSSL_PARAM_construct_end(),
	};

	if (!provider || !OSSL_PROVIDER_get_params(provider, params))
		die("the provider cannot be asked");
	OSSL_PROVIDER_unload(provider);
	return count;
}

static int ok(int number, bool good, const char *name)
{
	printf("%sok %d %s\n", good ? "" : "not ", number, name);
	return !good;
}

int main(int argc, char **argv)
{
	const char *expected = "sysgenid";
	pthread_t threads[PLACES];
	pid_t processes[PLACES];
	uint64_t failures = 0;
	bool as_expected;
	time_t start;
	int bad = 0;

	if (argc == 2 && !strcmp(argv[1], "--plain")) {
		expected = "default";
		kept = KEPT_PLAIN;
	} else if (argc != 1) {
		die("usage: openssl_clone_test [--plain]");
	}
	generation = map_generation();
	before = atomic_load(generation);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	drawn_by_child = mmap(NULL, sizeof(*drawn_by_child), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || drawn_by_child == MAP_FAILED)
		die("no memory: %m");

	/* What children inherit has been drawn from. */
	own_context = new_context();
	draw();
	draw_private();
	draw_from_own_context();
	as_expected = !strcmp(provider_of(RAND_get0_public(NULL)), expected) &&
		      !strcmp(provider_of(RAND_get0_private(NULL)), expected) &&
		      !strcmp(provider_of(RAND_get0_primary(NULL)), expected) &&
		      !strcmp(provider_of(RAND_get0_public(own_context)), expected);

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
	}

	printf("TAP version 13\n1..4\n");
	bad += ok(1, as_expected, "generators_are_of_the_expected_provider");
	bad += ok(2, failures == 0, "no_draw_has_failed");
	bad += ok(3, kept == KEPT_PLAIN || unconfirmed() == 0, "the_kernel_had_its_say");
	for (size_t i = 0; i < PLACES; i++)
		failures += shared->reports[i].turns < AFTER;
	bad += ok(4, failures == 0, "all_places_have_come_to_their_end");
	/* Last: they are long, and no detail of a test that has failed. */
	for (size_t i = 0; i < PLACES; i++)
		show(i);
	return bad ? 1 : 0;
}
