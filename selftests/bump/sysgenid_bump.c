// SPDX-License-Identifier: GPL-2.0
/*
 * Plays other kernel code for the tests. As often as is written to a file in
 * /sys/module/sysgenid_bump/parameters, it
 *
 *	bump		calls sysgenid_bump_generation()
 *	interrupt	calls it in a hard interrupt
 *	devices		registers a misc device, and takes it back
 */

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sysgenid.h>

static int bump_set(const char *val, const struct kernel_param *kp)
{
	unsigned int count;
	int ret = kstrtouint(val, 0, &count);

	while (!ret && count--)
		sysgenid_bump_generation();
	return ret;
}

static const struct kernel_param_ops bump_ops = {
	.set = bump_set,
};

module_param_cb(bump, &bump_ops, NULL, 0200);
MODULE_PARM_DESC(bump, "Changes of the system generation");

static DECLARE_COMPLETION(called);

static enum hrtimer_restart call(struct hrtimer *timer)
{
	sysgenid_bump_generation();
	complete(&called);
	return HRTIMER_NORESTART;
}

static int interrupt_set(const char *val, const struct kernel_param *kp)
{
	struct hrtimer timer;
	unsigned int count;
	int ret = kstrtouint(val, 0, &count);

	hrtimer_setup_on_stack(&timer, call, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	while (!ret && count--) {
		hrtimer_start(&timer, ns_to_ktime(1000), HRTIMER_MODE_REL_HARD);
		wait_for_completion(&called);
		hrtimer_cancel(&timer);
	}
	destroy_hrtimer_on_stack(&timer);
	return ret;
}

static const struct kernel_param_ops interrupt_ops = {
	.set = interrupt_set,
};

module_param_cb(interrupt, &interrupt_ops, NULL, 0200);
MODULE_PARM_DESC(interrupt, "Changes of the system generation, from hard interrupts");

static const struct file_operations no_operations = {
	.owner = THIS_MODULE,
};

static int devices_set(const char *val, const struct kernel_param *kp)
{
	unsigned int count;
	int ret = kstrtouint(val, 0, &count);

	while (!ret && count--) {
		struct miscdevice device = {
			.minor = MISC_DYNAMIC_MINOR,
			.name = KBUILD_MODNAME,
			.fops = &no_operations,
		};

		ret = misc_register(&device);
		if (!ret)
			misc_deregister(&device);
	}
	return ret;
}

static const struct kernel_param_ops devices_ops = {
	.set = devices_set,
};

module_param_cb(devices, &devices_ops, NULL, 0200);
MODULE_PARM_DESC(devices, "Misc devices that are registered, and taken back");

MODULE_DESCRIPTION("Other kernel code that changes the system generation, for tests");
MODULE_AUTHOR("The sysgenid authors");
MODULE_LICENSE("GPL");
