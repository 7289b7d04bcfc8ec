// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Draws by glibc's getrandom(), where that works without a system call: with a
 * state of its own in user space, by a function in the kernel's vDSO.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "draw.h"

static bool draw(unsigned char *bytes, size_t len)
{
	return getrandom(bytes, len, 0) == (ssize_t)len;
}

/* From here on, the system call fails. */
static bool forbid(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(*filter),
		.filter = filter,
	};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/*
 * Whether a process that may not make the system call can still draw. It has
 * drawn once before: the state in user space is filled by the system call, and
 * again whenever the kernel has reseeded. So one success is proof enough, and a
 * failure may be chance.
 */
static bool is_in_user_space(void)
{
	unsigned char bytes[DRAW_LEN];
	int status, i;
	pid_t pid;

	for (i = 0; i < 5; i++) {
		pid = fork();
		if (pid < 0)
			return false;
		if (!pid)
			_exit(!(draw(bytes, sizeof(bytes)) && forbid() &&
				draw(bytes, sizeof(bytes))));
		if (waitpid(pid, &status, 0) == pid && !status)
			return true;
	}
	return false;
}

int main(void)
{
	if (!is_in_user_space()) {
		fputs("getrandom_vdso: glibc's getrandom() makes a system call here\n", stderr);
		return EXIT_FAILURE;
	}
	return serve(draw);
}
