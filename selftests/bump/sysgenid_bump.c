// SPDX-License-Identifier: GPL-2.0
/*
 * Calls sysgenid_bump_generation() for the tests: once for each write to
 * /sys/module/sysgenid_bump/parameters/bump, whatever is written.
 */

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sysgenid.h>

static int bump_set(const char *val, const struct kernel_param *kp)
{
	sysgenid_bump_generation();
	return 0;
}

static const struct kernel_param_ops bump_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = bump_set,
};

module_param_cb(bump, &bump_ops, NULL, 0200);
MODULE_PARM_DESC(bump, "Each write changes the system generation");

MODULE_DESCRIPTION("Changes the system generation, for tests");
MODULE_AUTHOR("The sysgenid authors");
MODULE_LICENSE("GPL");
