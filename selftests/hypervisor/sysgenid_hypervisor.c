// SPDX-License-Identifier: GPL-2.0
/*
 * Plays the hypervisor for the tests: changes the VM generation ID in its place
 * in memory, and raises notifications of the VMGenID device.
 *
 * In /sys/module/sysgenid_hypervisor/parameters:
 *
 *	notify	N raises N notifications; the ID is left as it is
 *	change	N times: a new ID, and one notification
 *	id	the ID, as 32 hexadecimal digits; written, it is changed, and
 *		nobody is notified
 *	storm	K raises notifications until 0 is written; with each K-th comes
 *		a new ID
 *	raised	how many notifications were raised so far
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
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/hex.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/string.h>

#define ID_SIZE		16

/*
 * Notifications that are on their way at once in a storm, and the pause after as
 * many. The rest of the guest is to go on, also where it is slow.
 */
#define STORM_BURST	4
#define STORM_PAUSE_US	1000

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
static struct task_struct *storm;
static unsigned int storm_period;

static void write_id(const u64 *id)
{
	int i;

	/* Others read it at the same time. */
	for (i = 0; i < ID_SIZE / sizeof(u64); i++)
		WRITE_ONCE(place[i], id[i]);
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

static int raised_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&raised));
}

static const struct kernel_param_ops raised_ops = {
	.get = raised_get,
};

module_param_cb(raised, &raised_ops, NULL, 0400);
MODULE_PARM_DESC(raised, "Notifications that were raised");

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
