// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The library that is preloaded, call by call, before something that it takes for
 * GnuTLS. Prints TAP. It changes the generation, so it wants root.
 *
 *	LD_PRELOAD=.../sysgenid/gnutls.so gnutls_test
 *
 * With FAKE_FIPS in the environment it tries what is different in the mode of FIPS 140;
 * with LATE_MODULE, where the module is not loaded, it loads the one that this names.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_gnutls.h"

#define LEN	600

static int number;
static bool bad;
static unsigned char bytes[LEN];

static void ok(bool good, const char *name)
{
	printf("%sok %d %s\n", good ? "" : "not ", ++number, name);
	bad |= !good;
}

static bool all_are(unsigned char value)
{
	for (size_t i = 0; i < LEN; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

/* Draws, after which so many more draws have been made. */
static int draw(unsigned int *draws)
{
	int result;

	fake.draws = 0;
	memset(bytes, 0xff, LEN);
	result = gnutls_rnd(2, bytes, LEN);
	*draws = fake.draws;
	return result;
}

static void *in_a_thread(void *result)
{
	unsigned int draws;

	*(bool *)result = draw(&draws) == 0;
	return NULL;
}

static bool draws_in_a_thread(void)
{
	pthread_t thread;
	bool good = false;

	if (!pthread_create(&thread, NULL, in_a_thread, &good))
		pthread_join(thread, NULL);
	return good;
}

/* The device comes when the program has long been running. */
static void try_a_late_device(const char *module)
{
	char command[256];
	unsigned int draws;
	bool good;

	printf("1..4\n");
	good = draw(&draws) == 0;
	ok(good && draws == 1 && !fake.refreshed, "drawn_without_a_device");
	snprintf(command, sizeof(command), "insmod '%s'", module);
	good = system(command) == 0;
	/* It is not looked for twice in a second. */
	sleep(2);
	good &= draw(&draws) == 0;
	ok(good && !fake.refreshed, "a_thread_that_has_drawn_does_not_look_again");
	good = draws_in_a_thread();
	ok(good && fake.refreshed == 1, "a_new_one_does");
	good = draw(&draws) == 0;
	ok(good && fake.refreshed == 2, "and_then_the_old_one_heeds_it_as_well");
}

int main(void)
{
	unsigned int draws;
	bool good;

	printf("TAP version 13\n");
	if (getenv("LATE_MODULE")) {
		try_a_late_device(getenv("LATE_MODULE"));
		return bad;
	}
	if (getenv("FAKE_FIPS")) {
		/* Nothing of what GnuTLS gives may be recognised: more is added to it. */
		printf("1..2\n");
		good = draw(&draws) == 0;
		ok(good && draws == 1, "a_fixed_generator_is_drawn_from");
		good = true;
		for (size_t i = 0; i + 8 <= LEN; i += 8)
			good &= memcmp(bytes + i, "\1\1\1\1\1\1\1\1", 8) != 0;
		ok(good, "more_is_added_to_all_of_it");
		return bad;
	}
	printf("1..9\n");
	good = draw(&draws) == 0;
	ok(good && draws == 1 && fake.level == 2, "drawn_once");
	ok(fake.refreshed == 1 && all_are(1), "refreshed_before_the_first_draw");
	good = draw(&draws) == 0 && draws == 1;
	ok(good && fake.refreshed == 1 && all_are(1), "not_refreshed_while_nothing_changes");
	fake.changes = 1;
	good = draw(&draws) == 0;
	ok(good && draws == 2, "drawn_anew_after_a_change_meanwhile");
	ok(fake.refreshed == 2 && all_are(2), "refreshed_for_it");
	fake.changes = 1000;
	good = draw(&draws) < 0;
	ok(good && draws == 17, "a_generation_that_never_rests_is_an_error");
	ok(all_are(0), "and_leaves_nothing");
	fake.changes = 0;
	fake.result = -7;
	ok(draw(&draws) == -7 && draws == 1, "an_error_is_the_callers");
	fake.result = 0;
	draw(&draws);
	fake.refreshed = 0;
	good = draws_in_a_thread();
	ok(good && fake.refreshed == 1, "each_thread_has_generators_of_its_own");
	return bad;
}
