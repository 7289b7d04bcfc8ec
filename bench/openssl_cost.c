// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What the provider costs: RAND_bytes() of 16, 32 and 1024 bytes from OpenSSL's
 * own generator and from the provider's, in one process and in alternation.
 *
 *	openssl_cost [--rounds N] [--at-most QUOTIENT] [--at-least QUOTIENT]
 *
 * Each has a library context of its own; one of them reads the configuration that
 * OPENSSL_CONF names. For each length it prints the medians of all rounds, and the
 * median of the quotients of the two halves of a round:
 *
 *	16 bytes: plain 301.5 ns, sysgenid 310.2 ns, quotient 1.029
 *
 * With --at-most or --at-least it judges the quotients by these, and prints TAP. A
 * provider that looks at nothing costs too little.
 *
 * In a guest that counts instructions (lab/lab run --icount) these are not times but
 * instructions, and the same in each run.
 */

#define _GNU_SOURCE
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/conf.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

#define CALLS		1000
#define MOST_ROUNDS	10001

static const size_t lengths[] = { 16, 32, 1024 };

#define LENGTHS		(sizeof(lengths) / sizeof(*lengths))

static void die(const char *what)
{
	fprintf(stderr, "openssl_cost: %s\n", what);
	exit(1);
}

static void misused(void)
{
	die("usage: openssl_cost [--rounds N] [--at-most QUOTIENT] [--at-least QUOTIENT]");
}

/* The nanoseconds that each of some calls takes. */
static double cost(OSSL_LIB_CTX *context, size_t length)
{
	static unsigned char bytes[1024];
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < CALLS; i++)
		if (RAND_bytes_ex(context, bytes, length, 0) != 1)
			die("RAND_bytes() fails");
	clock_gettime(CLOCK_MONOTONIC, &end);
	return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / CALLS;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, int number)
{
	qsort(values, number, sizeof(*values), compare);
	return values[number / 2];
}

/*
 * A machine that has just started has other things to do, which would count as ours:
 * waits, for a minute at most, until the same costs the same ten times.
 */
static void wait_for_rest(OSSL_LIB_CTX *context)
{
	for (int i = 0; i < 600; i++) {
		double values[10];

		for (int j = 0; j < 10; j++)
			values[j] = cost(context, 16);
		qsort(values, 10, sizeof(*values), compare);
		if (values[9] < values[0] * 1.02)
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	}
	die("this machine does not come to rest");
}

/* Which provider's generator a context draws from. */
static void drawn_from(OSSL_LIB_CTX *context, const char *provider)
{
	EVP_RAND_CTX *generator = RAND_get0_public(context);
	const OSSL_PROVIDER *its;

	if (!generator)
		die("there is no generator");
	its = EVP_RAND_get0_provider(EVP_RAND_CTX_get0_rand(generator));
	if (strcmp(OSSL_PROVIDER_get0_name(its), provider))
		die(OSSL_PROVIDER_get0_name(its));
}

static double parse_quotient(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0 && isfinite(value)))
		die("a quotient is a positive number");
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "rounds", required_argument, NULL, 'r' },
		{ "at-most", required_argument, NULL, 'm' },
		{ "at-least", required_argument, NULL, 'l' },
		{ 0 },
	};
	static double plain[MOST_ROUNDS], ours[MOST_ROUNDS], quotients[MOST_ROUNDS];
	OSSL_LIB_CTX *with = OSSL_LIB_CTX_new(), *without = OSSL_LIB_CTX_new();
	const char *configuration = getenv("OPENSSL_CONF");
	double most = INFINITY, least = 0;
	int option, rounds = 301;
	bool judges, bad = false;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'm':
			most = parse_quotient(optarg);
			break;
		case 'l':
			least = parse_quotient(optarg);
			break;
		default:
			misused();
		}
	}
	if (optind != argc)
		misused();
	judges = isfinite(most) || least > 0;
	if (rounds < 1 || rounds > MOST_ROUNDS)
		die("so many rounds are not possible");
	if (!configuration || !OSSL_LIB_CTX_load_config(with, configuration))
		die("OPENSSL_CONF must name the configuration with the provider");
	drawn_from(with, "sysgenid");
	drawn_from(without, "default");
	wait_for_rest(without);

	if (judges)
		printf("TAP version 13\n1..%zu\n", LENGTHS);
	for (size_t i = 0; i < LENGTHS; i++) {
		double quotient;

		cost(without, lengths[i]);
		cost(with, lengths[i]);
		for (int round = 0; round < rounds; round++) {
			/* Whoever comes second finds a warmer cache. */
			if (round % 2)
				ours[round] = cost(with, lengths[i]);
			plain[round] = cost(without, lengths[i]);
			if (round % 2 == 0)
				ours[round] = cost(with, lengths[i]);
			quotients[round] = ours[round] / plain[round];
		}
		quotient = median(quotients, rounds);
		printf("%s%zu bytes: plain %.1f ns, sysgenid %.1f ns, quotient %.3f\n",
		       judges ? "# " : "", lengths[i], median(plain, rounds),
		       median(ours, rounds), quotient);
		if (judges) {
			bool good = quotient >= least && quotient <= most;

			printf("%sok %zu - %zu bytes cost between %g and %g times as much\n",
			       good ? "" : "not ", i + 1, lengths[i], least, most);
			bad |= !good;
		}
	}
	return bad;
}
