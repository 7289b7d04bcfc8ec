# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What DKMS runs to build the module, after "prepare" has said against what and by which
# compiler.

include packaging/dkms/prepared.mk

.PHONY: all
all:
	+$(MAKE) -C $(KDIR) M=$(CURDIR) RUSTC=$(RUSTC) modules
