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
 * watcher	an open file description of the device. Descriptors that come
 *		from dup() or fork() share one watcher.
 * acked	the watcher has confirmed the current generation. A watcher is
 *		acked when it is opened.
 * outdated	the generation has changed since, and the watcher has not
 *		confirmed it.
 * tracked	the watcher has asked to be waited for.
 * overseer	the program that causes or awaits a change of the generation and
 *		then waits until no tracked watcher is outdated.
 *
 * For a program that looks before each use
 * ----------------------------------------
 * Open the device O_RDONLY, and map one page at offset 0 with PROT_READ, shared
 * or private. The first four bytes of the page are the generation in the byte
 * order of the machine; all others are zero. The descriptor can be closed: the
 * mapping stays, across fork() too, and is not waited for by anybody.
 *
 * Remember the generation before the secret state is built. Before each use,
 * load the word again (an acquire load) and compare: != means that the state has
 * to be built anew. Where the change comes from the hypervisor, the kernel's own
 * random number generator has been reseeded before the word changes, so that
 * getrandom() gives fresh output to whoever has seen the new value.
 *
 * For a program that wants to be told
 * -----------------------------------
 * An outdated watcher is readable (EPOLLIN | EPOLLRDNORM), and stays so until it
 * acks:
 *
 *	1. poll(), or a blocking read().
 *	2. read() the generation, as four bytes. Reading does not ack. A read by
 *	   a watcher that is not outdated blocks, or fails with EAGAIN where the
 *	   descriptor is O_NONBLOCK or the call has RWF_NOWAIT.
 *	3. Build the state anew.
 *	4. write() the same four bytes: this acks. If the generation has changed
 *	   again in the meantime then the write fails with EINVAL: start again
 *	   at 2.
 *
 * There is no file position: lseek(), pread() and pwrite() fail with ESPIPE.
 *
 * read() fails with
 *	EINVAL	   for less than four bytes (zero bytes succeed, and do nothing);
 *	EAGAIN	   see above;
 *	EFAULT	   for memory that cannot be written.
 * write() fails with
 *	ENOBUFS	   for any other size than four bytes;
 *	EFAULT	   for memory that cannot be read;
 *	EINVAL	   if the value is not the current generation.
 * mmap() fails with
 *	EINVAL	   for more than one page, or for an offset that is not 0;
 *	EPERM	   for PROT_WRITE and for PROT_EXEC (but EACCES for a shared
 *		   writable mapping through a read-only descriptor).
 *
 * For an overseer
 * ---------------
 * A program whose state must not be used before it has been renewed makes its
 * watcher tracked (SYSGENID_SET_WATCHER_TRACKING). The overseer, which keeps the
 * system quiesced meanwhile, causes the change (SYSGENID_TRIGGER_GEN_UPDATE) or
 * learns of one, acks it on its own watcher if it has one open from before, and
 * calls SYSGENID_WAIT_WATCHERS. On success all tracked watchers have acked or
 * have been closed, and the system can go on.
 *
 * Each change also emits a "change" uevent from the device, with
 * SYSGENID=<generation> in its environment.
 *
 * /proc/<pid>/fdinfo/<fd> shows, one "key:\tvalue" a line:
 *	sysgenid-generation	    the generation;
 *	sysgenid-acked		    the generation that this watcher acked last;
 *	sysgenid-outdated	    1 if this watcher is outdated, else 0;
 *	sysgenid-tracked	    1 if this watcher is tracked, else 0;
 *	sysgenid-watchers	    the number of tracked watchers, in all;
 *	sysgenid-outdated-watchers  how many of those are outdated;
 *	sysgenid-source		    what caused the last change: "none" if there
 *				    was none, "ioctl", "vmfork", ...
 *	sysgenid-pending	    1 if the hypervisor has given this machine
 *				    another ID than the one for which it changed
 *				    the generation last: it is a clone, and the
 *				    change is due. Else 0.
 *
 * /dev/vmgenid
 * ------------
 * Between the moment when a clone is resumed and the moment when the kernel has
 * heard of it, user space runs: for milliseconds the generation is the old one, and
 * getrandom() returns the same bytes in all clones. The page in which the hypervisor
 * keeps the VM generation ID has the new ID from the first instruction on. Where
 * there is one, in memory that user space may see, /dev/vmgenid shows it, read-only;
 * its mode is 0400, because the ID identifies this machine.
 *
 * Open it O_RDONLY (all else fails with EACCES), and map one page at offset 0 with
 * PROT_READ, shared or private. The ID is the 16 bytes at the offset that
 * VMGENID_GET_OFFSET returns. The errors of mmap() are those of /dev/sysgenid.
 *
 * read() of 16 bytes or more returns the ID, whatever the file position is, and
 * fails with
 *	EINVAL	   for less than 16 bytes;
 *	EFAULT	   for memory that cannot be written.
 *
 * A program that keeps secrets remembers the ID along with the generation. Before
 * each use it loads both again, and compares. If the ID is another one then it uses
 * nothing that it has, trusts nothing that getrandom() returns, and waits until the
 * generation is another one as well; then it builds everything anew. It looks again
 * before a result leaves it.
 *
 * /proc/<pid>/fdinfo/<fd> shows:
 *	vmgenid-offset		    the offset of the ID in the page;
 *	vmgenid-id		    the ID, 32 hexadecimal digits, for those with
 *				    CAP_SYS_ADMIN.
 */

#ifndef _UAPI_LINUX_SYSGENID_H
#define _UAPI_LINUX_SYSGENID_H

#include <linux/ioctl.h>

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
 * * 0 - always
 */
#define SYSGENID_SET_WATCHER_TRACKING	_IO(SYSGENID_IOCTL_MAGIC, 1)

/**
 * SYSGENID_WAIT_WATCHERS - wait until no tracked watcher is outdated
 *
 * Argument: the longest time to wait, in milliseconds; 0 is no limit.
 *
 * The call is never restarted by the kernel after a signal, whatever SA_RESTART
 * says: the caller decides what is left of its time.
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
 * the caller's own too, becomes outdated.
 *
 * The caller needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user
 * namespace.
 *
 * Return:
 * * 0 - the generation has changed
 * * EACCES - the caller has neither capability
 * * EINVAL - the argument is greater than 0xffffffff; nothing has changed
 */
#define SYSGENID_TRIGGER_GEN_UPDATE	_IO(SYSGENID_IOCTL_MAGIC, 3)

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
