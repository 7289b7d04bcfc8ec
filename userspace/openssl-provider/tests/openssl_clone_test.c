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
 * What it prints, and how it counts its turns, is told in userspace/tests/turns.h.
 */

#define _GNU_SOURCE
#include "common.h"
#include "../../tests/turns.h"

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

static const struct place all_places[] = {
	{ "RAND_bytes", draw, false },
	{ "RAND_priv_bytes", draw_private, false },
	{ "own_context", draw_from_own_context, false },
	{ "child", draw, true },
	{ "new_threads", draw_in_new_thread, false },
	{ "new_children", draw_in_new_child, true },
};

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

int main(int argc, char **argv)
{
	bool plain = argc == 2 && !strcmp(argv[1], "--plain");
	const char *expected = plain ? "default" : "sysgenid";
	bool as_expected;
	int bad = 0;

	if (argc != 1 && !plain)
		die("usage: openssl_clone_test [--plain]");
	drawn_by_child = mmap(NULL, sizeof(*drawn_by_child), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (drawn_by_child == MAP_FAILED)
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

	run_places(all_places, sizeof(all_places) / sizeof(*all_places), plain ? KEPT_PLAIN : KEPT);

	printf("TAP version 13\n1..4\n");
	bad += ok(1, as_expected, "generators_are_of_the_expected_provider");
	bad += ok(2, no_draw_has_failed(), "no_draw_has_failed");
	bad += ok(3, plain || unconfirmed() == 0, "the_kernel_had_its_say");
	bad += ok(4, all_have_ended(), "all_places_have_come_to_their_end");
	show_turns();
	return bad ? 1 : 0;
}
