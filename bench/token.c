// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A program that gives each line of its standard input a name that nobody else gives: a
 * random token, and a number. It is not run: what is measured is how much larger it is
 * with the library, which is what it is built with if SYSGENID is defined.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#ifdef SYSGENID
#include <sysgenid.h>

static struct sysgenid *machine;

static int begin(void)
{
	return sysgenid_open(&machine);
}

/* Makes the token, and makes it anew in a clone. */
static int look(uint64_t *token)
{
	static struct sysgenid_seen seen;

	if (!sysgenid_changed(machine, &seen))
		return 0;
	return sysgenid_random(machine, token, sizeof(*token), &seen);
}
#else
static int begin(void)
{
	return 0;
}

static int look(uint64_t *token)
{
	if (*token)
		return 0;
	return getrandom(token, sizeof(*token), 0) != sizeof(*token);
}
#endif

int main(void)
{
	unsigned long number = 0;
	uint64_t token = 0;
	char line[256];

	if (begin())
		return EXIT_FAILURE;
	while (fgets(line, sizeof(line), stdin)) {
		if (look(&token))
			return EXIT_FAILURE;
		printf("%016llx-%lu %s", (unsigned long long)token, number++, line);
	}
	return EXIT_SUCCESS;
}
