// SPDX-License-Identifier: MIT OR Apache-2.0
/* Draws by OpenSSL's RAND_bytes(). */

#include <openssl/rand.h>

#include "draw.h"

static bool draw(unsigned char *bytes, size_t len)
{
	return RAND_bytes(bytes, len) == 1;
}

int main(void)
{
	return serve(draw);
}
