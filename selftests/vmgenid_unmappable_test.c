// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of /dev/vmgenid where the page of the ID cannot be mapped: who looks by read()
 * has the ID all the same, and the answer can be mapped. Wants a guest that has such a
 * device, and no other one (acpi/rom.asl, acpi/pages.asl).
 *
 * Copyright (C) 2026 The sysgenid authors
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "kselftest_harness.h"
#include "common.h"

#define NODE		"/dev/vmgenid"

/* The number of bytes of an ID. */
#define ID_SIZE		16

FIXTURE(unmappable)
{
	int fd;
	long size;
};

FIXTURE_SETUP(unmappable)
{
	self->size = sysconf(_SC_PAGESIZE);
	self->fd = open(NODE, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->fd) {
		TH_LOG("cannot open " NODE ": %s", strerror(errno));
	}
}

FIXTURE_TEARDOWN(unmappable)
{
	close(self->fd);
}

TEST_F(unmappable, the_page_is_not_mapped)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, self->size, PROT_READ, flags[i],
					   self->fd, 0));
		EXPECT_EQ(ENODEV, errno);
	}
	/* What is wrong with the call is said first. */
	expect_no_other_mapping(_metadata, self->fd, self->size, 2);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_PRIVATE,
				   self->fd, 0));
	EXPECT_EQ(EPERM, errno);
}

TEST_F(unmappable, the_id_is_read_and_answered)
{
	const struct vmgenid_answer_page *answer;
	uint8_t id[ID_SIZE], zero[ID_SIZE] = {};
	int i;

	answer = mmap(NULL, self->size, PROT_READ, MAP_SHARED, self->fd, self->size);
	ASSERT_NE(MAP_FAILED, (const void *)answer);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(ID_SIZE, pread(self->fd, id, sizeof(id), 0));
		EXPECT_NE(0, memcmp(id, zero, sizeof(id)));
		EXPECT_EQ(0, memcmp(id, answer->id, sizeof(id)));
	}
	EXPECT_EQ(SYSGENID_FLAG_RESEEDED, answer->flags);
}

TEST_F(unmappable, the_offset_is_in_a_page)
{
	int offset = ioctl(self->fd, VMGENID_GET_OFFSET);

	EXPECT_LE(0, offset);
	EXPECT_GT(self->size, offset);
}

TEST_HARNESS_MAIN
