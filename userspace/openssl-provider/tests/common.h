/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the tests of the provider have in common: how they end, and
 * what they ask OpenSSL.
 */

#ifndef SYSGENID_OPENSSL_COMMON_H
#define SYSGENID_OPENSSL_COMMON_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	ERR_print_errors_fp(stdout);
	exit(1);
}

/* A library context of the program's own, with the configuration of the environment. */
static OSSL_LIB_CTX *new_context(void)
{
	OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
	const char *configuration = getenv("OPENSSL_CONF");

	if (!context)
		die("there is no library context");
	if (configuration && !OSSL_LIB_CTX_load_config(context, configuration))
		die("%s cannot be loaded", configuration);
	return context;
}

/* The name of the provider that a generator is of. */
static const char *provider_of(EVP_RAND_CTX *generator)
{
	if (!generator)
		die("there is no generator");
	return OSSL_PROVIDER_get0_name(EVP_RAND_get0_provider(EVP_RAND_CTX_get0_rand(generator)));
}

#endif
