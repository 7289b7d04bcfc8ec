/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-2-Clause) */

/*
 * The interface of /dev/sysgenid, the system generation, and of /dev/vmgenid, the
 * hypervisor's own ID of this virtual machine.
 *
 * A virtual machine that is cloned or restored from a snapshot, or a container
 * that is restored from a checkpoint, does not notice. Whatever a program keeps
 * that must be unique in the world (the state of a random number generator,
 * nonces, session keys, UUIDs that were drawn in advance) then exists twice.
 * The system generation is a number that changes whenever this may have
 * happened, so that the program can throw such state away.
 *
 * Words
 * -----
 * generation	a u32. It starts at 0, which means that there has been no change
 *		since the driver was loaded. It never goes back to 0: after
 *		0xffffffff comes 1. Compare generations with != only; neither
 *		< nor > has a meaning.
 * epoch	a u64 that counts the changes since the driver was loaded. It never
 *		comes back; the generation can.
 * watcher	an open file description of the device. Descriptors that come
 *		from dup() or fork() share one watcher.
 * acked	the watcher has confirmed the current generation. A watcher is
 *		acked when it is opened.
 * outdated	the generation has changed since, and the watcher has not
 *		confirmed it.
 * tracked	the watcher has asked to be waited for.
 * overseer	the program that causes or awaits a change of the generation and
 *		then waits until no tracked watcher is outdated.
 * ID		the 16 bytes of the VM generation ID, where the hypervisor writes
 *		them.
 * answered	the ID which the driver has last mixed into the kernel's random
 *		number generator before it changed the generation.
 * due		the ID is another one than the answered one: a change is due.
 * reseeded	the kernel's random number generator was reseeded with the answered
 *		ID in it, before anybody was told. A machine that is restored under
 *		the same ID has nothing new in it: whoever causes the change then
 *		brings entropy.
 *
 * For a program that looks before each use
 * ----------------------------------------
 * Open the device O_RDONLY, and map one page at offset 0 with PROT_READ, shared
 * or private: it is a struct sysgenid_page. The descriptor can be closed: the
 * mapping stays, across fork() too, and is not waited for by anybody.
 *
 * Remember the generation before the state that must be unique is built. Before each
 * use, load it again and compare: != means that the state has to be built anew. A
 * program with 64 bits compares the epoch as well. The loads are relaxed ones, of no
 * more than the machine's word, and after them comes an acquire fence: what is used or
 * drawn after that is no older than what was seen. (In C, acquire loads do as well.)
 *
 * Look again when a result is complete, before it leaves the program, and throw it away
 * if anything has changed. Before these loads come a full compiler barrier and an
 * acquire-release fence, or the work may sink below the look.
 *
 * Where the change comes from the hypervisor and the flag SYSGENID_FLAG_RESEEDED is
 * set, getrandom() gives fresh output to whoever has seen the new value. Without the
 * flag, add to it what else there is: the ID, a hardware random number generator, the
 * clock. With the generation alone a clone is noticed some milliseconds late; see "For a
 * program that keeps secrets".
 *
 * For a program that wants to be told
 * -----------------------------------
 * An outdated watcher is readable (EPOLLIN | EPOLLRDNORM), and stays so until it
 * acks. An ack is a write, so open the device O_RDWR: a watcher that is open O_RDONLY
 * can wait and read, and stays outdated after its first change until it is closed.
 *
 *	1. open() the device O_RDWR, and only then build the state: what changes in
 *	   between is not missed, for the watcher is outdated then.
 *	2. poll(), with no limit, or a blocking read(). In an event loop, add the
 *	   descriptor once, level-triggered.
 *	3. read() the generation, as four bytes. Reading does not ack. A read by
 *	   a watcher that is not outdated blocks, or fails with EAGAIN where the
 *	   descriptor is O_NONBLOCK or the call has RWF_NOWAIT.
 *	4. Build the state anew.
 *	5. write() the same four bytes: this acks. If the generation has changed
 *	   again in the meantime then the write fails with EINVAL: start again
 *	   at 3.
 *
 * A program that is started in a clone, of which the kernel has not heard yet, has that
 * settled by its open(), and finds its watcher outdated. If what it builds at 1 must not
 * be that of another clone, then it calls SYSGENID_SETTLE before, with a limit of some
 * seconds.
 *
 * Programs that do this by way of the C library, with poll(), with epoll and with
 * sd-event, are in samples/ of the sysgenid repository.
 *
 * There is no file position: lseek(), pread() and pwrite() fail with ESPIPE.
 *
 * open() fails with
 *	ENOENT	   if there is no node: the driver is not loaded, or this /dev was made
 *		   without it. A node that was left behind gives ENODEV or ENXIO;
 *	EACCES	   if the node's mode, or a security module, forbids it (the driver
 *		   makes it 0666);
 *	EPERM	   if the device policy of a container or service forbids it;
 *	ENOMEM	   if memory is short.
 * read() fails with
 *	EBADF	   if the descriptor is not open for reading;
 *	EINVAL	   for less than four bytes (zero bytes succeed, and do nothing);
 *	EAGAIN	   see above;
 *	EINTR	   if a signal arrives while it blocks, whose handler has no SA_RESTART;
 *	EFAULT	   for memory that cannot be written.
 * write() fails with
 *	EBADF	   if the descriptor is not open for writing;
 *	ENOBUFS	   for any other size than four bytes;
 *	EFAULT	   for memory that cannot be read;
 *	EINVAL	   if the value is not the current generation.
 * mmap() fails with
 *	EACCES	   if the descriptor is not open for reading, or for a shared mapping
 *		   with PROT_WRITE if it is not open for writing;
 *	EINVAL	   for more than one page, or for an offset that is not 0;
 *	EPERM	   for any other mapping with PROT_WRITE;
 *	ENOMEM	   if memory is short.
 * A mapping with PROT_EXEC is made, and is not executable (but EPERM where /dev is
 * mounted noexec).
 *
 * For an overseer
 * ---------------
 * A program whose state must not be used before it has been renewed makes its
 * watcher, which is open O_RDWR, tracked (SYSGENID_SET_WATCHER_TRACKING). The overseer,
 * which keeps the system quiesced meanwhile, causes the change
 * (SYSGENID_TRIGGER_GEN_UPDATE, which see for its duty) or learns of one, acks it on its
 * own watcher if it has one open from before, and calls SYSGENID_WAIT_WATCHERS. On
 * success all tracked watchers have acked or have been closed, and the system can go on.
 * A watcher that was opened after the change has nothing to ack, and may be O_RDONLY.
 *
 * Each change also emits a "change" uevent from the device, in order, with
 * SYSGENID=<generation>, SYSGENID_SOURCE=<source> and SYSGENID_RESEEDED=<0 or 1> in
 * its environment. It may come after the call that has caused the change returns.
 *
 * /proc/<pid>/fdinfo/<fd> shows, one "key:\tvalue" a line:
 *	sysgenid-generation	    the generation;
 *	sysgenid-epoch		    the epoch;
 *	sysgenid-acked		    the generation that this watcher acked last;
 *	sysgenid-outdated	    1 if this watcher is outdated, else 0;
 *	sysgenid-tracked	    1 if this watcher is tracked, else 0;
 *	sysgenid-watchers	    the number of tracked watchers, in all;
 *	sysgenid-outdated-watchers  how many of those are outdated;
 *	sysgenid-source		    what caused the last change: "none" if there
 *				    was none; for the hypervisor's changes
 *				    "vmfork" (the kernel's notification of VM
 *				    forks), "vmgenid" (the ACPI device's) or
 *				    "page" (somebody has looked at the ID);
 *				    "ioctl"; or "kernel" (other kernel code);
 *	sysgenid-reseeded	    1 or 0, as SYSGENID_FLAG_RESEEDED;
 *	sysgenid-pending	    1 if a change is due, else 0. Left out where
 *				    the ID cannot be seen.
 *
 * /dev/vmgenid
 * ------------
 * Between the moment when a clone is resumed and the moment when the kernel has
 * heard of it, user space runs: for milliseconds the generation is the old one, and
 * getrandom() returns the same bytes in all clones. The page in which the hypervisor
 * keeps the VM generation ID has the new ID from the first instruction on. Where
 * there is an ID, /dev/vmgenid shows it, read-only, and the answer to it; its mode is
 * 0400, because the ID identifies this machine.
 *
 * Open it O_RDONLY. All else fails with EACCES, also for root; for the other errors of
 * open() see above. There is no node where the machine has no such device. Map one page
 * with PROT_READ, shared or private,
 *	at offset 0		  the hypervisor's page. The ID is the 16 bytes at
 *				  the offset that VMGENID_GET_OFFSET returns;
 *	at an offset of one page  the answer: a struct vmgenid_answer_page.
 * The errors of mmap() are those of /dev/sysgenid, and
 *	ENODEV	   if the hypervisor's page cannot be mapped, because it is not safe to
 *		   show all of it. Look by pread() then.
 *
 * The file is as long as the ID: read() of 16 bytes or more at position 0 returns it,
 * as it stands in memory at this moment, and read() at position 16 or beyond returns
 * 0. It fails with
 *	EINVAL	   for less than 16 bytes, and at the positions between;
 *	EFAULT	   for memory that cannot be written.
 *
 * /proc/<pid>/fdinfo/<fd> shows:
 *	vmgenid-offset		    the offset of the ID in the page;
 *	vmgenid-id		    the ID, 32 hexadecimal digits, if who opened the
 *				    file had CAP_SYS_ADMIN;
 *	vmgenid-answered	    the answered ID, likewise.
 *
 * For a program that keeps secrets
 * --------------------------------
 * It maps the generation page, the hypervisor's page and the answer. This is all that
 * it does; Documentation/userspace-api/vmgenid.rst says why, and samples/secrets.c in
 * the sysgenid repository is a complete program.
 *
 *	1. Settle. Load the ID and the generation, and then the whole answer. If the
 *	   answer's ID and generation are those that were loaded, then the machine is
 *	   settled. Else sleep, for a millisecond at first and for some tens later, and
 *	   begin anew, for five seconds at most. (Or call SYSGENID_SETTLE once, and
 *	   look.) This comes before anything is drawn, also in a program that has just
 *	   been started: it may have been started in a clone that has just been
 *	   resumed, and neither 0 nor whatever stands there first is settled.
 *	2. Remember the ID and the generation that were compared. Draw from getrandom().
 *	   If the answer's flags have no SYSGENID_FLAG_RESEEDED, or after five seconds,
 *	   add to that what else there is, and report it.
 *	3. Before each use of what was drawn, load both, and compare with what is
 *	   remembered: != means throw it away, and settle.
 *	4. Look again before a result leaves the program, and once more when it has
 *	   left; who has got it hears then whether it counts.
 *	5. Without /dev/vmgenid there is nothing to wait for: the generation page alone
 *	   is looked at, and its flags count. A clone is noticed late then.
 *	6. A forked process has all that its parent has drawn. A page with
 *	   MADV_WIPEONFORK, looked at like the others, tells it.
 *
 * The loads and the fences are those of a program that looks before each use.
 */

#ifndef _UAPI_LINUX_SYSGENID_H
#define _UAPI_LINUX_SYSGENID_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * SYSGENID_FLAG_FIELDS - the flags and the epoch exist
 *
 * The driver of Amazon Linux has a generation only, and zeros after it.
 */
#define SYSGENID_FLAG_FIELDS	0x1U

/**
 * SYSGENID_FLAG_RESEEDED - the random number generator was reseeded before the change
 */
#define SYSGENID_FLAG_RESEEDED	0x2U

/**
 * struct sysgenid_page - what a mapping of /dev/sysgenid begins with
 *
 * The driver stores the flags, the generation and the epoch in this order, each with
 * release. So load the epoch before the generation, and the generation before the
 * flags, by relaxed loads, with an acquire fence after each (in C, acquire loads do as
 * well): whoever sees the new epoch sees the generation and the flags that belong to
 * it, or later ones. All numbers are in the byte order of the machine. The rest of the
 * page is zero, and may get a meaning later: ignore it.
 */
struct sysgenid_page {
	/** @generation: the generation */
	__u32 generation;
	/** @flags: SYSGENID_FLAG_FIELDS and SYSGENID_FLAG_RESEEDED */
	__u32 flags;
	/**
	 * @epoch: the epoch. Programs with 32 bits would load it in two halves, and
	 * use the generation.
	 */
	__u64 epoch;
};

/**
 * struct vmgenid_answer_page - what a mapping of /dev/vmgenid at one page begins with
 *
 * It is written at every change. Load the sequence, and after an acquire fence the rest,
 * and after another one the sequence again, all by relaxed loads of no more than the
 * machine's word (in C, an acquire load does as well as a load with a fence after it): if
 * the sequence was even, and is the same, then what was loaded belongs together.
 */
struct vmgenid_answer_page {
	/** @sequence: odd while the rest is being written */
	__u32 sequence;
	/** @flags: SYSGENID_FLAG_RESEEDED */
	__u32 flags;
	/** @generation: the generation, as in struct sysgenid_page */
	__u32 generation;
	/** @reserved: zero */
	__u32 reserved;
	/** @id: the answered ID */
	__u8 id[16];
	/** @epoch: the epoch, as in struct sysgenid_page */
	__u64 epoch;
};

/*
 * The argument of each ioctl is a number, which is passed by value and never as
 * a pointer; so 32-bit programs on a 64-bit kernel get the same answers. An
 * ioctl that is not listed here fails with ENOTTY.
 */
#define SYSGENID_IOCTL_MAGIC	0xE4

/**
 * SYSGENID_SET_WATCHER_TRACKING - ask to be waited for, or no longer
 *
 * Argument: 0 makes the caller's watcher untracked, any other value makes it
 * tracked. An outdated watcher that becomes tracked counts as outdated at once;
 * one that becomes untracked is no longer waited for. Asking for what is so
 * already changes nothing.
 *
 * Return:
 * * 0 - it is so now
 * * EBADF - the watcher was to become tracked, and the descriptor is not open for
 *   writing: who waits for it, as it can never ack, would do so for ever
 */
#define SYSGENID_SET_WATCHER_TRACKING	_IO(SYSGENID_IOCTL_MAGIC, 1)

/**
 * SYSGENID_WAIT_WATCHERS - wait until no tracked watcher is outdated
 *
 * Argument: the longest time to wait, in milliseconds; 0 is no limit.
 *
 * A signal ends the call, whatever SA_RESTART says: the caller decides what is left of
 * its time. One without a handler (the process is stopped and goes on, or a debugger
 * looks at it) does so only if there is a limit. A suspend of the system does not, nor
 * does the cgroup freezer, which is such a signal with cgroups of version 2.
 *
 * Return:
 * * 0 - no tracked watcher is outdated
 * * EINTR - the caller's own watcher is outdated, or became so while the call
 *   waited (this wins over 0 and over ETIME); or a signal arrived
 * * ETIME - a tracked watcher was still outdated when the time was over
 */
#define SYSGENID_WAIT_WATCHERS		_IO(SYSGENID_IOCTL_MAGIC, 2)

/**
 * SYSGENID_TRIGGER_GEN_UPDATE - change the generation
 *
 * Argument: the least new generation. The generation becomes the greater one of
 * this and the current generation plus 1 (plus 1 after 0xffffffff is 1); so it
 * changes in any case, and 0 asks for nothing in particular. Every watcher,
 * the caller's own too, becomes outdated. The random number generator is made to
 * reseed before.
 *
 * If a change is due then that one is made first.
 *
 * The caller needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user
 * namespace. The descriptor may be open in any way.
 *
 * The random number generator has nothing to reseed from but what it has. Where no
 * hypervisor gives the machine an ID of its own, two machines that come from one snapshot
 * and are only triggered draw the same from getrandom(). So there the caller has a duty,
 * before this: RNDADDENTROPY with random bytes from outside that no other machine gets,
 * and then RNDRESEEDCRNG, which are ioctls of /dev/urandom (<linux/random.h>). See "The
 * overseer's duty" in Documentation/userspace-api/vmgenid.rst.
 *
 * Return:
 * * 0 - the generation has changed
 * * EACCES - the caller has neither capability
 * * EINVAL - the argument is greater than 0xffffffff; nothing has changed
 * * EINTR - a signal arrived before the change was begun; this call has changed
 *   nothing
 */
#define SYSGENID_TRIGGER_GEN_UPDATE	_IO(SYSGENID_IOCTL_MAGIC, 3)

/**
 * SYSGENID_SETTLE - wait until no change is due
 *
 * Argument: the longest time to wait, in milliseconds; 0 is no limit.
 *
 * What is due is done now: the call does not wait for the hypervisor's notification
 * to find its way. It takes no privilege. Where the call itself makes the change, as
 * this version of the driver has it, nobody is waited for, and neither error comes.
 *
 * Return:
 * * 0 - nothing is due, as far as the ID can be seen
 * * ETIME - a change was still due when the time was over
 * * EINTR - a signal arrived; see SYSGENID_WAIT_WATCHERS
 */
#define SYSGENID_SETTLE			_IO(SYSGENID_IOCTL_MAGIC, 4)

/**
 * VMGENID_GET_OFFSET - where in its page the VM generation ID is
 *
 * An ioctl of /dev/vmgenid. There is no argument.
 *
 * Return:
 * * 0 to 4080 or, with larger pages, more - the offset, in bytes
 */
#define VMGENID_GET_OFFSET		_IO(SYSGENID_IOCTL_MAGIC, 0x10)

#endif /* _UAPI_LINUX_SYSGENID_H */
