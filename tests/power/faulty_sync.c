/* Stands between a node and the kernel's syncs (LD_PRELOAD): they lie, fail or take long. By the environment:

   SYNC_LIES=1          every sync says that it is done, and does nothing
   SYNC_NO_AIO=1        io_setup fails with ENOSYS: the log has to sync in a thread
   SYNC_DELAY_MS=N      a sync of data waits up to N ms first (so does a node that lets the kernel sync); meanwhile
                        some of the pages that were written last go to the disk, and others do not
   SYNC_FAULT=FILE      as soon as FILE exists it is removed, and the next sync fails with EIO, once: Linux tells of a
                        failed write-back only once, too, and syncs after it succeed
   SYNC_FAULT_IN=TEXT   only a sync of a file whose path contains TEXT counts for that

   The log syncs by the kernel's AIO, called by number (storage/kernel_sync.py). A sync that shall not happen is then
   turned to a file in memory, so that the kernel still tells its end through the eventfd. One is in flight at a time. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define DESCRIPTORS 1024

static struct range { off64_t start, stop; } last_write[DESCRIPTORS];
static int is_kernel_sync_failing;

static int lies(void) { return getenv("SYNC_LIES") != NULL; }

static int must_fail(int descriptor) {
    const char *trigger = getenv("SYNC_FAULT"), *part = getenv("SYNC_FAULT_IN");
    char link[64], path[4096];
    if (trigger == NULL || access(trigger, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return (part == NULL || strstr(path, part) != NULL) && unlink(trigger) == 0;
}

static void write_back_some(int descriptor, unsigned int *seed) {
    const off64_t page = 4096;
    if (descriptor < 0 || descriptor >= DESCRIPTORS)
        return;
    struct range last = last_write[descriptor];
    for (off64_t at = last.start / page * page; at < last.stop; at += page)
        if (rand_r(seed) % 2)
            NEXT(sync_file_range)(descriptor, at, page, SYNC_FILE_RANGE_WRITE);
}

static void wait_a_while(int descriptor) {
    static __thread unsigned int seed;
    const char *delay = getenv("SYNC_DELAY_MS");
    if (delay == NULL)
        return;
    if (seed == 0)
        seed = (unsigned int)(getpid() + gettid());
    write_back_some(descriptor, &seed);
    usleep((useconds_t)rand_r(&seed) % (useconds_t)(1 + 1000 * atoi(delay)));
}

static int sync_by(int (*real)(int), int descriptor) {
    if (must_fail(descriptor)) {
        errno = EIO;
        return -1;
    }
    return lies() ? 0 : real(descriptor);
}

int fsync(int descriptor) { return sync_by(NEXT(fsync), descriptor); }

int fdatasync(int descriptor) {
    wait_a_while(descriptor);
    return sync_by(NEXT(fdatasync), descriptor);
}

int sync_file_range(int descriptor, off64_t offset, off64_t count, unsigned int flags) {
    return lies() ? 0 : NEXT(sync_file_range)(descriptor, offset, count, flags);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    ssize_t written = NEXT(pwrite64)(descriptor, data, size, offset);
    if (written > 0 && descriptor < DESCRIPTORS)
        last_write[descriptor] = (struct range){offset, offset + written};
    return written;
}

static long submit(__typeof__(&syscall) real, aio_context_t context, long count, struct iocb **blocks) {
    static int nowhere = -1;
    if (count != 1 || blocks[0]->aio_lio_opcode != IOCB_CMD_FDSYNC)
        return real(SYS_io_submit, context, count, blocks);
    struct iocb block = *blocks[0], *only = &block;
    wait_a_while((int)block.aio_fildes);
    is_kernel_sync_failing = must_fail((int)block.aio_fildes);
    if (is_kernel_sync_failing || lies()) {
        if (nowhere < 0)
            nowhere = memfd_create("nowhere", MFD_CLOEXEC);
        block.aio_fildes = (unsigned int)nowhere;
    }
    return real(SYS_io_submit, context, 1L, &only);
}

static long get_events(__typeof__(&syscall) real, long *arguments) {
    long taken = real(SYS_io_getevents, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]);
    if (taken == 1 && is_kernel_sync_failing) {
        is_kernel_sync_failing = 0;
        ((struct io_event *)arguments[3])->res = -EIO;
    }
    return taken;
}

long syscall(long number, ...) {
    long a[6];
    va_list given;
    va_start(given, number);
    for (int at = 0; at < 6; at++)
        a[at] = va_arg(given, long);
    va_end(given);
    __typeof__(&syscall) real = NEXT(syscall);
    switch (number) {
    case SYS_io_setup:
        if (getenv("SYNC_NO_AIO") != NULL) {
            errno = ENOSYS;
            return -1;
        }
        break;
    case SYS_io_submit:
        return submit(real, (aio_context_t)a[0], a[1], (struct iocb **)a[2]);
    case SYS_io_getevents:
        return get_events(real, a);
    case SYS_fsync:
        return fsync((int)a[0]);
    case SYS_fdatasync:
        return fdatasync((int)a[0]);
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
