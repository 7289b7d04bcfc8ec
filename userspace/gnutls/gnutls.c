// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * GnuTLS in clones: a library that is preloaded, and stands before gnutls_rnd().
 *
 *	LD_PRELOAD=/usr/lib/x86_64-linux-gnu/sysgenid/gnutls.so PROGRAM
 *
 * All random bytes that GnuTLS uses itself, for keys, nonces and session IDs, and all
 * that programs ask it for, are drawn by gnutls_rnd(). It is called by its name, through
 * the dynamic linker, also within the library; so whoever defines that name first is
 * asked first. What is defined here looks whether the machine was cloned, has
 * GnuTLS seed its generators of this thread anew if so (gnutls_rnd_refresh()), draws,
 * and looks again before the bytes leave.
 *
 * To register a generator would be less roundabout. GnuTLS has a function for that,
 * gnutls_crypto_rnd_register(), for itself only: in 3.8 a private header declares it
 * (lib/crypto-backend.h), and the library does not export it.
 *
 * Where SYSGENID_GNUTLS_DEBUG is set in the environment, it says on standard error what
 * it does.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sysgenid.h>

/* How often bytes are drawn again because the generation has changed meanwhile. */
#define ATTEMPTS	16

/*
 * What <gnutls/gnutls.h> and <gnutls/crypto.h> say, which are not needed to build this:
 * GNUTLS_E_RANDOM_FAILED, and a level as a number.
 */
#define RANDOM_FAILED	(-206)

typedef int rnd_function(unsigned int level, void *data, size_t len);
typedef void refresh_function(void);
typedef unsigned int fips_function(void);

#define EXPORTED	__attribute__((visibility("default")))

EXPORTED rnd_function gnutls_rnd;

static struct {
	rnd_function *rnd;
	refresh_function *refresh;
	/* GnuTLS's generator of FIPS 140 refuses to be refreshed. */
	bool is_fixed;
	/* NULL without a device. */
	_Atomic(struct sysgenid *) machine;
	/* The second in which one was looked for last. */
	_Atomic(time_t) looked;
} gnutls;

static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* What was seen when this thread's generators were seeded: nothing, at first. */
static _Thread_local struct sysgenid_seen seen;
/* What was settled then. */
static _Thread_local struct sysgenid_fresh fresh;

static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	const char *asked = secure_getenv("SYSGENID_GNUTLS_DEBUG");
	va_list arguments;

	if (!asked || !*asked)
		return;
	va_start(arguments, format);
	fputs("sysgenid: GnuTLS: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

/* What GnuTLS itself has by that name, however it was loaded. */
static void *in_gnutls(const char *name)
{
	void *library, *symbol = dlsym(RTLD_NEXT, name);

	if (symbol)
		return symbol;
	/* A plugin brought it along, and the names in it are for nobody else. */
	library = dlopen("libgnutls.so.30", RTLD_LAZY | RTLD_NOLOAD);
	return library ? dlsym(library, name) : NULL;
}

/* Opens the device. Whoever did so at the same time has made it everybody's. */
static void look_for_machine(void)
{
	struct sysgenid *found, *none = NULL;

	if (sysgenid_open(&found))
		tell("off: %s", sysgenid_last_error());
	else if (!atomic_compare_exchange_strong(&gnutls.machine, &none, found))
		sysgenid_close(found);
	else if (sysgenid_id_page(found))
		tell("on, but a clone notices late: %s", sysgenid_last_error());
	else
		tell("on");
}

static time_t second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

/*
 * The module may be loaded when the program has long been running. A thread that draws
 * for the first time looks again, but no more than once a second in all threads.
 */
static struct sysgenid *machine(void)
{
	static _Thread_local bool has_looked;
	time_t now;

	if (!atomic_load(&gnutls.machine) && !has_looked) {
		has_looked = true;
		now = second();
		if (atomic_exchange(&gnutls.looked, now) != now)
			look_for_machine();
	}
	return atomic_load(&gnutls.machine);
}

static void prepare(void)
{
	fips_function *fips = (fips_function *)in_gnutls("gnutls_fips140_mode_enabled");

	gnutls.rnd = (rnd_function *)in_gnutls("gnutls_rnd");
	gnutls.refresh = (refresh_function *)in_gnutls("gnutls_rnd_refresh");
	gnutls.is_fixed = !gnutls.refresh || (fips && fips());
	atomic_store(&gnutls.looked, second());
	look_for_machine();
}

/* A program that starts with GnuTLS may forbid itself to open files later. */
static void __attribute__((constructor)) prepare_at_start(void)
{
	if (dlsym(RTLD_NEXT, "gnutls_rnd"))
		pthread_once(&prepared, prepare);
}

/* Adds (XOR) bytes that no other clone has. */
static bool add(unsigned char *data, size_t len)
{
	unsigned char bytes[256];
	size_t length, i;
	bool filled = true;

	for (; len && filled; data += length, len -= length) {
		length = len < sizeof(bytes) ? len : sizeof(bytes);
		filled = !sysgenid_fill(&fresh, bytes, length);
		for (i = 0; i < length; i++)
			data[i] ^= bytes[i];
	}
	explicit_bzero(bytes, sizeof(bytes));
	return filled;
}

/*
 * GnuTLS seeds its generators from the kernel alone. Where that does not vouch for its
 * bytes, and where GnuTLS does not seed them anew, more is added to what they give.
 */
static bool is_enough(void)
{
	return fresh.freshness == SYSGENID_FRESH_RESEEDED && !gnutls.is_fixed;
}

int gnutls_rnd(unsigned int level, void *data, size_t len)
{
	struct sysgenid *handle;
	int result, i;

	pthread_once(&prepared, prepare);
	if (!gnutls.rnd)
		return RANDOM_FAILED;
	handle = machine();
	if (!handle)
		return gnutls.rnd(level, data, len);
	for (i = 0; i <= ATTEMPTS; i++) {
		if (sysgenid_changed(handle, &seen)) {
			sysgenid_settle(handle, &fresh);
			seen = fresh.seen;
			/* It does nothing in a thread that has drawn nothing yet. */
			if (gnutls.refresh)
				gnutls.refresh();
		}
		result = gnutls.rnd(level, data, len);
		if (result < 0)
			return result;
		if (!is_enough() && !add(data, len))
			break;
		if (!sysgenid_changed(handle, &seen))
			return result;
	}
	memset(data, 0, len);
	return RANDOM_FAILED;
}
