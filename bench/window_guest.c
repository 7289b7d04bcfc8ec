// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The guest's part of the measurement of the window: what the kernel does between
 * the resume of a clone and the change of the generation, and when.
 *
 *	window_guest [--busy]
 *
 * It has the function tracer note the functions on the way, prints READY, and is
 * frozen with its machine. In each clone it prints, once the generation has changed,
 * a line for each that was noted since:
 *
 *	trace <line of the kernel's trace>
 *
 * A program asleep in poll() marks "woken" in the trace. With --busy another one,
 * which looks at the two mapped pages without a pause, marks "new ID" and "new
 * generation"; and besides it every processor has a program to run that does nothing.
 */

#define _GNU_SOURCE
#include "common.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/wait.h>

/*
 * The functions on the way, in their order. Each ends its line: else nobody would say
 * that there is no such function.
 */
static const char * const functions[] = {
	"handle_fasteoi_irq\n",			/* the interrupt */
	"acpi_irq\n",				/* its thread */
	"acpi_ev_asynch_execute_gpe_method\n",	/* the event, in a work queue */
	"acpi_ns_evaluate\n",			/* its method in the firmware's code */
	"acpi_ev_notify_dispatch\n",		/* the notification, in another one */
	"random_ioctl\n",			/* the driver's work, which reseeds */
	"queue_delayed_work_on\n",		/* it has; the uevent comes later */
};

/* When it has been reseeded. */
#define RESEEDED	"r:window/reseeded random_ioctl"

/* In tracefs, to open a file so that it becomes empty is what empties it. */
static void empty(const char *path)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0)
		die(path);
	close(fd);
}

static void trace(void)
{
	size_t i;

	mount_tracing();
	write_text(TRACING "/tracing_on", "0", 0);
	/* One clock for all processors. */
	write_text(TRACING "/trace_clock", "mono", 0);
	empty(TRACING "/set_ftrace_filter");
	for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		write_text(TRACING "/set_ftrace_filter", functions[i], 0);
	write_text(TRACING "/current_tracer", "function", 0);
	write_text(TRACING "/kprobe_events", RESEEDED, 0);
	write_text(TRACING "/events/window/enable", "1", 0);
	write_text(TRACING "/tracing_on", "1", 0);
}

static void mark(const char *what)
{
	static int fd = -1;

	if (fd < 0)
		fd = open(TRACING "/trace_marker", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		die("trace_marker");
}

static void *map(const char *node, size_t size, long *offset)
{
	int fd = open(node, O_RDONLY | O_CLOEXEC);
	void *page;

	if (fd < 0)
		die(node);
	if (offset) {
		*offset = ioctl(fd, VMGENID_GET_OFFSET);
		if (*offset < 0)
			die("VMGENID_GET_OFFSET");
	}
	page = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die(node);
	close(fd);
	return page;
}

static void be_busy(long unused)
{
	volatile unsigned long turns = 0;

	(void)unused;
	for (;;)
		turns++;
}

static void look(long unused)
{
	const _Atomic uint32_t *generation = map("/dev/sysgenid", 4, NULL);
	long offset, page = sysconf(_SC_PAGESIZE);
	const char *start = map("/dev/vmgenid", page, &offset);
	const _Atomic uint64_t *id = (const void *)(start + offset);
	uint64_t first = atomic_load_explicit(&id[0], memory_order_acquire);
	uint64_t second = atomic_load_explicit(&id[1], memory_order_acquire);
	uint32_t before = atomic_load_explicit(generation, memory_order_acquire);

	(void)unused;
	while (atomic_load_explicit(&id[0], memory_order_acquire) == first &&
	       atomic_load_explicit(&id[1], memory_order_acquire) == second)
		;
	mark("new ID");
	while (atomic_load_explicit(generation, memory_order_acquire) == before)
		;
	mark("new generation");
	exit(0);
}

static void wait_in_poll(long unused)
{
	struct pollfd polled = { .events = POLLIN };

	(void)unused;
	polled.fd = open("/dev/sysgenid", O_RDONLY | O_CLOEXEC);
	if (polled.fd < 0 || poll(&polled, 1, -1) != 1)
		die("poll");
	mark("woken");
	exit(0);
}

static void show(void)
{
	char line[512];
	FILE *file = fopen(TRACING "/trace", "re");

	if (!file)
		die(TRACING "/trace");
	while (fgets(line, sizeof(line), file)) {
		if (line[0] != '#')
			printf("trace %s", line);
	}
	fclose(file);
}

int main(int argc, char **argv)
{
	const struct timespec moment = { .tv_nsec = 10 * 1000 * 1000 };
	const _Atomic uint32_t *generation;
	bool busy = argc == 2 && !strcmp(argv[1], "--busy");
	uint32_t before;
	long i;

	if (argc > 2 || (argc == 2 && !busy)) {
		fprintf(stderr, "Usage: %s [--busy]\n", argv[0]);
		return 2;
	}
	generation = map("/dev/sysgenid", 4, NULL);
	before = atomic_load_explicit(generation, memory_order_acquire);
	trace();
	start(wait_in_poll, 0);
	if (busy) {
		start(look, 0);
		for (i = sysconf(_SC_NPROCESSORS_ONLN); i > 0; i--)
			start(be_busy, 0);
	}
	/* The others are asleep, or at work, by then. */
	for (i = 0; i < 50; i++)
		nanosleep(&moment, NULL);
	empty(TRACING "/trace");
	puts("READY");
	fflush(stdout);

	while (atomic_load_explicit(generation, memory_order_acquire) == before)
		nanosleep(&moment, NULL);
	/* What comes after the change, too. */
	for (i = 0; i < 50; i++)
		nanosleep(&moment, NULL);
	write_text(TRACING "/tracing_on", "0", 0);
	show();
	return 0;
}
