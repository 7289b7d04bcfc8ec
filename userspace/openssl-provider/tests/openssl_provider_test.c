// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Tests of the provider in one machine, in which changes come from this program
 * itself: it has to be root.
 *
 *	openssl_provider_test			all tests, as TAP
 *	openssl_provider_test --draws [change]	draws between two writes to no file, for
 *						strace to look at; with a change before
 *
 *	openssl_provider_test --waits		draws, waits for the end of its standard
 *						input, and draws between two such writes
 *
 *	openssl_provider_test --forks		the same, but while several threads draw
 *						then, it is a forked process that draws
 *
 *	openssl_provider_test --late		draws where there is no device, waits for the
 *						end of its standard input, and expects that
 *						there is one then, which is heeded
 *
 * OPENSSL_CONF names the configuration with the provider.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <openssl/core_names.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/sysgenid.h>

#include "common.h"

#define NOBODY		65534

static const char *failure;

/* Ends a test that has failed. */
#define CHECK(condition) do {						\
	if (!(condition)) {						\
		printf("# line %d: %s\n", __LINE__, #condition);	\
		ERR_print_errors_fp(stdout);				\
		failure = #condition;					\
		return;							\
	}								\
} while (0)

/* Changes the generation, as an overseer does. */
static void change(void)
{
	int fd = open("/dev/sysgenid", O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, SYSGENID_TRIGGER_GEN_UPDATE, 0))
		die("cannot change the generation: %m");
	close(fd);
}

static bool draws(void)
{
	unsigned char bytes[16];

	return RAND_bytes(bytes, sizeof(bytes)) == 1;
}

static uint64_t number(EVP_RAND_CTX *generator, const char *key)
{
	uint64_t value = UINT64_MAX;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint64(key, &value),
		OSSL_PARAM_construct_end(),
	};

	if (!EVP_RAND_CTX_get_params(generator, params))
		die("a generator does not tell its %s", key);
	return value;
}

/* How often a generator was seeded. */
static uint64_t seeds(EVP_RAND_CTX *generator)
{
	return number(generator, OSSL_DRBG_PARAM_RESEED_COUNTER);
}

static uint64_t provider_number(OSSL_LIB_CTX *context, const char *key)
{
	OSSL_PROVIDER *provider = OSSL_PROVIDER_load(context, "sysgenid");
	uint64_t value = UINT64_MAX;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint64(key, &value),
		OSSL_PARAM_construct_end(),
	};

	if (!provider || !OSSL_PROVIDER_get_params(provider, params))
		die("the provider does not tell its %s", key);
	OSSL_PROVIDER_unload(provider);
	return value;
}

static uint64_t reseeds(void)
{
	return provider_number(NULL, "sysgenid-reseeds");
}

/* What a child exits with; for tests that cannot be undone in this process. */
static int in_child(int (*what)(void))
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(what());
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static void used_by_all_three(void)
{
	CHECK(!strcmp(provider_of(RAND_get0_primary(NULL)), "sysgenid"));
	CHECK(!strcmp(provider_of(RAND_get0_public(NULL)), "sysgenid"));
	CHECK(!strcmp(provider_of(RAND_get0_private(NULL)), "sysgenid"));
}

static void used_in_own_context(void)
{
	OSSL_LIB_CTX *context = new_context();

	CHECK(!strcmp(provider_of(RAND_get0_public(context)), "sysgenid"));
	OSSL_LIB_CTX_free(context);
}

static void tells_its_state(void)
{
	OSSL_PROVIDER *provider = OSSL_PROVIDER_load(NULL, "sysgenid");
	const char *name = NULL, *version = NULL;
	int status = -1;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_NAME, (char **)&name, 0),
		OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_VERSION, (char **)&version, 0),
		OSSL_PARAM_construct_int(OSSL_PROV_PARAM_STATUS, &status),
		OSSL_PARAM_construct_end(),
	};

	CHECK(provider);
	CHECK(OSSL_PROVIDER_get_params(provider, params));
	CHECK(name && strstr(name, "(on)"));
	CHECK(version && *version);
	CHECK(status == 1);
	CHECK(OSSL_PROVIDER_self_test(provider) == 1);
	OSSL_PROVIDER_unload(provider);
}

static void leaves_no_errors(void)
{
	ERR_clear_error();
	CHECK(draws());
	change();
	CHECK(draws());
	CHECK(ERR_peek_error() == 0);
}

static void no_change_no_reseed(void)
{
	uint64_t before = reseeds(), public, primary;

	public = seeds(RAND_get0_public(NULL));
	primary = seeds(RAND_get0_primary(NULL));
	for (int i = 0; i < 1000; i++)
		CHECK(draws());
	CHECK(seeds(RAND_get0_public(NULL)) == public);
	CHECK(seeds(RAND_get0_primary(NULL)) == primary);
	CHECK(reseeds() == before);
}

static void one_change_one_reseed(void)
{
	uint64_t public, private, primary, before;
	unsigned char bytes[16];

	CHECK(draws() && RAND_priv_bytes(bytes, sizeof(bytes)) == 1);
	for (int i = 1; i <= 3; i++) {
		public = seeds(RAND_get0_public(NULL));
		private = seeds(RAND_get0_private(NULL));
		primary = seeds(RAND_get0_primary(NULL));
		before = reseeds();
		change();
		for (int j = 0; j < 3; j++)
			CHECK(draws());
		CHECK(seeds(RAND_get0_public(NULL)) == public + 1);
		CHECK(seeds(RAND_get0_primary(NULL)) == primary + 1);
		CHECK(seeds(RAND_get0_private(NULL)) == private);
		for (int j = 0; j < 3; j++)
			CHECK(RAND_priv_bytes(bytes, sizeof(bytes)) == 1);
		CHECK(seeds(RAND_get0_private(NULL)) == private + 1);
		CHECK(seeds(RAND_get0_public(NULL)) == public + 1);
		CHECK(seeds(RAND_get0_primary(NULL)) == primary + 1);
		CHECK(reseeds() == before + 3);
	}
	CHECK(provider_number(NULL, "sysgenid-unconfirmed") == 0);
}

/* A generator of a program's own, seeded from one that nobody reseeds. */
static void parent_of_another_provider(void)
{
	EVP_RAND *rand = EVP_RAND_fetch(NULL, "CTR-DRBG", "provider=default");
	EVP_RAND *ours = EVP_RAND_fetch(NULL, "CTR-DRBG", "provider=sysgenid");
	EVP_RAND_CTX *parent = EVP_RAND_CTX_new(rand, NULL);
	EVP_RAND_CTX *child = EVP_RAND_CTX_new(ours, parent);
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string("cipher", "AES-256-CTR", 0),
		OSSL_PARAM_construct_end(),
	};
	unsigned char bytes[16];
	uint64_t before;

	CHECK(rand && ours && parent && child);
	CHECK(EVP_RAND_instantiate(parent, 0, 0, NULL, 0, params));
	CHECK(EVP_RAND_instantiate(child, 0, 0, NULL, 0, params));
	before = seeds(child);
	CHECK(EVP_RAND_generate(child, bytes, sizeof(bytes), 0, 0, NULL, 0));
	/* There were changes since the provider was loaded, but not for this parent. */
	CHECK(seeds(child) == before + 1);
	change();
	CHECK(EVP_RAND_generate(child, bytes, sizeof(bytes), 0, 0, NULL, 0));
	CHECK(seeds(child) == before + 2);
	EVP_RAND_CTX_free(child);
	EVP_RAND_CTX_free(parent);
	EVP_RAND_free(ours);
	EVP_RAND_free(rand);
}

/* The source of two generators that are compared: always the same. */
static EVP_RAND_CTX *same_source(void)
{
	static unsigned char entropy[64] = { 1, 2, 3 }, nonce[32] = { 4, 5, 6 };
	EVP_RAND *rand = EVP_RAND_fetch(NULL, "TEST-RAND", NULL);
	EVP_RAND_CTX *source = EVP_RAND_CTX_new(rand, NULL);
	unsigned int strength = 256;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_uint(OSSL_RAND_PARAM_STRENGTH, &strength),
		OSSL_PARAM_construct_octet_string(OSSL_RAND_PARAM_TEST_ENTROPY, entropy,
						  sizeof(entropy)),
		OSSL_PARAM_construct_octet_string(OSSL_RAND_PARAM_TEST_NONCE, nonce,
						  sizeof(nonce)),
		OSSL_PARAM_construct_end(),
	};

	EVP_RAND_free(rand);
	if (!source || !EVP_RAND_instantiate(source, strength, 0, NULL, 0, params))
		die("there is no TEST-RAND");
	return source;
}

/* What a generator says of itself, in words. */
static void describe(char *text, size_t size, EVP_RAND_CTX *generator)
{
	const OSSL_PARAM *known = EVP_RAND_CTX_gettable_params(generator);

	*text = '\0';
	for (; known && known->key; known++) {
		char value[64] = "";
		int64_t number = 0;
		OSSL_PARAM params[] = { OSSL_PARAM_END, OSSL_PARAM_END };
		size_t used = strlen(text);
		int got;

		/* Two generators need not be seeded in the same second. */
		if (!strcmp(known->key, OSSL_DRBG_PARAM_RESEED_TIME))
			continue;
		if (known->data_type == OSSL_PARAM_UTF8_STRING)
			params[0] = OSSL_PARAM_construct_utf8_string(known->key, value,
								     sizeof(value));
		else
			params[0] = OSSL_PARAM_construct_int64(known->key, &number);
		got = EVP_RAND_CTX_get_params(generator, params);
		snprintf(text + used, size - used, "%s=%d:%s%lld ", known->key, got, value,
			 (long long)number);
	}
	for (known = EVP_RAND_CTX_settable_params(generator); known && known->key; known++) {
		size_t used = strlen(text);

		snprintf(text + used, size - used, "+%s:%u:%zu ", known->key, known->data_type,
			 known->data_size);
	}
}

struct step {
	const char *name;
	int (*take)(EVP_RAND_CTX *generator, unsigned char *out);
};

static unsigned char input[48] = "some input";

static int take_nothing(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)generator;
	(void)out;
	return 1;
}

static int take_few(EVP_RAND_CTX *generator, unsigned char *out)
{
	return EVP_RAND_generate(generator, out, 16, 0, 0, NULL, 0);
}

static int take_many(EVP_RAND_CTX *generator, unsigned char *out)
{
	return EVP_RAND_generate(generator, out, 1 << 20, 256, 0, input, 10);
}

static int take_too_strong(EVP_RAND_CTX *generator, unsigned char *out)
{
	return EVP_RAND_generate(generator, out, 16, 512, 0, NULL, 0);
}

static int take_resistant(EVP_RAND_CTX *generator, unsigned char *out)
{
	return EVP_RAND_generate(generator, out, 100, 128, 1, NULL, 0);
}

static int take_nonce(EVP_RAND_CTX *generator, unsigned char *out)
{
	return EVP_RAND_nonce(generator, out, 16);
}

static int instantiate(EVP_RAND_CTX *generator, const char *cipher, int derive)
{
	unsigned int interval = 3;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_DRBG_PARAM_CIPHER, (char *)cipher, 0),
		OSSL_PARAM_construct_int(OSSL_DRBG_PARAM_USE_DF, &derive),
		OSSL_PARAM_construct_uint(OSSL_DRBG_PARAM_RESEED_REQUESTS, &interval),
		OSSL_PARAM_construct_end(),
	};

	return EVP_RAND_instantiate(generator, 128, 0, input, 8, params);
}

static int instantiate_as_usual(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return instantiate(generator, "AES-256-CTR", 1);
}

static int instantiate_otherwise(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return instantiate(generator, "AES-128-CTR", 0);
}

static int instantiate_with_nonsense(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return instantiate(generator, "AES-256-CBC", 1);
}

static int uninstantiate(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return EVP_RAND_uninstantiate(generator);
}

static int verify_zeroization(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return EVP_RAND_verify_zeroization(generator);
}

static int enable_locking(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return EVP_RAND_enable_locking(generator);
}

static int reseed(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return EVP_RAND_reseed(generator, 0, input, sizeof(input), input, 20);
}

static int reseed_with_too_little(EVP_RAND_CTX *generator, unsigned char *out)
{
	(void)out;
	return EVP_RAND_reseed(generator, 1, input, 1, NULL, 0);
}

static int set_interval(EVP_RAND_CTX *generator, unsigned char *out)
{
	time_t interval = 1000;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_time_t(OSSL_DRBG_PARAM_RESEED_TIME_INTERVAL, &interval),
		OSSL_PARAM_construct_end(),
	};

	(void)out;
	return EVP_RAND_CTX_set_params(generator, params);
}

static int take_from_child(EVP_RAND_CTX *generator, unsigned char *out)
{
	EVP_RAND_CTX *child = EVP_RAND_CTX_new(EVP_RAND_CTX_get0_rand(generator), generator);
	int result = child && instantiate_as_usual(child, out);

	/* After that, what its parent draws depends on where in memory it was. */
	EVP_RAND_CTX_free(child);
	return result;
}

static const struct step steps[] = {
	{ "nothing", take_nothing },
	{ "instantiate with a cipher that does not serve", instantiate_with_nonsense },
	{ "instantiate", instantiate_as_usual },
	{ "instantiate again", instantiate_as_usual },
	{ "a small draw", take_few },
	{ "a draw of more strength than there is", take_too_strong },
	{ "a big draw", take_many },
	{ "a small draw", take_few },
	{ "a small draw", take_few },
	{ "a draw with prediction resistance", take_resistant },
	{ "a nonce", take_nonce },
	{ "reseed", reseed },
	{ "a small draw", take_few },
	{ "reseed with too little", reseed_with_too_little },
	{ "a small draw", take_few },
	{ "set an interval", set_interval },
	{ "verify zeroization", verify_zeroization },
	{ "uninstantiate", uninstantiate },
	{ "verify zeroization", verify_zeroization },
	{ "a draw without being instantiated", take_few },
	{ "uninstantiate", uninstantiate },
	{ "instantiate otherwise", instantiate_otherwise },
	{ "a big draw", take_many },
	{ "enable locking", enable_locking },
	{ "a small draw", take_few },
	{ "uninstantiate", uninstantiate },
	{ "instantiate", instantiate_as_usual },
	{ "a small draw", take_few },
	{ "a child", take_from_child },
};

/*
 * Step by step: the same answers, the same errors, the same parameters and, from the
 * same source, the same bytes as OpenSSL's own generator.
 */
static void same_as_openssls_own(void)
{
	static const char *const properties[] = { "provider=default", "provider=sysgenid" };
	static unsigned char out[2][1 << 20];
	static char text[2][4096];
	EVP_RAND_CTX *generators[2];
	size_t good = 0;

	for (int i = 0; i < 2; i++) {
		EVP_RAND *rand = EVP_RAND_fetch(NULL, "CTR-DRBG", properties[i]);
		EVP_RAND_CTX *source = same_source();

		generators[i] = EVP_RAND_CTX_new(rand, source);
		CHECK(generators[i]);
		EVP_RAND_CTX_free(source);
		EVP_RAND_free(rand);
	}
	CHECK(strcmp(provider_of(generators[0]), provider_of(generators[1])));
	for (size_t step = 0; step < sizeof(steps) / sizeof(*steps); step++) {
		unsigned long errors[2];
		int results[2];

		for (int i = 0; i < 2; i++) {
			memset(out[i], 0, sizeof(out[i]));
			ERR_clear_error();
			results[i] = steps[step].take(generators[i], out[i]);
			errors[i] = ERR_peek_error();
			describe(text[i], sizeof(text[i]), generators[i]);
		}
		ERR_clear_error();
		if (results[0] != results[1] || errors[0] != errors[1] ||
		    strcmp(text[0], text[1]) || memcmp(out[0], out[1], sizeof(out[0]))) {
			printf("# step %zu: %s: %d and %d\n# %s\n# %s\n", step, steps[step].name,
			       results[0], results[1], text[0], text[1]);
			CHECK(!"the same");
		}
		good += results[0] == 1;
	}
	/* Not all of it just failed. */
	CHECK(good > 15);
	EVP_RAND_CTX_free(generators[0]);
	EVP_RAND_CTX_free(generators[1]);
}

static atomic_bool stop;

static void *draw_until_stopped(void *failures)
{
	unsigned char bytes[32];

	while (!atomic_load(&stop))
		if (RAND_bytes(bytes, sizeof(bytes)) != 1 ||
		    RAND_priv_bytes(bytes, sizeof(bytes)) != 1)
			atomic_fetch_add((atomic_int *)failures, 1);
	OPENSSL_thread_stop();
	return NULL;
}

static void threads_and_changes(void)
{
	atomic_int failures = 0;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&threads[i], NULL, draw_until_stopped, &failures));
	for (int i = 0; i < 200; i++) {
		change();
		CHECK(draws());
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(failures == 0);
}

static int draw_after_change(void)
{
	uint64_t before = reseeds();

	change();
	/* Two: its own one, and the primary one, as in any process. */
	return draws() && reseeds() == before + 2 ? 0 : 1;
}

static void forked_and_changed(void)
{
	uint64_t before = reseeds();

	CHECK(in_child(draw_after_change) == 0);
	CHECK(draws());
	CHECK(reseeds() == before + 2);
}

static int draw_after_fork(void)
{
	uint64_t before = reseeds();

	/* For each of the three: the primary one, the public one, and the private one. */
	return draws() && reseeds() == before + 2 && RAND_priv_bytes(&(unsigned char){ 0 }, 1) == 1 &&
	       reseeds() == before + 3 && draws() && reseeds() == before + 3 ? 0 : 1;
}

/* The child has the parent's state: OpenSSL sees to that as well, if its process ID is new. */
static void forked(void)
{
	uint64_t before = reseeds();

	CHECK(draws());
	CHECK(in_child(draw_after_fork) == 0);
	CHECK(draws());
	CHECK(reseeds() == before);
}

static int draw_as_nobody(void)
{
	uint64_t before = reseeds();

	change();
	if (setgid(NOBODY) || setuid(NOBODY))
		return 2;
	return draws() && reseeds() == before + 2 ? 0 : 1;
}

static int draw_in_jail(void)
{
	uint64_t before = reseeds();

	change();
	if (mkdir("/tmp/jail", 0700) || chroot("/tmp/jail") || chdir("/"))
		return 2;
	return draws() && reseeds() == before + 2 ? 0 : 1;
}

/*
 * A sandbox in which there is nothing to reseed from: not for us, and not for OpenSSL.
 * What the clones have in common must not leave then.
 */
static int draw_without_getrandom(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(*filter),
		.filter = filter,
	};

	/* The first draw after a fork reseeds, and the second one does not. */
	if (!draws() ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) ||
	    !draws())
		return 2;
	change();
	return draws() ? 1 : 0;
}

/* What a program may do that has confined itself after its first draw, and no more. */
static bool confines(void)
{
	static const int allowed[] = {
		SYS_read, SYS_write, SYS_openat, SYS_close, SYS_mmap, SYS_munmap, SYS_futex,
		SYS_getrandom, SYS_clock_nanosleep, SYS_exit, SYS_exit_group,
		/* By this, OpenSSL itself notices a fork. */
		SYS_getpid,
	};
	struct sock_filter filter[2 * sizeof(allowed) / sizeof(*allowed) + 2];
	struct sock_fprog program = { .filter = filter };

	filter[program.len++] = (struct sock_filter)
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed); i++) {
		filter[program.len++] = (struct sock_filter)
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		filter[program.len++] = (struct sock_filter)
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	filter[program.len++] = (struct sock_filter)
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Each change comes from outside, when the child is ready for it. */
static void confined_by_death(void)
{
	int status, child[2], parent[2];
	char byte = 0;
	pid_t pid;

	CHECK(!pipe(child) && !pipe(parent));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (!draws() || RAND_priv_bytes(&(unsigned char){ 0 }, 1) != 1 || !confines())
			_exit(2);
		for (int i = 0; i < 3; i++) {
			if (write(child[1], &byte, 1) != 1 || read(parent[0], &byte, 1) != 1)
				_exit(3);
			if (!draws() || RAND_priv_bytes(&(unsigned char){ 0 }, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	close(child[1]);
	for (int i = 0; i < 3 && read(child[0], &byte, 1) == 1; i++) {
		change();
		CHECK(write(parent[1], &byte, 1) == 1);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	/* Nothing has killed it. */
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(child[0]);
	close(parent[0]);
	close(parent[1]);
}

/* What the program has allocated, and not what the kernel makes of that. */
static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* A process lives longer than many changes. */
static void changes_do_not_add_up(void)
{
	size_t before;

	for (int i = 0; i < 200; i++) {
		change();
		CHECK(draws());
	}
	before = in_use();
	for (int i = 0; i < 10000; i++) {
		change();
		CHECK(draws());
	}
	/* Not even a byte for each of them. */
	CHECK(in_use() < before + 10000);
}

static void confined_afterwards(void)
{
	CHECK(draws());
	CHECK(in_child(draw_as_nobody) == 0);
	CHECK(in_child(draw_in_jail) == 0);
	CHECK(in_child(draw_without_getrandom) == 0);
	rmdir("/tmp/jail");
}

static int open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (directory && readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* The contexts come and go with all that they hold. */
static void contexts_come_and_go(void)
{
	int before = open_descriptors();
	unsigned char bytes[16];

	for (int i = 0; i < 50; i++) {
		OSSL_LIB_CTX *context = new_context();

		CHECK(RAND_bytes_ex(context, bytes, sizeof(bytes), 0) == 1);
		CHECK(provider_number(context, "sysgenid-reseeds") == 0);
		change();
		CHECK(RAND_bytes_ex(context, bytes, sizeof(bytes), 0) == 1);
		CHECK(provider_number(context, "sysgenid-reseeds") == 2);
		CHECK(open_descriptors() == before);
		OSSL_LIB_CTX_free(context);
	}
	CHECK(open_descriptors() == before);
}

/* A daemon closes what it did not open, and opens files of its own. */
static int draw_without_descriptors(void)
{
	int files[32];
	int result;

	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	for (int i = 0; i < 32; i++)
		files[i] = memfd_create("mine", 0);
	result = draw_after_change();
	for (int i = 0; i < 32; i++) {
		struct stat status;

		/* Nothing was written to any of them, and none was closed. */
		if (fstat(files[i], &status) || status.st_size)
			return 3;
	}
	return result;
}

static void descriptors_are_left_alone(void)
{
	CHECK(draws());
	CHECK(in_child(draw_without_descriptors) == 0);
}

static void no_two_draws_are_equal(void)
{
	static unsigned char drawn[2000][16];

	for (int i = 0; i < 2000; i++) {
		if (i % 100 == 0)
			change();
		CHECK(RAND_bytes(drawn[i], sizeof(drawn[i])) == 1);
		for (int j = 0; j < i; j++)
			CHECK(memcmp(drawn[i], drawn[j], sizeof(drawn[i])));
	}
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	/* The first one: a generator that was made after a change is reseeded once more. */
	{ "same_as_openssls_own", same_as_openssls_own },
	{ "used_by_all_three", used_by_all_three },
	{ "used_in_own_context", used_in_own_context },
	{ "tells_its_state", tells_its_state },
	{ "leaves_no_errors", leaves_no_errors },
	{ "no_change_no_reseed", no_change_no_reseed },
	{ "one_change_one_reseed", one_change_one_reseed },
	{ "parent_of_another_provider", parent_of_another_provider },
	{ "forked_and_changed", forked_and_changed },
	{ "forked", forked },
	{ "confined_afterwards", confined_afterwards },
	{ "confined_by_death", confined_by_death },
	{ "changes_do_not_add_up", changes_do_not_add_up },
	{ "contexts_come_and_go", contexts_come_and_go },
	{ "descriptors_are_left_alone", descriptors_are_left_alone },
	{ "no_two_draws_are_equal", no_two_draws_are_equal },
	{ "threads_and_changes", threads_and_changes },
};

#define TESTS	(sizeof(tests) / sizeof(*tests))

/* A system call that does nothing, and that a trace shows. */
static void mark(const char *text)
{
	if (write(-1, text, strlen(text)) >= 0 || errno != EBADF)
		die("this cannot be written to");
}

static int draw_for_a_trace(bool changed)
{
	static const int lengths[] = { 16, 32, 1024 };
	unsigned char bytes[1024];

	if (!draws() || RAND_priv_bytes(bytes, 16) != 1)
		die("no bytes");
	if (changed)
		change();
	mark("begin");
	for (int i = 0; i < 300; i++)
		if (RAND_bytes(bytes, lengths[i % 3]) != 1 ||
		    RAND_priv_bytes(bytes, lengths[i % 3]) != 1)
			die("no bytes");
	mark("end");
	return 0;
}

/* Draws, waits until there is nothing more to read, and draws. */
static int draw_waiting(void)
{
	if (!draws())
		die("no bytes");
	puts("waiting");
	fflush(stdout);
	while (getchar() != EOF)
		;
	mark("begin");
	if (!draws())
		die("no bytes");
	mark("end");
	return 0;
}

static void *draw_in_a_thread(void *has_drawn)
{
	*(bool *)has_drawn = draws();
	return NULL;
}

/* The device comes when the program has long had its generators. */
static int draw_before_the_device(void)
{
	bool has_drawn = false;
	pthread_t thread;

	if (!draws() || provider_number(NULL, "sysgenid-reseeds"))
		die("this is not how it begins");
	puts("waiting");
	fflush(stdout);
	while (getchar() != EOF)
		;
	/* It is looked for by who makes a generator, but not twice in a second. */
	sleep(2);
	if (pthread_create(&thread, NULL, draw_in_a_thread, &has_drawn) ||
	    pthread_join(thread, NULL) || !has_drawn)
		die("no bytes in a thread");
	/* It is not known what the old one was seeded for. */
	for (int reseeds = 1; reseeds <= 2; reseeds++, change()) {
		uint64_t before = provider_number(NULL, "sysgenid-reseeds");

		if (!draws() || provider_number(NULL, "sysgenid-reseeds") <= before)
			die("the device is not heeded");
	}
	return 0;
}

/* Threads that draw when they are told to, each from another place. */
struct drawing {
	atomic_bool may_draw;
	atomic_int prepared, drawn;
	OSSL_LIB_CTX *untouched;
};

static void wait_to_draw(struct drawing *drawing)
{
	atomic_fetch_add(&drawing->prepared, 1);
	while (!atomic_load(&drawing->may_draw))
		usleep(1000);
}

static void has_drawn(struct drawing *drawing, bool has)
{
	if (!has)
		die("no bytes");
	atomic_fetch_add(&drawing->drawn, 1);
}

static void *draw_once_more(void *drawing)
{
	if (!draws())
		die("no bytes");
	wait_to_draw(drawing);
	has_drawn(drawing, draws());
	return NULL;
}

static void *draw_for_the_first_time(void *drawing)
{
	wait_to_draw(drawing);
	has_drawn(drawing, draws());
	return NULL;
}

static bool draws_from_the_primary(void)
{
	unsigned char bytes[16];

	return EVP_RAND_generate(RAND_get0_primary(NULL), bytes, sizeof(bytes), 0, 0, NULL, 0) == 1;
}

static void *draw_from_the_primary(void *drawing)
{
	wait_to_draw(drawing);
	has_drawn(drawing, draws_from_the_primary());
	return NULL;
}

static bool draws_from(OSSL_LIB_CTX *context)
{
	unsigned char bytes[16];

	return RAND_bytes_ex(context, bytes, sizeof(bytes), 0) == 1;
}

/* Nobody has drawn from it yet. */
static void *draw_from_untouched(void *argument)
{
	struct drawing *drawing = argument;

	wait_to_draw(drawing);
	has_drawn(drawing, draws_from(drawing->untouched));
	return NULL;
}

/*
 * Draws in a process that is forked while others wait for the kernel: what they
 * have locked stays so there.
 */
static int draw_and_fork(void)
{
	static void *(*const places[])(void *) = {
		draw_once_more, draw_for_the_first_time, draw_from_the_primary, draw_from_untouched,
	};
	enum { PLACES = sizeof(places) / sizeof(*places) };
	struct drawing drawing = { .untouched = new_context() };
	pthread_t threads[PLACES];
	int status;
	pid_t pid;

	if (!draws())
		die("no bytes");
	for (int i = 0; i < PLACES; i++)
		if (pthread_create(&threads[i], NULL, places[i], &drawing))
			die("no thread");
	while (atomic_load(&drawing.prepared) < PLACES)
		usleep(1000);
	puts("waiting");
	fflush(stdout);
	while (getchar() != EOF)
		;
	atomic_store(&drawing.may_draw, true);
	usleep(300 * 1000);
	pid = fork();
	if (pid == 0) {
		alarm(30);
		_exit(!draws() || !draws_from_the_primary() || !draws_from(drawing.untouched));
	}
	if (atomic_load(&drawing.drawn))
		die("nobody had to wait");
	if (waitpid(pid, &status, 0) != pid || status)
		die("the forked process has ended with %#x", status);
	for (int i = 0; i < PLACES; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

int main(int argc, char **argv)
{
	int bad = 0;

	if (argc > 1 && !strcmp(argv[1], "--forks"))
		return draw_and_fork();
	if (argc > 1 && !strcmp(argv[1], "--late"))
		return draw_before_the_device();
	if (argc > 1 && !strcmp(argv[1], "--waits"))
		return draw_waiting();
	if (argc > 1 && !strcmp(argv[1], "--draws"))
		return draw_for_a_trace(argc > 2);
	printf("TAP version 13\n1..%zu\n", TESTS);
	for (size_t i = 0; i < TESTS; i++) {
		failure = NULL;
		tests[i].run();
		printf("%sok %zu %s\n", failure ? "not " : "", i + 1, tests[i].name);
		fflush(stdout);
		bad |= failure != NULL;
	}
	return bad;
}
