// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What it takes to load a module, and what memory it has then.
 *
 *	load OTHER.ko MODULE.ko...
 *
 * The other one is loaded and stays: without any module the kernel has no room for their
 * text, and each load would also make 2 MiB of it, which costs more than all the rest.
 * Each of those that come next is loaded and unloaded some times. Of each it prints, as
 * JSON, the least time to load and to unload it, in nanoseconds, which are instructions
 * in a guest that counts them, and the bytes that the kernel has allocated for its
 * sections:
 *
 *	{"module": {"name": "sysgenid", "load": 1.0, "unload": 1.0, "memory": 4096}}
 *
 * Then it is loaded once more, with the kernel's tracer on, for where the time goes:
 *
 *	{"trace": "<line of the function graph>"}
 */

#define _GNU_SOURCE
#include "common.h"

#include <libgen.h>
#include <sys/syscall.h>

#define ROUNDS		11

/*
 * What takes long. Each ends its line: else nobody would say that there is no such
 * function.
 */
static const char * const functions[] = {
	"unwind_module_init\n",	/* sorts the table by which stacks are unwound */
	"mod_sysfs_setup\n",
	"do_one_initcall\n",	/* the module's own initialization, and what is in it */
	"misc_register\n",
	"random_ioctl\n",
};

/* Until those have run who listen for modules and devices. */
static void rest(void)
{
	pause_ms(50);
}

/* How long it takes. */
static double load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	double start;

	expect(fd >= 0, path);
	rest();
	start = now();
	expect(!syscall(SYS_finit_module, fd, "", 0), path);
	start = now() - start;
	close(fd);
	return start;
}

static double unload(const char *name)
{
	double start;

	rest();
	start = now();
	expect(!syscall(SYS_delete_module, name, O_NONBLOCK), name);
	return now() - start;
}

static long memory(const char *name)
{
	char path[256];
	FILE *file;
	long bytes;

	snprintf(path, sizeof(path), "/sys/module/%s/coresize", name);
	file = fopen(path, "re");
	expect(file && fscanf(file, "%ld", &bytes) == 1, path);
	fclose(file);
	return bytes;
}

static void prepare_trace(void)
{
	mount_tracing();
	write_text(TRACING "/tracing_on", "0", 0);
	/* Functions have their names where they end, too. */
	write_text(TRACING "/options/funcgraph-tail", "1", 0);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		write_text(TRACING "/set_ftrace_filter", functions[i], i ? O_APPEND : O_TRUNC);
}

static void show_trace(void)
{
	char line[512];
	FILE *file = fopen(TRACING "/trace", "re");

	expect(file, TRACING "/trace");
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] && line[0] != '#')
			printf("{\"trace\": \"%s\"}\n", line);
	}
	fclose(file);
}

/* The tracer is on for no longer than it has to be: it has a price. */
static void trace(const char *path, const char *name)
{
	prepare_trace();
	write_text(TRACING "/current_tracer", "function_graph", 0);
	write_text(TRACING "/tracing_on", "1", 0);
	load(path);
	write_text(TRACING "/tracing_on", "0", 0);
	show_trace();
	write_text(TRACING "/current_tracer", "nop", 0);
	unload(name);
}

static double lesser(double one, double other)
{
	return one < other ? one : other;
}

static void measure(const char *path, const char *name)
{
	double loaded = load(path), unloaded;
	long bytes = memory(name);

	unloaded = unload(name);
	for (int i = 1; i < ROUNDS; i++) {
		loaded = lesser(loaded, load(path));
		unloaded = lesser(unloaded, unload(name));
	}
	printf("{\"module\": {\"name\": \"%s\", \"load\": %.1f, \"unload\": %.1f, \"memory\": %ld}}\n",
	       name, loaded, unloaded, bytes);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "Usage: %s OTHER.ko MODULE.ko...\n", argv[0]);
		return 2;
	}
	wait_for_processor();
	load(argv[1]);
	for (int i = 2; i < argc; i++) {
		char *copy = strdup(argv[i]), *name;

		expect(copy, "strdup");
		name = basename(copy);
		name[strcspn(name, ".")] = 0;
		measure(argv[i], name);
		trace(argv[i], name);
		free(copy);
	}
	return 0;
}
