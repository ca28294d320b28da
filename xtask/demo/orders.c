// A small server's day: it takes orders, keeps the newest in a cache, and forgets to free each order's receipt.
//
// What leaks: 1 receipt of 512 bytes an order, in print_receipt. What only looks like it: remember, which keeps the
// 256 newest orders. Runs until it is ended; 1,000 orders a second, about.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CACHED = 256, RECEIPT = 512 };

struct order {
    unsigned long number;
    char item[40];
};

static struct order *cache[CACHED];

static __attribute__((noinline)) struct order *take_order(unsigned long number) {
    struct order *order = malloc(sizeof *order);
    if (!order) abort();
    order->number = number;
    snprintf(order->item, sizeof order->item, "item %lu", number % 97);
    return order;
}

static __attribute__((noinline)) void remember(struct order *order) {
    struct order **slot = &cache[order->number % CACHED];
    free(*slot);
    *slot = order;
}

static __attribute__((noinline)) void print_receipt(const struct order *order) {
    char *receipt = malloc(RECEIPT);
    if (!receipt) abort();
    snprintf(receipt, RECEIPT, "order %lu: %s", order->number, order->item);
}

static __attribute__((noinline)) void serve(unsigned long number) {
    struct order *order = take_order(number);
    print_receipt(order);
    remember(order);
}

int main(void) {
    for (unsigned long number = 1;; number++) {
        serve(number);
        if (number == 1) {
            printf("open\n");
            fflush(stdout);
        }
        if (number % 10 == 0) usleep(10000);
    }
}
