// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A program that knows nothing of clones, and of which nothing else knows: it is
 * frozen, goes on in each clone, and ends with a status of its own.
 */

#include <stdio.h>
#include <unistd.h>

int main(void)
{
	int i;

	puts("READY");
	fflush(stdout);
	for (i = 0; i < 50; i++)
		usleep(20000);
	puts("alive");
	return 3;
}
