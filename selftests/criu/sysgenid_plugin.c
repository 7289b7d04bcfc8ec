// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for CRIU. A process that maps pages of /dev/sysgenid and /dev/vmgenid can be
 * checkpointed with it, and finds another generation when it is restored: the restored
 * process is a clone, as a restored machine is.
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <criu/criu-plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sysgenid.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYSGENID	"/dev/sysgenid"
#define VMGENID		"/dev/vmgenid"

/* What the images have besides: the generation that the process may have seen. */
#define IMAGE		"sysgenid.img"

static int save_generation(void)
{
	const struct sysgenid_page *page;
	uint32_t generation;
	int node, image;
	ssize_t written;

	node = open(SYSGENID, O_RDONLY | O_CLOEXEC);
	page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, node, 0);
	close(node);
	if (page == MAP_FAILED)
		return -EIO;
	generation = page->generation;
	munmap((void *)page, sizeof(*page));
	image = openat(criu_get_image_dir(), IMAGE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	written = write(image, &generation, sizeof(generation));
	return close(image) || written != sizeof(generation) ? -EIO : 0;
}

static bool is_mapped(const char *path, const struct stat *mapped)
{
	struct stat node;

	return !stat(path, &node) && S_ISCHR(mapped->st_mode) && mapped->st_rdev == node.st_rdev;
}

/* @fd is what CRIU has opened through map_files; @mapped tells what that is. */
static int handle_device_vma(int fd, const struct stat *mapped)
{
	const char *path = is_mapped(SYSGENID, mapped) ? SYSGENID :
			   is_mapped(VMGENID, mapped) ? VMGENID : NULL;
	int node, err;

	if (!path)
		return -ENOTSUP;
	/* The file of the generation page's mapping has no path; CRIU is to save the node's. */
	node = open(path, O_RDONLY | O_CLOEXEC);
	err = dup3(node, fd, O_CLOEXEC) < 0 ? -EIO : save_generation();
	close(node);
	return err;
}

/* Before anything is restored. If this fails, nothing is. */
static int init(int stage)
{
	uint32_t generation;
	int image, node, err;

	if (stage != CR_PLUGIN_STAGE__RESTORE)
		return 0;
	image = openat(criu_get_image_dir(), IMAGE, O_RDONLY | O_CLOEXEC);
	if (image < 0)
		return errno == ENOENT ? 0 : -EIO;
	node = open(SYSGENID, O_RDONLY | O_CLOEXEC);
	err = read(image, &generation, sizeof(generation)) != sizeof(generation) ||
	      ioctl(node, SYSGENID_TRIGGER_GEN_UPDATE, (unsigned long)(generation + 1));
	close(node);
	close(image);
	return err ? -EIO : 0;
}

CR_PLUGIN_REGISTER("sysgenid", init, cr_plugin_dummy_exit)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA, handle_device_vma)
