/* SPDX-License-Identifier: GPL-2.0 */

/*
 * The system generation, for other kernel code.
 *
 * The interface for user space, and the words that are used here, are in
 * include/uapi/linux/sysgenid.h.
 */

#ifndef _LINUX_SYSGENID_H
#define _LINUX_SYSGENID_H

#include <linux/kconfig.h>

/*
 * A module that is built for a driver that is not a part of the kernel's tree has
 * -DCONFIG_SYSGENID_MODULE among its compiler flags, and the driver's Module.symvers in
 * KBUILD_EXTRA_SYMBOLS.
 */
#if IS_REACHABLE(CONFIG_SYSGENID)

/**
 * sysgenid_bump_generation() - change the system generation
 *
 * To be called when this system may have been cloned or restored, by whoever
 * finds that out and is none of the sources that the driver knows by itself.
 * All watchers become outdated, and user space is told, with "kernel" as the
 * source of the change.
 *
 * The change is queued, and is made soon, after any that is due: when this
 * returns it may be yet to come. Each call makes one change. Before it the kernel's
 * random number generator is made to reseed. Whether that has anything new in it
 * is for the caller to see to, by add_device_randomness() for example, before the
 * call: a program that sees the generation change relies on getrandom() to give
 * bytes that no other clone gets.
 *
 * If the driver is built into the kernel and is not initialized yet, nothing is
 * done: there is nobody who has seen a generation.
 *
 * Context: Any context, hard interrupts included, but not NMIs.
 */
void sysgenid_bump_generation(void);

#else

/* Without the driver there is nobody who could see a generation. */
static inline void sysgenid_bump_generation(void)
{
}

#endif

#endif /* _LINUX_SYSGENID_H */
