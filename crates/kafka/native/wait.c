// librdkafka's threads wait by the wall clock: `cnd_timedwait` knows no other, and librdkafka gives
// it `gettimeofday()` and a time-out. A clock that is set back by ten minutes makes each wait that is
// under way ten minutes longer, whatever it was to be; timers, new connections and all that waits for
// them stand still meanwhile. This one takes the C library's place in every binary that has the client: it
// waits by the monotonic clock, and at most a second at a time, should the clock be set between
// librdkafka's look at it and ours. librdkafka looks at its own, monotonic time-out when a wait has
// ended, and waits again if that is not over.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <threads.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

static int64_t nanoseconds(const struct timespec *time) {
    return time->tv_sec * SECOND + time->tv_nsec;
}

// glibc's `cnd_t` and `mtx_t` are its `pthread_cond_t` and `pthread_mutex_t` under other names.
_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "another C library");
_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "another C library");

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
                  const struct timespec *restrict until) {
    struct timespec now, end;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = nanoseconds(until) - nanoseconds(&now);
    if (left > SECOND) left = SECOND;
    clock_gettime(CLOCK_MONOTONIC, &end);
    int64_t end_ns = nanoseconds(&end) + left;
    end = (struct timespec){.tv_sec = end_ns / SECOND, .tv_nsec = end_ns % SECOND};
    int result = pthread_cond_clockwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex,
                                        CLOCK_MONOTONIC, &end);
    return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}
