/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a provider needs to know of OpenSSL. */
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
