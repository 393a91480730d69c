/* Gives every body that h2load sends a random key, which h2load itself cannot.
 *
 * h2load reads its body from a file with pread(2) for each request. Loaded before libc (LD_PRELOAD), this pread lets
 * the kernel read, and then writes nine random digits over those that stand RANDOM_KEYS_OFFSET bytes into the file.
 * RANDOM_KEYS_COUNT is how many different numbers there are.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { DIGITS = 9 };

static off_t digits_offset;
static uint64_t key_count;
static uint64_t state;

__attribute__((constructor)) static void read_environment(void) {
    const char *offset = getenv("RANDOM_KEYS_OFFSET"), *count = getenv("RANDOM_KEYS_COUNT");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    state = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)getpid() << 1 ^ (uint64_t)now.tv_sec;
    state |= 1; /* which must not be 0 */
    digits_offset = offset ? strtol(offset, NULL, 10) : 0;
    key_count = count ? strtoull(count, NULL, 10) : 0;
}

static uint64_t next_random(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u >> 16;
}

ssize_t pread(int handle, void *buffer, size_t size, off_t offset) {
    ssize_t got = syscall(SYS_pread64, handle, buffer, size, offset);
    if (key_count && got > 0 && offset <= digits_offset && offset + got >= digits_offset + DIGITS) {
        char *digits = (char *)buffer + (digits_offset - offset);
        uint64_t number = next_random() % key_count;
        for (int i = DIGITS - 1; i >= 0; i--, number /= 10) digits[i] = (char)('0' + number % 10);
    }
    return got;
}

ssize_t pread64(int handle, void *buffer, size_t size, off_t offset) { return pread(handle, buffer, size, offset); }
