// SPDX-License-Identifier: GPL-2.0
/*
 * Plays the hypervisor for the tests: changes the VM generation ID in its place
 * in memory, and raises notifications of the VMGenID device.
 *
 * In /sys/module/sysgenid_hypervisor/parameters:
 *
 *	notify	N raises N notifications; the ID is left as it is
 *	change	N times: a new ID, and one notification
 *	begin	N times, likewise; but who writes this does not wait
 *	id	the ID, as 32 hexadecimal digits; written, it is changed, and
 *		nobody is notified
 *	storm	K raises notifications until 0 is written; with each K-th comes
 *		a new ID
 *	fork	N times: a new ID, and the kernel's notification of virtual machine
 *		forks, from a hard interrupt, as on machines with a device tree
 *	hold	1 holds whoever is told of forks by the kernel, and all who come after,
 *		between the reseed and that, until the ID is another one than then; N
 *		holds for N milliseconds; 0 holds nobody
 *	held	how many times somebody was held, or is
 *	resumed	N times: what the kernel says when it hibernates, and comes back
 *	raised	how many notifications were raised so far
 *	written	how many IDs were written since it was looked at last
 *
 * A write to notify and to change returns when all has been handled.
 *
 * A notification is raised as a general-purpose event raises it: the event's AML
 * method is evaluated from ACPI's work queue. If it was evaluated from here, then
 * acpi_os_wait_events_complete() would not wait for it, and whoever removes a
 * notify handler would run into what no hardware does.
 *
 * When this is unloaded, the place is left as it was found, for it belongs to the
 * hypervisor; and there is a last notification if the ID changes by that. Without
 * it, whoever hears the device would take the next one for a change.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/acpi.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/hex.h>
#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/suspend.h>

#define ID_SIZE		16

/*
 * Notifications that are on their way at once in a storm, and the pause after as
 * many. The rest of the guest is to go on, also where it is slow.
 */
#define STORM_BURST	4
#define STORM_PAUSE_US	1000

/* How often somebody who is held looks at the ID. */
#define HOLD_PAUSE_US	1000

/* More on their way at once would be no test, but a lack of memory. */
#define BURST		256

static char *method = "\\_GPE._E05";
module_param(method, charp, 0444);
MODULE_PARM_DESC(method, "The method of the event by which the device is notified");

/* The ID in its place; NULL before this is initialized, and after its end. */
static u64 *place;
static u64 found[ID_SIZE / sizeof(u64)];
static acpi_handle event;
static atomic_long_t raised = ATOMIC_LONG_INIT(0);
static atomic_long_t written = ATOMIC_LONG_INIT(0);
static struct task_struct *storm;
static unsigned int storm_period;

static void write_id(const u64 *id)
{
	int i;

	/* Others read it at the same time. */
	for (i = 0; i < ID_SIZE / sizeof(u64); i++)
		WRITE_ONCE(place[i], id[i]);
	atomic_long_inc(&written);
}

static void write_new_id(void)
{
	u64 id[ID_SIZE / sizeof(u64)];

	get_random_bytes(id, sizeof(id));
	write_id(id);
}

/* Runs in ACPI's work queue. */
static void run_event(void *context)
{
	acpi_status status = acpi_evaluate_object(event, NULL, NULL, NULL);

	if (ACPI_SUCCESS(status))
		atomic_long_inc(&raised);
	else
		pr_err("cannot evaluate %s: %s\n", method,
		       acpi_format_exception(status));
}

static int raise_notification(void)
{
	/* It allocates memory, and there may be none at the moment. */
	if (ACPI_FAILURE(acpi_os_execute(OSL_GPE_HANDLER, run_event, NULL)))
		return -ENOMEM;
	return 0;
}

/* Raises as many as @val says, at most @burst of them on their way at once. */
static int raise_many(const char *val, unsigned int burst, bool change)
{
	unsigned int count, i;
	int ret;

	if (!place)
		return -ENODEV;
	ret = kstrtouint(val, 0, &count);
	for (i = 0; !ret && i < count; i++) {
		if (change)
			write_new_id();
		ret = raise_notification();
		if (i % burst == burst - 1)
			acpi_os_wait_events_complete();
	}
	acpi_os_wait_events_complete();
	return ret;
}

static int notify_set(const char *val, const struct kernel_param *kp)
{
	return raise_many(val, BURST, false);
}

static const struct kernel_param_ops notify_ops = {
	.set = notify_set,
};

module_param_cb(notify, &notify_ops, NULL, 0200);
MODULE_PARM_DESC(notify, "Notifications to be raised");

static int change_set(const char *val, const struct kernel_param *kp)
{
	/* Two at once are one change. */
	return raise_many(val, 1, true);
}

static const struct kernel_param_ops change_ops = {
	.set = change_set,
};

module_param_cb(change, &change_ops, NULL, 0200);
MODULE_PARM_DESC(change, "Changes of the ID, with a notification each");

static int begin_set(const char *val, const struct kernel_param *kp)
{
	unsigned int count;
	int ret;

	if (!place)
		return -ENODEV;
	ret = kstrtouint(val, 0, &count);
	while (!ret && count--) {
		write_new_id();
		ret = raise_notification();
	}
	return ret;
}

static const struct kernel_param_ops begin_ops = {
	.set = begin_set,
};

module_param_cb(begin, &begin_ops, NULL, 0200);
MODULE_PARM_DESC(begin, "Changes of the ID, with a notification each, that nobody waits for");

static int id_set(const char *val, const struct kernel_param *kp)
{
	u64 id[ID_SIZE / sizeof(u64)];

	if (!place)
		return -ENODEV;
	if (strcspn(val, "\n") != 2 * ID_SIZE || hex2bin((u8 *)id, val, ID_SIZE))
		return -EINVAL;
	write_id(id);
	return 0;
}

static int id_get(char *buffer, const struct kernel_param *kp)
{
	if (!place)
		return -ENODEV;
	return sysfs_emit(buffer, "%*phN\n", ID_SIZE, place);
}

static const struct kernel_param_ops id_ops = {
	.set = id_set,
	.get = id_get,
};

module_param_cb(id, &id_ops, NULL, 0600);
MODULE_PARM_DESC(id, "The ID");

static int storm_main(void *unused)
{
	unsigned int count = 0;

	while (!kthread_should_stop()) {
		if (++count % storm_period == 0)
			write_new_id();
		/* The next one makes up for one that there was no memory for. */
		raise_notification();
		if (count % STORM_BURST == 0) {
			acpi_os_wait_events_complete();
			usleep_range(STORM_PAUSE_US, 2 * STORM_PAUSE_US);
		}
	}
	acpi_os_wait_events_complete();
	return 0;
}

static void end_storm(void)
{
	if (storm)
		kthread_stop(storm);
	storm = NULL;
}

static int storm_set(const char *val, const struct kernel_param *kp)
{
	unsigned int period;
	int ret;

	if (!place)
		return -ENODEV;
	ret = kstrtouint(val, 0, &period);
	if (ret)
		return ret;
	end_storm();
	if (!period)
		return 0;
	storm_period = period;
	storm = kthread_run(storm_main, NULL, KBUILD_MODNAME);
	if (IS_ERR(storm)) {
		ret = PTR_ERR(storm);
		storm = NULL;
	}
	return ret;
}

static const struct kernel_param_ops storm_ops = {
	.set = storm_set,
};

module_param_cb(storm, &storm_ops, NULL, 0200);
MODULE_PARM_DESC(storm, "Begins (the period of new IDs) or ends (0) a storm of notifications");

/* Functions that the kernel does not export, or not in each of its configurations. */
static void *find_function(const char *name)
{
	struct kprobe probe = { .symbol_name = name };
	int ret = register_kprobe(&probe);

	if (ret)
		return ERR_PTR(ret);
	unregister_kprobe(&probe);
	return probe.addr;
}

static void (*add_randomness)(const void *id, size_t len);

static DECLARE_COMPLETION(forked);

static enum hrtimer_restart run_fork(struct hrtimer *timer)
{
	add_randomness(place, ID_SIZE);
	complete(&forked);
	return HRTIMER_NORESTART;
}

static int fork_set(const char *val, const struct kernel_param *kp)
{
	struct hrtimer timer;
	unsigned int count;
	int ret;

	if (!place)
		return -ENODEV;
	ret = kstrtouint(val, 0, &count);
	add_randomness = find_function("add_vmfork_randomness");
	if (IS_ERR(add_randomness))
		return PTR_ERR(add_randomness);
	hrtimer_setup_on_stack(&timer, run_fork, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	while (!ret && count--) {
		write_new_id();
		hrtimer_start(&timer, ns_to_ktime(1000), HRTIMER_MODE_REL_HARD);
		wait_for_completion(&forked);
		hrtimer_cancel(&timer);
	}
	destroy_hrtimer_on_stack(&timer);
	return ret;
}

static const struct kernel_param_ops fork_ops = {
	.set = fork_set,
};

module_param_cb(fork, &fork_ops, NULL, 0200);
MODULE_PARM_DESC(fork, "Changes of the ID, with a notification of a fork each, from hard interrupts");

static unsigned int hold;
static bool hold_is_registered;
static atomic_long_t held = ATOMIC_LONG_INIT(0);

static int run_hold(struct notifier_block *block, unsigned long action, void *data)
{
	u64 id[ID_SIZE / sizeof(u64)];
	unsigned int time = READ_ONCE(hold);

	if (!time || in_hardirq())
		return NOTIFY_DONE;
	memcpy(id, place, ID_SIZE);
	atomic_long_inc(&held);
	if (time > 1)
		msleep(time);
	else
		while (!memcmp(id, place, ID_SIZE) && READ_ONCE(hold))
			usleep_range(HOLD_PAUSE_US, 2 * HOLD_PAUSE_US);
	return NOTIFY_DONE;
}

/* Before the driver, which is the first but one. */
static struct notifier_block hold_block = {
	.notifier_call = run_hold,
	.priority = INT_MAX,
};

static int hold_set(const char *val, const struct kernel_param *kp)
{
	unsigned int time;
	int ret = kstrtouint(val, 0, &time);

	if (ret)
		return ret;
	if (!place)
		return -ENODEV;
	if (!hold_is_registered) {
		/* This does nothing in a kernel that tells nobody of forks. */
		ret = register_random_vmfork_notifier(&hold_block);
		hold_is_registered = !ret;
	}
	WRITE_ONCE(hold, time);
	return ret;
}

static const struct kernel_param_ops hold_ops = {
	.set = hold_set,
};

module_param_cb(hold, &hold_ops, NULL, 0200);
MODULE_PARM_DESC(hold, "Holds those who are told of forks");

static int held_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&held));
}

static const struct kernel_param_ops held_ops = {
	.get = held_get,
};

module_param_cb(held, &held_ops, NULL, 0400);
MODULE_PARM_DESC(held, "How many times somebody was held");

static int resumed_set(const char *val, const struct kernel_param *kp)
{
	int (*call_chain)(unsigned long val) = find_function("pm_notifier_call_chain");
	unsigned int count;
	int ret;

	if (IS_ERR(call_chain))
		return PTR_ERR(call_chain);
	ret = kstrtouint(val, 0, &count);
	while (!ret && count--) {
		call_chain(PM_HIBERNATION_PREPARE);
		call_chain(PM_POST_HIBERNATION);
	}
	return ret;
}

static const struct kernel_param_ops resumed_ops = {
	.set = resumed_set,
};

module_param_cb(resumed, &resumed_ops, NULL, 0200);
MODULE_PARM_DESC(resumed, "Notifications that the system hibernates, and has come back");

static int raised_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&raised));
}

static const struct kernel_param_ops raised_ops = {
	.get = raised_get,
};

module_param_cb(raised, &raised_ops, NULL, 0400);
MODULE_PARM_DESC(raised, "Notifications that were raised");

static int written_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_xchg(&written, 0));
}

static const struct kernel_param_ops written_ops = {
	.get = written_get,
};

module_param_cb(written, &written_ops, NULL, 0400);
MODULE_PARM_DESC(written, "IDs that were written since this was read last");

/* The physical address of the ID, or 0. */
static phys_addr_t find_id(void)
{
	/* The tests have devices of their own by Firecracker's ID. */
	static const char * const ids[] = { "VM_GEN_COUNTER", "VMGENCTR" };
	struct acpi_buffer buffer = { ACPI_ALLOCATE_BUFFER };
	struct acpi_device *device = NULL;
	union acpi_object *addr, *half;
	phys_addr_t address = 0;
	acpi_status status;
	int i;

	for (i = 0; !device && i < ARRAY_SIZE(ids); i++)
		device = acpi_dev_get_first_match_dev(ids[i], NULL, -1);
	if (!device) {
		pr_err("there is no VMGenID device\n");
		return 0;
	}
	status = acpi_evaluate_object(acpi_device_handle(device), "ADDR", NULL,
				      &buffer);
	addr = buffer.pointer;
	if (ACPI_SUCCESS(status) && addr && addr->type == ACPI_TYPE_PACKAGE &&
	    addr->package.count == 2) {
		half = addr->package.elements;
		if (half[0].type == ACPI_TYPE_INTEGER &&
		    half[1].type == ACPI_TYPE_INTEGER)
			address = half[0].integer.value |
				  half[1].integer.value << 32;
	}
	if (!address)
		pr_err("ADDR of %s gives no address\n",
		       acpi_device_bid(device));
	kfree(buffer.pointer);
	acpi_dev_put(device);
	return address;
}

static int __init hypervisor_init(void)
{
	phys_addr_t address = find_id();
	u64 *mapped;

	if (!address)
		return -ENODEV;
	if (ACPI_FAILURE(acpi_get_handle(NULL, method, &event))) {
		pr_err("there is no method %s; name the one that notifies the device\n",
		       method);
		return -ENODEV;
	}
	mapped = memremap(address, ID_SIZE, MEMREMAP_WB | MEMREMAP_DEC);
	if (!mapped)
		return -ENOMEM;
	memcpy(found, mapped, ID_SIZE);
	kernel_param_lock(THIS_MODULE);
	place = mapped;
	kernel_param_unlock(THIS_MODULE);
	return 0;
}

static void __exit hypervisor_exit(void)
{
	u64 *mapped = place;

	/* The parameters outlive this function. */
	kernel_param_lock(THIS_MODULE);
	end_storm();
	WRITE_ONCE(hold, 0);
	if (hold_is_registered)
		unregister_random_vmfork_notifier(&hold_block);
	if (memcmp(found, mapped, ID_SIZE)) {
		write_id(found);
		raise_notification();
	}
	place = NULL;
	kernel_param_unlock(THIS_MODULE);
	acpi_os_wait_events_complete();
	memunmap(mapped);
}

module_init(hypervisor_init);
module_exit(hypervisor_exit);

MODULE_DESCRIPTION("Plays the hypervisor's part of VMGenID, for tests");
MODULE_AUTHOR("The sysgenid authors");
MODULE_LICENSE("GPL");
