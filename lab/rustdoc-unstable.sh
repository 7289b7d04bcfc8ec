#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# rustdoc with its unstable options, one of which the lab wants: to keep the programs that
# it makes of examples. Not by the environment of cargo, which would compile the library
# anew for it.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
