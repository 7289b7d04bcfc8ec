// SPDX-License-Identifier: GPL-2.0
/*
 * Makes mistakes on purpose, so that it can be seen that the tools of a debug
 * kernel find them, and that those who watch its log do.
 *
 *	insmod sysgenid_mistakes.ko kind=KIND
 *
 * Whether a mistake is found depends on the configuration of the kernel. What
 * has found one may not find another one before the next boot.
 */

#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

static char *kind = "";
module_param(kind, charp, 0);
MODULE_PARM_DESC(kind, "the mistake to make");

static int use_after_free(void)
{
	char *memory = kmalloc(64, GFP_KERNEL);

	if (!memory)
		return -ENOMEM;
	kfree(memory);
	OPTIMIZER_HIDE_VAR(memory);
	WRITE_ONCE(memory[8], 1);
	return 0;
}

/* Still in the page, so that the processor does not find it. */
static int vmalloc_out_of_bounds(void)
{
	size_t size = PAGE_SIZE - 8;
	char *memory = vmalloc(size);

	if (!memory)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(size);
	WRITE_ONCE(memory[size], 1);
	vfree(memory);
	return 0;
}

static int raced_for;

static int race_on(void *unused)
{
	unsigned long end = jiffies + 5 * HZ;

	while (time_before(jiffies, end)) {
		raced_for++;
		barrier();
		cond_resched();
	}
	return 0;
}

static int race(void)
{
	struct task_struct *other = kthread_create(race_on, NULL, "sysgenid-mistake");

	if (IS_ERR(other))
		return PTR_ERR(other);
	get_task_struct(other);
	wake_up_process(other);
	race_on(NULL);
	kthread_stop(other);
	put_task_struct(other);
	return 0;
}

static DEFINE_MUTEX(first_lock);
static DEFINE_MUTEX(second_lock);

static int lock_order(void)
{
	mutex_lock(&first_lock);
	mutex_lock(&second_lock);
	mutex_unlock(&second_lock);
	mutex_unlock(&first_lock);

	mutex_lock(&second_lock);
	mutex_lock(&first_lock);
	mutex_unlock(&first_lock);
	mutex_unlock(&second_lock);
	return 0;
}

static int sleep_in_atomic(void)
{
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	might_sleep();
	spin_unlock(&lock);
	return 0;
}

static int rcu_without_lock(void)
{
	static int __rcu *pointer;

	return rcu_dereference(pointer) ? -EINVAL : 0;
}

/* Many, because the allocator remembers the last ones, which hides them. */
static int leak(void)
{
	void *memory;
	int i;

	for (i = 0; i < 1000; i++) {
		memory = kmalloc(64, GFP_KERNEL);
		if (!memory)
			return -ENOMEM;
		memset(memory, 0x5a, 64);
	}
	return 0;
}

static void no_work(struct work_struct *work)
{
}

static int free_active_object(void)
{
	struct delayed_work *work = kmalloc(sizeof(*work), GFP_KERNEL);

	if (!work)
		return -ENOMEM;
	INIT_DELAYED_WORK(work, no_work);
	schedule_delayed_work(work, 1000 * HZ);
	kfree(work);
	return 0;
}

static int shift_out_of_bounds(void)
{
	unsigned int bits = 40;

	OPTIMIZER_HIDE_VAR(bits);
	return (1U << bits) == 1 ? -EINVAL : 0;
}

static int delete_twice(void)
{
	LIST_HEAD(list);
	struct list_head entry;

	list_add(&entry, &list);
	list_del(&entry);
	list_del(&entry);
	return 0;
}

static int count_from_zero(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
	return 0;
}

static int warning(void)
{
	WARN_ON(1);
	return 0;
}

static int null_pointer(void)
{
	int *pointer = NULL;

	OPTIMIZER_HIDE_VAR(pointer);
	WRITE_ONCE(*pointer, 1);
	return 0;
}

static const struct {
	const char *kind;
	int (*make)(void);
} mistakes[] = {
	{ "use-after-free", use_after_free },
	{ "vmalloc-out-of-bounds", vmalloc_out_of_bounds },
	{ "data-race", race },
	{ "lock-order", lock_order },
	{ "sleep-in-atomic", sleep_in_atomic },
	{ "rcu-without-lock", rcu_without_lock },
	{ "leak", leak },
	{ "free-active-object", free_active_object },
	{ "shift-out-of-bounds", shift_out_of_bounds },
	{ "delete-twice", delete_twice },
	{ "count-from-zero", count_from_zero },
	{ "warning", warning },
	{ "null-pointer", null_pointer },
};

static int __init mistakes_init(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mistakes); i++) {
		if (!strcmp(kind, mistakes[i].kind))
			return mistakes[i].make();
	}
	pr_err("there is no mistake \"%s\"\n", kind);
	return -EINVAL;
}
module_init(mistakes_init);

static void __exit mistakes_exit(void)
{
}
module_exit(mistakes_exit);

MODULE_DESCRIPTION("Makes mistakes, for tests");
MODULE_AUTHOR("The sysgenid authors");
MODULE_LICENSE("GPL");
