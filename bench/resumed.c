// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The guest's part of the measurement of a resume: how long it takes in a clone until
 * those who wait for a change run, and an overseer knows that all have confirmed it.
 *
 *	resumed WATCHERS [--target]
 *	resumed --ran
 *
 * WATCHERS tracked watchers are in one epoll instance of one program. Besides there is a
 * program asleep in poll(), one asleep in read(), one that listens for uevents, and an
 * overseer. It prints READY when all are asleep and the machine has come to rest, and is
 * frozen with it. Then it prints a line of JSON, in nanoseconds since the interrupt with
 * which ACPI has told the kernel, the first thing that happens after the resume:
 *
 *	{"watchers": 1, "poll": 1, "read": 1, "uevent": 1, "last": 1, "released": 1}
 *
 * "last" is when the last of the watchers has acked. With --target there is also a "target":
 * when a unit of sysgenid-changed.target, which is made for that, has run "resumed --ran".
 */

#define _GNU_SOURCE
#include "common.h"

#include <linux/netlink.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* What the unit leaves. */
#define RAN	"/run/resumed"

/* What the processes share: how many are about to sleep, and when each ran. */
static struct shared {
	_Atomic long ready;
	_Atomic int64_t poll, read, uevent, last, released;
} *shared;

static void wait_in_poll(long unused)
{
	struct pollfd polled = { .fd = open_node(O_RDONLY), .events = POLLIN };

	(void)unused;
	shared->ready++;
	expect(poll(&polled, 1, -1) == 1, "poll");
	shared->poll = now();
	exit(0);
}

static void wait_in_read(long unused)
{
	int fd = open_node(O_RDONLY);
	uint32_t generation;

	(void)unused;
	shared->ready++;
	expect(read(fd, &generation, 4) == 4, "read");
	shared->read = now();
	exit(0);
}

/* A message is a number of strings. */
static bool is_ours(const char *message, ssize_t length)
{
	static const char key[] = "SYSGENID=";

	return length > 0 && memmem(message, length, key, strlen(key));
}

static void wait_for_uevent(long unused)
{
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	char message[4096];
	ssize_t length;

	(void)unused;
	expect(fd >= 0 && !bind(fd, (const struct sockaddr *)&address, sizeof(address)),
	       "a socket for uevents");
	shared->ready++;
	do {
		length = recv(fd, message, sizeof(message), 0);
		expect(length >= 0, "recv");
	} while (!is_ours(message, length));
	shared->uevent = now();
	exit(0);
}

static void watch(long watchers)
{
	static struct epoll_event events[512];
	struct epoll_event event = { .events = EPOLLIN };
	int instance = epoll_create1(EPOLL_CLOEXEC);
	long acked = 0;

	for (long i = 0; i < watchers; i++) {
		event.data.fd = open_node(O_RDWR | O_NONBLOCK);
		expect(!ioctl(event.data.fd, SYSGENID_SET_WATCHER_TRACKING, 1),
		       "SYSGENID_SET_WATCHER_TRACKING");
		expect(!epoll_ctl(instance, EPOLL_CTL_ADD, event.data.fd, &event), "epoll_ctl");
	}
	shared->ready++;
	while (acked < watchers) {
		int number = epoll_wait(instance, events, 512, -1);

		expect(number > 0, "epoll_wait");
		for (int i = 0; i < number; i++)
			ack(events[i].data.fd);
		acked += number;
	}
	shared->last = now();
	/* A watcher that is gone is waited for by nobody. */
	for (;;)
		pause();
}

static void oversee(long unused)
{
	struct pollfd polled = { .fd = open_node(O_RDWR), .events = POLLIN };

	(void)unused;
	shared->ready++;
	expect(poll(&polled, 1, -1) == 1, "poll");
	ack(polled.fd);
	expect(!ioctl(polled.fd, SYSGENID_WAIT_WATCHERS, 0), "SYSGENID_WAIT_WATCHERS");
	shared->released = now();
	exit(0);
}

/* The unit is not started for what was before. */
static void make_unit(void)
{
	write_text("/etc/systemd/system/resumed.service",
		   "[Unit]\nPartOf=sysgenid-changed.target\n"
		   "[Service]\nType=oneshot\nExecStart=/resumed --ran\n"
		   "[Install]\nWantedBy=sysgenid-changed.target\n", O_CREAT);
	if (system("systemctl enable --quiet resumed.service")) {
		fprintf(stderr, "resumed: systemctl fails\n");
		exit(1);
	}
}

static int note_that_it_ran(void)
{
	int64_t time = now();
	int fd = open(RAN, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	expect(fd >= 0 && write(fd, &time, sizeof(time)) == sizeof(time), RAN);
	return 0;
}

/* 0 if it has not run. */
static int64_t ran_at(void)
{
	int fd = open(RAN, O_RDONLY | O_CLOEXEC);
	int64_t time;

	if (fd < 0)
		return 0;
	if (read(fd, &time, sizeof(time)) != sizeof(time))
		time = 0;
	close(fd);
	return time;
}

static bool are_through(bool target)
{
	return shared->poll && shared->read && shared->uevent && shared->last &&
	       shared->released && (!target || ran_at());
}

int main(int argc, char **argv)
{
	static void (*const roles[])(long) = {
		wait_in_poll, wait_in_read, wait_for_uevent, watch, oversee,
	};
	const long number = sizeof(roles) / sizeof(roles[0]);
	bool target = argc == 3 && !strcmp(argv[2], "--target");
	long watchers = argc == 2 + target ? atol(argv[1]) : 0;
	int64_t start_of_all;

	if (argc == 2 && !strcmp(argv[1], "--ran"))
		return note_that_it_ran();
	if (watchers < 1) {
		fprintf(stderr, "usage: resumed WATCHERS [--target]\n       resumed --ran\n");
		return 2;
	}
	if (target)
		make_unit();
	allow_descriptors(watchers + 100);
	shared = share(sizeof(*shared));
	trace_interrupts();
	for (long i = 0; i < number; i++)
		start(roles[i], watchers);
	while (shared->ready < number) {
		/* It has said why. */
		if (waitpid(-1, NULL, WNOHANG) > 0)
			return 1;
		pause_ms(1);
	}
	wait_for_processor();
	puts("READY");
	fflush(stdout);

	while (!are_through(target)) {
		siginfo_t info = { 0 };

		if (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG) && info.si_pid && info.si_status)
			return 1;
		pause_ms(50);
	}
	start_of_all = interrupted_at();
	if (!start_of_all) {
		fprintf(stderr, "resumed: ACPI has interrupted nobody\n");
		return 1;
	}
	printf("{\"watchers\": %ld, \"poll\": %lld, \"read\": %lld, \"uevent\": %lld, "
	       "\"last\": %lld, \"released\": %lld", watchers,
	       (long long)(shared->poll - start_of_all), (long long)(shared->read - start_of_all),
	       (long long)(shared->uevent - start_of_all),
	       (long long)(shared->last - start_of_all),
	       (long long)(shared->released - start_of_all));
	if (target)
		printf(", \"target\": %lld", (long long)(ran_at() - start_of_all));
	puts("}");
	return 0;
}
