/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * How many locks the kernel takes, by its own count: of the hits of probes, at the
 * beginning of each function that takes one.
 */
#ifndef BENCH_LOCKS_H
#define BENCH_LOCKS_H

/* Begins to count. From then on all that the kernel does costs more. */
void locks_count(void);

/* How many were taken since, on any processor. */
double locks_taken(void);

#endif
