/* Asks a server as fast as it answers: WINDOW requests are out at a time, from SOURCES addresses,
 * for hosts drawn at random among MAPPINGS. Prints one JSON object.
 *
 * load ADDRESS PORT FIRST_SOURCE SOURCES WINDOW SECONDS MAPPINGS SEED TEMPLATE EID_AT
 *
 * TEMPLATE is a Map-Request in hex; in each one that is sent the nonce and, at byte EID_AT, the last
 * three bytes of an address 10.a.b.c differ. What comes back is known by its nonce. A request that
 * is not answered in LATE_NS is lost; its place is taken by another one. */
#include "udp.h"
#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_SOURCES = 64, MAX_WINDOW = 4096, BATCH = 64, SIZE = 2048, SAMPLES = 1 << 23 };
static const uint64_t LATE_NS = 500000000;

struct place { /* one of those that may be out */
    uint64_t sent, nonce; /* nonce: the place's number and how often it was used; 0: free */
    int source;
};

static struct place places[MAX_WINDOW];
static struct pollfd sources[MAX_SOURCES];
static int source_count, window;
static uint8_t template[SIZE];
static int template_size, eid_at;
static uint32_t mappings, *samples;
static uint64_t state, uses, answered, lost, strangers;

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static uint32_t drawn(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 2685821657736338717ull >> 32) % mappings;
}

/* Send what may be sent by one source. */
static void fill(int source) {
    static uint8_t data[BATCH][SIZE];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    int taken[BATCH], count = 0;
    for (int i = source; i < window && count < BATCH; i += source_count) {
        if (places[i].nonce) continue;
        uint32_t host = drawn();
        uint64_t nonce = places[i].nonce = ++uses << 12 | (uint64_t)i;
        memcpy(data[count], template, template_size);
        memcpy(data[count] + NONCE_AT, &nonce, 8);
        uint8_t *eid = data[count] + eid_at;
        eid[0] = 10, eid[1] = host >> 16, eid[2] = host >> 8, eid[3] = host;
        parts[count] = (struct iovec){data[count], template_size};
        batch[count].msg_hdr = (struct msghdr){.msg_iov = parts + count, .msg_iovlen = 1};
        taken[count++] = i;
    }
    uint64_t at = now();
    int sent = count ? sendmmsg(sources[source].fd, batch, count, 0) : 0;
    for (int i = 0; i < count; i++) {
        if (i < sent)
            places[taken[i]].sent = at;
        else
            places[taken[i]].nonce = 0;
    }
}

static void take(int source) {
    static uint8_t data[BATCH][SIZE];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){data[i], SIZE};
        batch[i].msg_hdr = (struct msghdr){.msg_iov = parts + i, .msg_iovlen = 1};
    }
    int got = recvmmsg(sources[source].fd, batch, BATCH, MSG_DONTWAIT, NULL);
    uint64_t at = now();
    for (int i = 0; i < got; i++) {
        uint64_t nonce;
        memcpy(&nonce, data[i] + NONCE_AT, 8);
        struct place *place = places + nonce % MAX_WINDOW;
        if (batch[i].msg_len < NONCE_END || !nonce || place->nonce != nonce) {
            strangers++;
            continue;
        }
        if (answered < SAMPLES) samples[answered] = at - place->sent;
        answered++;
        place->nonce = 0;
    }
}

static void give_up(uint64_t at) {
    for (int i = 0; i < window; i++) {
        if (places[i].nonce && at > places[i].sent + LATE_NS) places[i].nonce = 0, lost++;
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double part(double share) {
    uint64_t count = answered < SAMPLES ? answered : SAMPLES;
    return count ? samples[(uint64_t)(share * (count - 1))] / 1e3 : 0;
}

static void open_sources(const char *first, int port, const char *server) {
    struct in_addr address;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, first, &address) != 1) die(first);
    if (inet_pton(AF_INET, server, &to.sin_addr) != 1) die(server);
    for (int i = 0; i < source_count; i++) {
        char name[INET_ADDRSTRLEN];
        struct in_addr own = {htonl(ntohl(address.s_addr) + i)};
        inet_ntop(AF_INET, &own, name, sizeof name);
        sources[i] = (struct pollfd){bound(name, 0), POLLIN, 0};
        if (connect(sources[i].fd, (struct sockaddr *)&to, sizeof to)) die(server);
    }
}

static void unhex(const char *hex) {
    for (; sscanf(hex, "%2hhx", template + template_size) == 1; hex += 2) template_size++;
}

int main(int argc, char **argv) {
    if (argc != 11) die("usage: see the head of load.c");
    source_count = atoi(argv[4]), window = atoi(argv[5]);
    mappings = atoi(argv[7]), state = atoi(argv[8]) + 0x9E3779B97F4A7C15ull, eid_at = atoi(argv[10]);
    if (source_count > MAX_SOURCES || window > MAX_WINDOW || !mappings) die("out of bounds");
    unhex(argv[9]);
    samples = malloc(SAMPLES * sizeof *samples);
    if (!samples) die("malloc");
    open_sources(argv[3], atoi(argv[2]), argv[1]);
    uint64_t began = now(), end = began + atof(argv[6]) * 1e9, at = began, look = began;
    for (; at < end; at = now()) {
        for (int i = 0; i < source_count; i++) fill(i);
        if (poll(sources, source_count, 50) > 0)
            for (int i = 0; i < source_count; i++)
                if (sources[i].revents & POLLIN) take(i);
        if (at - look > LATE_NS / 10) give_up(look = at);
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec +
                 (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(samples, answered < SAMPLES ? answered : SAMPLES, sizeof *samples, ascending);
    printf("{\"answered\": %lu, \"lost\": %lu, \"strangers\": %lu, \"seconds\": %.6f, "
           "\"cpu_s\": %.3f, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f}\n",
           answered, lost, strangers, (at - began) / 1e9, cpu, part(.5), part(.9), part(.99), part(1));
    return 0;
}
