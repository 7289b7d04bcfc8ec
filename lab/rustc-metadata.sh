#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# rustc for a kernel tree that modules are built against. They need the metadata of the
# kernel's crates, and never their objects, which take most of the compiler's time: an empty
# one stands for each. What runs in the compiler (libraries of procedural macros) is not
# optimised: it has little to do.
set -eu

object=
for argument; do
	shift
	case $argument in
	--emit=obj=*)
		object=${argument#--emit=obj=}
		# The metadata is the same as with objects.
		set -- "$@" "$argument" -Zno-codegen
		;;
	-O) set -- "$@" -Copt-level=0 ;;
	*) set -- "$@" "$argument" ;;
	esac
done
rustc "$@"
[ -z "$object" ] || printf '' | gcc -x c -c -o "$object" -
