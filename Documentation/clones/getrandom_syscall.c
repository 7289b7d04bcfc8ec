// SPDX-License-Identifier: MIT OR Apache-2.0
/* Draws by the system call getrandom(). */

#define _GNU_SOURCE
#include <sys/syscall.h>

#include "draw.h"

static bool draw(unsigned char *bytes, size_t len)
{
	return syscall(SYS_getrandom, bytes, len, 0) == (long)len;
}

int main(void)
{
	return serve(draw);
}
