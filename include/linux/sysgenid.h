/* SPDX-License-Identifier: GPL-2.0 */

/*
 * The system generation, for other kernel code.
 *
 * The interface for user space, and the words that are used here, are in
 * include/uapi/linux/sysgenid.h.
 */

#ifndef _LINUX_SYSGENID_H
#define _LINUX_SYSGENID_H

/**
 * sysgenid_bump_generation() - change the system generation
 *
 * To be called when this system may have been cloned or restored, by whoever
 * finds that out and is none of the sources that the driver knows by itself.
 * All watchers become outdated, and user space is told, with "kernel" as the
 * source of the change.
 *
 * What the caller is responsible for must be done before the call, above all
 * that the kernel's random number generator is reseeded: a program that sees
 * the generation change relies on getrandom() to give bytes that no other
 * clone gets.
 *
 * When this returns then the change has been made. If the driver is built into
 * the kernel and is not initialized yet, nothing is done: there is nobody who
 * has seen a generation.
 *
 * Context: Process context. May sleep.
 */
void sysgenid_bump_generation(void);

#endif /* _LINUX_SYSGENID_H */
