# SPDX-License-Identifier: GPL-2.0
#
# Out of a kernel tree: where tests are built, and where the harness is. The Makefiles here and below
# include it.

ifeq ($(OUTPUT),)
$(error Set OUTPUT to the directory to build in: nothing is built in the source directory)
endif
KSELFTEST ?= $(KDIR)/tools/testing/selftests
$(foreach file,lib.mk kselftest_harness.h,$(if $(wildcard $(KSELFTEST)/$(file)),,\
	$(error Set KDIR to a kernel tree: there is no $(KSELFTEST)/$(file))))
