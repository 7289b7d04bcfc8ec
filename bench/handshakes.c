// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The guest's part of the measurement of whole clones: a client with which a TLS server
 * on port 443 of the loopback device shakes hands all the time, before and after the
 * machine is saved.
 *
 *	handshakes
 *
 * After some handshakes it prints READY, and is frozen with its machine, wherever it is
 * just then. When it is told of a change of the generation it prints READY once more, and
 * goes on for some handshakes. What it prints besides are lines of JSON, with times in
 * nanoseconds of CLOCK_MONOTONIC:
 *
 *	{"handshake": {"at": 1, "random": "HEX", "key": "HEX"}}
 *	{"change": {"at": 1}}
 *	{"interrupt": {"at": 1}}
 *
 * The random bytes and the ephemeral public key are the server's. "change" is when a
 * program that was asleep in poll() ran, and "interrupt" when the kernel was interrupted
 * by ACPI, which is the first thing that happens after the resume of a clone.
 */

#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>

/* Before the machine is saved: the server is warm by then. */
#define WARM		3
/* After the change. */
#define ENOUGH		5

/* Of the random bytes, and of a key of X25519. */
#define LENGTH		32

static _Noreturn void fail_tls(const char *what)
{
	fprintf(stderr, "handshakes: %s fails\n", what);
	exit(1);
}

static void wait_for_change(long fd)
{
	struct pollfd polled = { .fd = fd, .events = POLLIN };

	expect(poll(&polled, 1, -1) == 1, "poll");
	printf("{\"change\": {\"at\": %" PRId64 "}}\n", now());
	puts("READY");
	for (;;)
		pause();
}

/* A client that believes everybody, and has keys of one kind only. */
static SSL_CTX *make_client(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
	    !SSL_CTX_set1_groups_list(context, "X25519"))
		fail_tls("a client");
	return context;
}

static int connect_to_server(void)
{
	const struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(443),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	expect(fd >= 0 && !connect(fd, (const struct sockaddr *)&address, sizeof(address)),
	       "connect");
	return fd;
}

static void print_hex(const unsigned char *bytes)
{
	for (int i = 0; i < LENGTH; i++)
		printf("%02x", bytes[i]);
}

static void shake_hands(SSL_CTX *context)
{
	unsigned char random[LENGTH], key[LENGTH];
	size_t length = LENGTH;
	int fd = connect_to_server();
	SSL *ssl = SSL_new(context);
	EVP_PKEY *peer;

	if (!ssl || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1)
		fail_tls("a handshake");
	if (SSL_get_server_random(ssl, random, LENGTH) != LENGTH ||
	    !SSL_get_peer_tmp_key(ssl, &peer) ||
	    !EVP_PKEY_get_raw_public_key(peer, key, &length) || length != LENGTH)
		fail_tls("to see what the server has drawn");
	printf("{\"handshake\": {\"at\": %" PRId64 ", \"random\": \"", now());
	print_hex(random);
	printf("\", \"key\": \"");
	print_hex(key);
	printf("\"}}\n");
	EVP_PKEY_free(peer);
	SSL_free(ssl);
	close(fd);
}

int main(void)
{
	SSL_CTX *context = make_client();
	const _Atomic uint32_t *generation = (const void *)&map_node()->generation;
	uint32_t before = atomic_load_explicit(generation, memory_order_acquire);
	int64_t interrupt;
	int after = 0;

	/* Each line in one piece: the machine may be saved in between. */
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	wait_for_processor();
	start(wait_for_change, open_node(O_RDONLY));
	for (int i = 0; i < WARM; i++)
		shake_hands(context);
	trace_interrupts();
	puts("READY");
	while (after < ENOUGH) {
		shake_hands(context);
		if (atomic_load_explicit(generation, memory_order_acquire) != before)
			after++;
	}
	interrupt = interrupted_at();
	if (interrupt)
		printf("{\"interrupt\": {\"at\": %" PRId64 "}}\n", interrupt);
	return 0;
}
