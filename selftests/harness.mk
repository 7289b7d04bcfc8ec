# SPDX-License-Identifier: GPL-2.0
#
# For tests that lie in a directory of their own below this one: where they are built, and where the
# harness is. Their Makefiles include it.

ifeq ($(OUTPUT),)
$(error Set OUTPUT to the directory to build in: nothing is built in the source directory)
endif
KSELFTEST ?= $(KDIR)/tools/testing/selftests
ifeq ($(wildcard $(KSELFTEST)/kselftest_harness.h),)
$(error Set KDIR to a kernel tree: there is no $(KSELFTEST)/kselftest_harness.h)
endif
