/* Many agents of one server: each of them an address of 127.0.0.0/8, from 127.1.0.0 on, all behind
 * one socket (the source of a datagram is chosen as it is sent). Prints one JSON object.
 *
 * fleet ADDRESS PORT REGISTERS SIZE first WINDOW
 *     every agent registers once, WINDOW at a time; what is not answered in LATE_NS is repeated
 * fleet ADDRESS PORT REGISTERS SIZE keep SECONDS REGISTERS_A_SECOND LOOKUPS_A_SECOND TEMPLATE EID_AT
 *     the agents repeat their registers in turns, and ask beside it, whatever comes back
 * fleet ADDRESS PORT REGISTERS SIZE move SECONDS REGISTERS_A_SECOND NONCE PORT_AT
 *     the agents move in turns: each register has this nonce, and another port at byte PORT_AT
 *
 * REGISTERS is a file with the agents' Map-Registers, of SIZE bytes each and with nonce 1. TEMPLATE
 * is a Map-Request in hex; its nonce and, at byte EID_AT, the last three bytes of 10.a.b.c differ.
 * The times of answers are those at which the kernel took them in (SO_TIMESTAMPNS): how busy this
 * program is does not count. How late it sent does, and is told. */
#include "sources.h"
#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { RING = 1 << 20, SAMPLES = 1 << 23 };
enum { REGISTER, LOOKUP, KINDS, MAP_REPLY = 2, MAP_NOTIFY = 4 };
static const uint64_t LATE_NS = 2000000000, TICK_NS = 1000000, LOOKUP_BIT = 1ull << 40;
static const uint32_t FIRST = 0x7F010000, STRIDE = 7919, MOVED_TO = 20000, PORTS = 10000;
static const char *NAMES[] = {"register", "lookup"};

static struct {
    uint64_t *sent_at, places, sent, answered, late; /* sent_at: 0 where nothing is awaited */
    uint32_t *samples;                               /* microseconds */
} kinds[KINDS];
static struct sockaddr_in server;
static int size, template_size, eid_at, port_at;
static uint64_t nonce_now; /* of all registers; 0: as the file has them */
static uint32_t agents;
static const uint8_t *registers;
static uint8_t template[ROOM];
static uint64_t late_ns; /* the most by which a datagram was sent late */

static void wait_for(int kind, uint64_t place) {
    uint64_t *at = kinds[kind].sent_at + place % kinds[kind].places;
    *at = now(), kinds[kind].sent++;
}

static void send_register(uint64_t number) {
    uint32_t agent = number % agents;
    uint8_t *data = add(&server, FIRST + agent, size);
    memcpy(data, registers + (size_t)agent * size, size);
    if (nonce_now) {
        uint64_t nonce = htobe64(nonce_now);
        uint16_t port = htons(MOVED_TO + nonce_now % PORTS);
        memcpy(data + NONCE_AT, &nonce, 8), memcpy(data + port_at, &port, 2);
    }
    wait_for(REGISTER, agent);
}

static void send_lookup(uint64_t number) {
    uint32_t host = number * STRIDE % agents;
    uint64_t nonce = LOOKUP_BIT | number;
    uint8_t *data = add(&server, FIRST + number % agents, template_size), *eid = data + eid_at;
    memcpy(data, template, template_size);
    memcpy(data + NONCE_AT, &nonce, 8);
    eid[0] = 10, eid[1] = host >> 16, eid[2] = host >> 8, eid[3] = host;
    wait_for(LOOKUP, number);
}

static void take(int kind, uint64_t place, uint64_t at) {
    uint64_t *sent_at = kinds[kind].sent_at + place % kinds[kind].places;
    if (!*sent_at) return;
    uint64_t took = at > *sent_at ? at - *sent_at : 0, count = kinds[kind].answered;
    if (took > LATE_NS)
        kinds[kind].late++;
    else if (count < SAMPLES)
        kinds[kind].samples[kinds[kind].answered++] = took / 1000;
    *sent_at = 0;
}

static void take_in(uint32_t address, const uint8_t *data, int length, uint64_t at) {
    (void)length;
    uint64_t nonce;
    uint32_t agent = address - FIRST;
    if (agent >= agents) return;
    memcpy(&nonce, data + NONCE_AT, 8);
    if (data[0] >> 4 == MAP_NOTIFY) take(REGISTER, agent, at);
    if (data[0] >> 4 == MAP_REPLY && nonce & LOOKUP_BIT) take(LOOKUP, nonce & ~LOOKUP_BIT, at);
}

static int awaited(int kind) {
    int count = 0;
    for (uint64_t i = 0; i < kinds[kind].places; i++) count += !!kinds[kind].sent_at[i];
    return count;
}

static void first(uint64_t window) {
    uint64_t next = 0, look = now();
    while (kinds[REGISTER].answered + kinds[REGISTER].late < agents) {
        uint64_t done = kinds[REGISTER].answered + kinds[REGISTER].late, at = now();
        while (next < agents && next - done < window) send_register(next++);
        for (uint64_t i = 0; at - look > LATE_NS && i < next; i++) {
            uint64_t sent_at = kinds[REGISTER].sent_at[i];
            if (sent_at && at > sent_at + LATE_NS) send_register(i); /* shed: agents repeat it, too */
        }
        if (at - look > LATE_NS) look = at;
        flush();
        hear(50 * TICK_NS);
    }
}

static void keep(double seconds, const double rates[KINDS]) {
    void (*send[KINDS])(uint64_t) = {send_register, send_lookup};
    uint64_t began = now(), end = began + seconds * 1e9;
    for (uint64_t at = began; at < end; at = now()) {
        for (int kind = 0; kind < KINDS; kind++) {
            uint64_t due = (at - began) / 1e9 * rates[kind], sent = kinds[kind].sent;
            if (due <= sent) continue;
            uint64_t late = at - began - sent / rates[kind] * 1e9;
            if (late > late_ns) late_ns = late;
            for (; sent < due; sent++) send[kind](sent);
        }
        flush();
        uint64_t turn = now() - at;
        hear(turn < TICK_NS ? TICK_NS - turn : 0);
    }
    for (uint64_t at = now(); at < end + LATE_NS; at = now()) {
        if (!awaited(REGISTER) && !awaited(LOOKUP)) break;
        hear(10 * TICK_NS);
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void tell(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"seconds\": %.3f, \"sent_late_ms\": %.1f, \"cpu_s\": %.2f", seconds, late_ns / 1e6,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec +
               (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t count = kinds[kind].answered;
        uint32_t *of = kinds[kind].samples;
        qsort(of, count, sizeof *of, ascending);
        printf(", \"%s\": {\"sent\": %lu, \"answered\": %lu, \"late\": %lu, \"p50_ms\": %.3f, "
               "\"p99_ms\": %.3f, \"max_ms\": %.3f}",
               NAMES[kind], kinds[kind].sent, count, kinds[kind].late,
               count ? of[(count - 1) / 2] / 1e3 : 0, count ? of[(count - 1) * 99 / 100] / 1e3 : 0,
               count ? of[count - 1] / 1e3 : 0);
    }
    printf("}\n");
}

static void open_all(const char *address, int port, const char *file) {
    int opened = open(file, O_RDONLY);
    struct stat about;
    server = place(address, port);
    if (opened < 0 || fstat(opened, &about)) die(file);
    registers = mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, opened, 0);
    if (registers == MAP_FAILED) die(file);
    agents = about.st_size / size;
    open_sources();
    for (int kind = 0; kind < KINDS; kind++) {
        kinds[kind].places = kind == REGISTER ? agents : RING;
        kinds[kind].sent_at = calloc(kinds[kind].places, sizeof *kinds[kind].sent_at);
        kinds[kind].samples = malloc(SAMPLES * sizeof *kinds[kind].samples);
        if (!kinds[kind].sent_at || !kinds[kind].samples) die("malloc");
    }
}

static void unhex(const char *hex) {
    for (; sscanf(hex, "%2hhx", template + template_size) == 1; hex += 2) template_size++;
}

int main(int argc, char **argv) {
    if (argc < 7) die("usage: see the head of fleet.c");
    size = atoi(argv[4]);
    if (size < NONCE_END || size > ROOM) die("size");
    open_all(argv[1], atoi(argv[2]), argv[3]);
    uint64_t began = now();
    if (!strcmp(argv[5], "first")) {
        first(atoi(argv[6]));
    } else if (!strcmp(argv[5], "move")) {
        if (argc != 10) die("usage: see the head of fleet.c");
        nonce_now = atoll(argv[8]), port_at = atoi(argv[9]);
        keep(atof(argv[6]), (double[KINDS]){atof(argv[7]), 0});
    } else {
        if (argc != 11) die("usage: see the head of fleet.c");
        unhex(argv[9]), eid_at = atoi(argv[10]);
        keep(atof(argv[6]), (double[KINDS]){atof(argv[7]), atof(argv[8])});
    }
    tell((now() - began) / 1e9);
    return 0;
}
