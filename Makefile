# SPDX-License-Identifier: GPL-2.0
#
# The front door: "make help" lists every verb. Kbuild, next to this file, is what
# the kernel's build system reads.

# The kernel to build for: the directory in which it was built.
KDIR ?= /lib/modules/$(shell uname -r)/build
# Where the products of the build go. Empty: next to the source.
MO ?=
RUSTC ?= rustc

# Where it is built does not show in what is built: panics name files, and the build ID
# is made of debug information as well, which names directories. Kbuild itself sees to the
# first of that only, and only with newer compilers.
output := $(or $(abspath $(MO)),$(CURDIR))
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(MO),MO=$(output)) RUSTC=$(RUSTC) \
	KRUSTFLAGS="$(KRUSTFLAGS) --remap-path-prefix=$(output)=. --remap-path-prefix=$(CURDIR)/=" \
	KCFLAGS="$(KCFLAGS) -ffile-prefix-map=$(output)=."

# --- The module ---------------------------------------------------------------

.PHONY: modules modules_install clean check-kdir help

modules: check-kdir
	$(if $(MO),@mkdir -p $(MO))
	+$(kbuild) modules

modules_install:
	+$(kbuild) modules_install

clean:
	+$(kbuild) clean

check-kdir:
	@scripts/check-kdir.sh $(KDIR) $(RUSTC)

# --- User space: the libraries, the command, and the units ---------------------

.PHONY: userspace install uninstall

userspace:
	+$(MAKE) -C userspace

# For a package, or into this system, which is told what to run then, and keeps a list of
# what was installed.
install:
ifneq ($(DESTDIR),)
	+$(MAKE) -C userspace install
	+$(MAKE) -C packaging install
else
	+@$(MAKE) --no-print-directory -C packaging install-here
endif

uninstall:
	$(if $(DESTDIR),$(error Below DESTDIR there is no list of what was installed: remove that directory))
	+@$(MAKE) --no-print-directory -C packaging uninstall-here

# --- The lab: kernels in QEMU -------------------------------------------------

.PHONY: demo demo-overseer check lint check-debug check-packages check-series shell table bench packages

# ARGS are arguments of the lab: make check ARGS=--strict
demo demo-overseer check lint check-debug check-packages shell table:
	@lab/lab $@ $(ARGS)

# In each suite that has such kernels, with the compilers of that suite; then the README tells of it.
check-series:
	@lab/lab check-series --strict $(ARGS)
	@SYSGENID_SUITE=unstable lab/lab check-series --strict --page README.md $(ARGS)

# The page has the tables and plots of what was measured last.
bench:
	@lab/lab bench --page Documentation/performance.rst --output target/bench $(ARGS)

packages:
	@lab/lab packages $(addprefix --kernel ,$(KERNEL)) $(ARGS)

# --- Help ---------------------------------------------------------------------

# One section for each part of the tree; a verb that is not listed here does not
# exist.
help:
	@echo 'In a virtual machine, with a stock kernel that the lab gets and boots:'
	@echo '  make demo             see a machine cloned twice, and both clones notice'
	@echo '  make demo-overseer    see three clones that an orchestrator brings back, by sysgenctl serve'
	@echo '  make check            run all tests'
	@echo '  make lint             look at the source: style, lints, licences, documentation'
	@echo '  make check-debug      run the tests in kernels that catch mistakes, which the lab'
	@echo '                        builds'
	@echo '  make check-packages   run the tests in systems that boot from disks of their own'
	@echo '  make check-series     run all tests in each kernel of Debian that is built with Rust,'
	@echo '                        and put the table of them into README.md'
	@echo '  make shell            get a shell in a guest with the module loaded'
	@echo '  make table            try what common software does after a clone'
	@echo '  make bench            measure what all of it costs, and put tables and plots into'
	@echo '                        Documentation/performance.rst, and all figures into'
	@echo '                        target/bench'
	@echo '  make packages         build the packages for Debian, and say where they are'
	@echo ''
	@echo '  KERNEL=RELEASE        make packages builds what belongs to that kernel, too: its'
	@echo '                        module, and what it takes to build modules in Rust for it;'
	@echo '                        "stock" is the newest, a series such as 7.2 the one of that'
	@echo '  ARGS=...              arguments for these; lab/lab --help lists what else the'
	@echo '                        lab can do'
	@echo ''
	@echo 'The module:'
	@echo '  make [modules]        build sysgenid.ko'
	@echo '  make modules_install  install it for the kernel in KDIR, and run depmod'
	@echo '  make clean            remove what was built'
	@echo '  make check-kdir       say whether KDIR can build Rust modules'
	@echo '  make help             show this'
	@echo ''
	@echo '  KDIR=DIR              the directory in which the kernel was built'
	@echo '                        [$(KDIR)]'
	@echo '  MO=DIR                where the products of the build go [next to the source]'
	@echo '  RUSTC=PATH            the Rust compiler [$(RUSTC)]'
	@echo '  INSTALL_MOD_PATH=DIR  modules_install installs below DIR'
	@echo '  W=1 CLIPPY=1 V=1      and the other variables of the kernel'"'"'s build system'
	@echo ''
	@echo 'User space (the libraries in Rust and C, sysgenctl, and OpenSSL'"'"'s provider):'
	@echo '  make userspace        build it'
	@echo '  make install          install it, with the udev rule and the units for systemd;'
	@echo '                        builds nothing'
	@echo '  make uninstall        remove what make install has installed'
	@echo ''
	@echo '  DESTDIR=DIR           install for a package, below DIR'
	@echo '  PREFIX=DIR            where programs and libraries go [/usr/local]'
	@echo '  LIBDIR=DIR and so on  packaging/directories.mk lists them all'
