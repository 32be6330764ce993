// A wall clock that is set while a process runs, for that process alone, by LD_PRELOAD.
//
// CLOCK_AHEAD  a file of eight bytes, a number: by how many seconds it is ahead of the machine's
//
// The monotonic clock runs on. As in the kernel, who waits for a time of the wall clock waits until
// this clock shows it, also if it is set back meanwhile.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L
#define LOOK_AGAIN (20 * 1000000L)

static const volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_AHEAD"), O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) abort();
    ahead = mapped;
    close(fd);
}

static int64_t nanoseconds(const struct timespec *time) {
    return time->tv_sec * SECOND + time->tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result == 0 && is_wall && ahead != NULL) now->tv_sec += *ahead;
    return result;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now != NULL) *now = precise.tv_sec;
    return precise.tv_sec;
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
                  const struct timespec *restrict until) {
    for (;;) {
        struct timespec now, look;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = nanoseconds(until) - nanoseconds(&now);
        if (left <= 0) return thrd_timedout;
        clock_gettime(CLOCK_MONOTONIC, &look);
        int64_t next = nanoseconds(&look) + (left < LOOK_AGAIN ? left : LOOK_AGAIN);
        look = (struct timespec){.tv_sec = next / SECOND, .tv_nsec = next % SECOND};
        int result = pthread_cond_clockwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex,
                                            CLOCK_MONOTONIC, &look);
        if (result != ETIMEDOUT) return result == 0 ? thrd_success : thrd_error;
    }
}
