# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Where things are installed: what the two Makefiles that install something have in
# common. Each of these can be given. What belongs to another program goes where that
# one looks for it, whatever PREFIX is; pkg-config knows where that is.

INSTALL ?= install
PKG_CONFIG ?= pkg-config
PYTHON ?= python3
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
LIBEXECDIR ?= /usr/lib/sysgenid
SAMPLESDIR ?= $(PREFIX)/share/sysgenid/hooks

# known VARIABLE,PACKAGE: what pkg-config says, or nothing.
known = $(shell $(PKG_CONFIG) --variable=$1 $2 2>/dev/null)
# The same for what is below PREFIX.
known_below = $(shell $(PKG_CONFIG) --define-variable=prefix=$(PREFIX) --variable=$1 $2 2>/dev/null)

ifndef LIBDIR
# Distributions do not agree on it. OpenSSL's library, which has to be there, lies in it.
LIBDIR := $(or $(call known_below,libdir,libcrypto),$(PREFIX)/lib)
endif
ifndef UDEVDIR
UDEVDIR := $(or $(call known,udevdir,udev),/usr/lib/udev)
endif
ifndef UNITDIR
UNITDIR := $(or $(call known,systemdsystemunitdir,systemd),/usr/lib/systemd/system)
endif
ifndef PRESETDIR
PRESETDIR := $(or $(call known,systemdsystempresetdir,systemd),/usr/lib/systemd/system-preset)
endif
ifndef MODULESLOADDIR
MODULESLOADDIR := $(or $(call known,modulesloaddir,systemd),/usr/lib/modules-load.d)
endif
ifndef SYSUSERSDIR
SYSUSERSDIR := $(or $(call known,sysusersdir,systemd),/usr/lib/sysusers.d)
endif
ifndef OSSLMODULESDIR
# As `openssl version -m` says.
OSSLMODULESDIR := $(call known,modulesdir,libcrypto)
endif
ifndef PYTHONDIR
# Where Python looks for what an administrator has installed, and that only where it is asked for.
PYTHONDIR = $(or $(shell $(PYTHON) -c \
	'import sysconfig; print(sysconfig.get_path("purelib"))'),$(error $(PYTHON) does not say where its packages are; PYTHONDIR says it))
endif
