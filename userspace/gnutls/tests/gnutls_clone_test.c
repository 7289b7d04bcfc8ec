// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Draws random bytes from GnuTLS without a pause, in all ways that programs do, while
 * the machine is cloned.
 *
 *	LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so gnutls_clone_test
 *	gnutls_clone_test --plain
 *
 * It knows nothing of the library that is preloaded; with --plain it expects that there
 * is none. What it prints, and how it counts its turns, is told in
 * userspace/tests/turns.h.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

#include "../../tests/turns.h"

/* What this uses of <gnutls/gnutls.h> and <gnutls/crypto.h>. */
enum { GNUTLS_RND_NONCE, GNUTLS_RND_RANDOM, GNUTLS_RND_KEY };
struct gnutls_datum {
	unsigned char *data;
	unsigned int size;
};
extern int gnutls_rnd(int level, void *data, size_t len);
extern int gnutls_key_generate(struct gnutls_datum *key, unsigned int size);
extern void (*gnutls_free)(void *data);

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

static const struct place all_places[] = {
	{ "nonce", draw_nonce, false },
	{ "random", draw_random, false },
	{ "key", draw_key, false },
	{ "key_generate", generate, false },
	{ "child", draw_random, true },
};

/* Whether the function that draws is that of the library which is preloaded. */
static bool is_preloaded(void)
{
	Dl_info info;

	return dladdr(dlsym(RTLD_DEFAULT, "gnutls_rnd"), &info) &&
	       strstr(info.dli_fname, "sysgenid");
}

int main(int argc, char **argv)
{
	bool plain = argc == 2 && !strcmp(argv[1], "--plain");
	int bad = 0;

	if (argc != 1 && !plain)
		die("usage: gnutls_clone_test [--plain]");
	/* What the child inherits has been drawn from. */
	draw_random();

	run_places(all_places, sizeof(all_places) / sizeof(*all_places), plain ? KEPT_PLAIN : KEPT);

	printf("TAP version 13\n1..3\n");
	bad += ok(1, is_preloaded() != plain, "drawn_from_what_was_preloaded");
	bad += ok(2, no_draw_has_failed(), "no_draw_has_failed");
	bad += ok(3, all_have_ended(), "all_places_have_come_to_their_end");
	show_turns();
	return bad ? 1 : 0;
}
