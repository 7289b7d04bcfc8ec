/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What gnutls_test.c tells fake_gnutls.c, and asks it.
 */
#ifndef FAKE_GNUTLS_H
#define FAKE_GNUTLS_H

#include <stddef.h>

struct fake_gnutls {
	/* How often the generation is changed by draws that come. */
	unsigned int changes;
	/* What a draw returns. */
	int result;
	/* How often it has drawn, at which level at last, and how often it was refreshed. */
	unsigned int draws;
	int level;
	unsigned char refreshed;
};

extern struct fake_gnutls fake;

int gnutls_rnd(int level, void *data, size_t len);

#endif
