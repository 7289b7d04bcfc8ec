// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Draws by GnuTLS's gnutls_rnd(), at the level that is asked for (nonce, random or key),
 * or by gnutls_key_generate(), which calls it within the library.
 */

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "draw.h"

static gnutls_rnd_level_t level;

static bool draw(unsigned char *bytes, size_t len)
{
	return gnutls_rnd(level, bytes, len) == 0;
}

static bool generate(unsigned char *bytes, size_t len)
{
	gnutls_datum_t key;
	bool good = gnutls_key_generate(&key, len) == 0;

	if (good) {
		memcpy(bytes, key.data, len);
		gnutls_free(key.data);
	}
	return good;
}

int main(int argc, char **argv)
{
	const char *name = argc == 2 ? argv[1] : "";

	if (!strcmp(name, "nonce"))
		level = GNUTLS_RND_NONCE;
	else if (!strcmp(name, "random"))
		level = GNUTLS_RND_RANDOM;
	else if (!strcmp(name, "key"))
		level = GNUTLS_RND_KEY;
	else if (!strcmp(name, "generate"))
		return serve(generate);
	else
		return 2;
	return serve(draw);
}
