// SPDX-License-Identifier: MIT OR Apache-2.0
/* Draws by glibc's arc4random_buf(). */

#define _DEFAULT_SOURCE
#include "draw.h"

static bool draw(unsigned char *bytes, size_t len)
{
	arc4random_buf(bytes, len);
	return true;
}

int main(void)
{
	return serve(draw);
}
