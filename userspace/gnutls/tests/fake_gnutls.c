// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What gnutls_test.c takes for GnuTLS: it fills in how often it was refreshed, and
 * changes the generation while it draws, as often as it is told. With FAKE_FIPS in the
 * environment it is in the mode of FIPS 140.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sysgenid.h>

#include "fake_gnutls.h"

struct fake_gnutls fake;

int gnutls_rnd(int level, void *data, size_t len)
{
	fake.level = level;
	fake.draws++;
	memset(data, fake.refreshed, len);
	if (fake.changes) {
		int fd = open("/dev/sysgenid", O_RDWR | O_CLOEXEC);

		fake.changes--;
		if (fd < 0 || ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0))
			return -1;
		close(fd);
	}
	return fake.result;
}

void gnutls_rnd_refresh(void)
{
	fake.refreshed++;
}

unsigned int gnutls_fips140_mode_enabled(void)
{
	return getenv("FAKE_FIPS") != NULL;
}
