// SPDX-License-Identifier: MIT OR Apache-2.0
/* Draws by libsodium's randombytes_buf(). */

#include <sodium.h>

#include "draw.h"

static bool draw(unsigned char *bytes, size_t len)
{
	randombytes_buf(bytes, len);
	return true;
}

int main(void)
{
	if (sodium_init() < 0)
		return EXIT_FAILURE;
	return serve(draw);
}
