// Work for `cargo xtask bench`, on request: reads one command a line from stdin, answers each with one line on stdout.
//
//   pair N DEPTH       N times malloc and free below DEPTH frames of the program's own -> CPU ns of all pairs
//   flood THREADS MS   malloc and free on THREADS threads for MS milliseconds          -> pairs
//   hold N SIZE        N blocks of SIZE bytes, kept                                    -> N
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_THREADS = 64 };

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static __attribute__((noinline)) void pair(size_t size) {
    volatile char *block = malloc(size);
    if (!block) abort();
    *block = 1;
    free((void *)block);
}

static __attribute__((noinline)) long long pairs(long count, long depth) {
    if (depth > 0) {
        volatile long long spent = pairs(count, depth - 1);  // not a tail call: the frame has to stay
        return spent;
    }
    long long start = now(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < count; i++) pair(16 + i % 240);
    return now(CLOCK_THREAD_CPUTIME_ID) - start;
}

static long long flood_end;

static void *flood_thread(void *done) {
    long count = 0;
    while (now(CLOCK_MONOTONIC) < flood_end)
        for (int i = 0; i < 1000; i++, count++) pair(16 + i % 240);
    *(long *)done = count;
    return NULL;
}

static long flood(long threads, long milliseconds) {
    pthread_t thread[MOST_THREADS];
    long done[MOST_THREADS], total = 0;
    if (threads > MOST_THREADS) abort();
    flood_end = now(CLOCK_MONOTONIC) + milliseconds * 1000000LL;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, flood_thread, &done[i])) abort();
    for (long i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        total += done[i];
    }
    return total;
}

static long hold(long count, long size) {
    for (long i = 0; i < count; i++)
        if (!malloc((size_t)size)) abort();
    return count;
}

int main(void) {
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        long first, second;
        if (sscanf(line, "pair %ld %ld", &first, &second) == 2) printf("%lld\n", pairs(first, second));
        else if (sscanf(line, "flood %ld %ld", &first, &second) == 2) printf("%ld\n", flood(first, second));
        else if (sscanf(line, "hold %ld %ld", &first, &second) == 2) printf("%ld\n", hold(first, second));
        else return 2;
        fflush(stdout);
    }
    return 0;
}
