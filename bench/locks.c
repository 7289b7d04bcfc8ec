// SPDX-License-Identifier: MIT OR Apache-2.0

#define _GNU_SOURCE
#include "common.h"
#include "locks.h"

/*
 * All ways to take a lock that the kernel has, and to wait for one: what is taken in
 * code is a call of one of them. Those that were tried in vain count, too.
 */
static const char * const functions[] = {
	"_raw_spin_lock",
	"_raw_spin_lock_bh",
	"_raw_spin_lock_irq",
	"_raw_spin_lock_irqsave",
	"_raw_spin_trylock",
	"_raw_read_lock",
	"_raw_read_lock_irq",
	"_raw_read_lock_irqsave",
	"_raw_write_lock",
	"_raw_write_lock_irq",
	"_raw_write_lock_irqsave",
	"mutex_lock",
	"mutex_lock_interruptible",
	"mutex_lock_killable",
	"mutex_trylock",
	"down_read",
	"down_read_killable",
	"down_write",
	"down_write_killable",
};

/* The hits of all probes, since they are there: “  locks/_raw_spin_lock   12   0”. */
static double hits(void)
{
	FILE *file = fopen(TRACING "/kprobe_profile", "re");
	double all = 0, one;
	char line[256];

	expect(file, TRACING "/kprobe_profile");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " %*s %lf", &one) == 1)
			all += one;
	fclose(file);
	return all;
}

/* What there was before, with what it takes to look. */
static double before;

void locks_count(void)
{
	static bool prepared;

	if (!prepared) {
		mount_tracing();
		for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
			char probe[128];

			snprintf(probe, sizeof(probe), "p:locks/%s %s", functions[i], functions[i]);
			write_text(TRACING "/kprobe_events", probe, O_APPEND);
		}
		write_text(TRACING "/events/locks/enable", "1", O_APPEND);
		prepared = true;
	}
	before = hits();
	before = 2 * hits() - before;
}

double locks_taken(void)
{
	double taken = hits() - before;

	return taken > 0 ? taken : 0;
}
