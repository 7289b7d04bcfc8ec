/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Programs that draw random bytes without a pause, in all ways that programs do, while
 * the machine is cloned.
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
 *
 * Who includes this has die(), which does not return.
 */

#ifndef SYSGENID_TURNS_H
#define SYSGENID_TURNS_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * How many of the last turns are kept: more than there are between the resume and
 * the change. Where clones are heeded there is none that lets anything out.
 */
#define KEPT		(1 << 10)
#define KEPT_PLAIN	(1 << 15)

/* How many turns there are after the change. */
#define AFTER		64

/* How long the clone may take to show a change, in seconds. */
#define LIMIT		60

#define MOST_PLACES	8

enum { DRAWING = 1, LEFT = 2 };

/* Where something is drawn. */
struct place {
	const char *name;
	/* Nobody draws 0: that is a failure. */
	uint64_t (*draw)(void);
	/* In a process of its own, because it forks or was forked. */
	bool process;
};

/* Shared with the processes. */
struct shared {
	/* In a page of its own. */
	_Alignas(4096) _Atomic uint64_t turns[512];
	_Alignas(4096) struct {
		uint64_t turns;
		uint64_t failures;
		uint64_t draws[KEPT_PLAIN];
	} reports[MOST_PLACES];
};

static struct shared *shared;
static const struct place *places;
static size_t number_of_places;
static const _Atomic uint32_t *generation;
static uint32_t before;
static uint64_t kept;

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
	for (size_t i = 0; i < number_of_places; i++)
		if (atomic_load(&shared->turns[i]) < 4)
			return false;
	return true;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

/* Runs all places across the change, and keeps so many of their last turns. */
static void run_places(const struct place *all, size_t number, uint64_t keep)
{
	pthread_t threads[MOST_PLACES];
	pid_t processes[MOST_PLACES];
	time_t start;

	places = all;
	number_of_places = number;
	kept = keep;
	generation = map_generation();
	before = atomic_load(generation);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		die("no memory: %m");

	atomic_store(&shared->turns[0], 0);
	printf("# turns %#llx %zu\n", (unsigned long long)physical_address(shared->turns), number);
	for (size_t i = 0; i < number; i++)
		printf("# place %zu %s\n", i, places[i].name);
	fflush(stdout);
	/* Those first: a process with threads is not one to fork. */
	for (size_t i = 0; i < number; i++)
		if (places[i].process)
			processes[i] = place_process(i);
	for (uintptr_t i = 0; i < number; i++)
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
	for (size_t i = 0; i < number; i++) {
		if (places[i].process)
			waitpid(processes[i], NULL, 0);
		else
			pthread_join(threads[i], NULL);
	}
}

static bool no_draw_has_failed(void)
{
	for (size_t i = 0; i < number_of_places; i++)
		if (shared->reports[i].failures)
			return false;
	return true;
}

static bool all_have_ended(void)
{
	for (size_t i = 0; i < number_of_places; i++)
		if (shared->reports[i].turns < AFTER)
			return false;
	return true;
}

static int ok(int number, bool good, const char *name)
{
	printf("%sok %d %s\n", good ? "" : "not ", number, name);
	return !good;
}

/* Last of all: the lines are long, and no detail of a test that has failed. */
static void show_turns(void)
{
	for (size_t i = 0; i < number_of_places; i++) {
		uint64_t turns = shared->reports[i].turns;
		uint64_t turn = turns > kept ? turns - kept : 0;

		printf("# draws %zu %llu ", i, (unsigned long long)turn);
		for (; turn < turns; turn++)
			printf("%016llx,",
			       (unsigned long long)shared->reports[i].draws[turn % kept]);
		printf("\n");
	}
}

#endif
