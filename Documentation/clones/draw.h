/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the programs in C have in common: each line on standard input is answered
 * with one on standard output, 16 bytes in hexadecimal.
 */
#ifndef DRAW_H
#define DRAW_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DRAW_LEN	16

/* Answers until nobody asks any more. `draw` returns false where it fails. */
static inline int serve(bool (*draw)(unsigned char *bytes, size_t len))
{
	unsigned char bytes[DRAW_LEN];
	char line[2 * DRAW_LEN + 2];
	char question;
	int i;

	while (read(STDIN_FILENO, &question, 1) == 1) {
		if (!draw(bytes, sizeof(bytes)))
			return EXIT_FAILURE;
		for (i = 0; i < DRAW_LEN; i++)
			snprintf(line + 2 * i, 3, "%02x", bytes[i]);
		line[2 * DRAW_LEN] = '\n';
		if (write(STDOUT_FILENO, line, 2 * DRAW_LEN + 1) != 2 * DRAW_LEN + 1)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

#endif
