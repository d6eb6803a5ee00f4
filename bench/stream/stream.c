/* Asks two places the same, a datagram each PERIOD_US, whatever comes back: a map server and,
 * at ECHO_ADDRESS, a server that sends everything back, at the same moment. Writes what
 * became of each as three numbers of eight bytes, in nanoseconds: when it was due, when it was
 * sent, when the kernel had the answer (0: none came); those of the server, then those of the echo.
 *
 * stream ADDRESS PORT ECHO_ADDRESS ECHO_PORT FIRST_SOURCE SOURCES SECONDS PERIOD_US HOSTS TEMPLATE
 *     EID_AT
 *
 * TEMPLATE is a Map-Request in hex; its nonce and, at byte EID_AT, the last three bytes of 10.a.b.c
 * differ. A host is always asked for from the same address. What the server tells of changes is
 * acknowledged. Whose port is 0 is not asked. */
#include "../fleet/sources.h"

enum { SERVER, ECHO, PLACES, MAP_REPLY = 2, MAP_NOTIFY = 4, MAP_NOTIFY_ACK = 5 };
static const uint64_t LAST_NS = 1000000000; /* that is waited for an answer */
static const uint32_t STRIDE = 7919;

struct asked {
    uint64_t due, sent, answered;
};

static struct asked *kept[PLACES];
static struct sockaddr_in places[PLACES];
static int used[PLACES], template_size, eid_at;
static uint64_t count, awaited;
static uint32_t first, sources, hosts;
static uint8_t template[ROOM];

static void take_in(uint32_t address, const uint8_t *data, int length, uint64_t at) {
    uint64_t nonce;
    if (data[0] >> 4 == MAP_NOTIFY) {
        uint8_t *ack = add(places + SERVER, address, length);
        memcpy(ack, data, length);
        ack[0] = MAP_NOTIFY_ACK << 4 | (data[0] & 0xF);
        return;
    }
    memcpy(&nonce, data + NONCE_AT, 8);
    uint64_t number = nonce / PLACES;
    int place = nonce % PLACES;
    if (number >= count || (place == SERVER && data[0] >> 4 != MAP_REPLY)) return;
    struct asked *one = kept[place] + number;
    if (one->sent && !one->answered) one->answered = at, awaited--;
}

static void ask(uint64_t number, uint64_t due) {
    uint32_t host = number * STRIDE % hosts;
    for (int place = 0; place < PLACES; place++) {
        if (!used[place]) continue;
        uint64_t nonce = number * PLACES + place;
        uint8_t *data = add(places + place, first + host % sources, template_size);
        uint8_t *eid = data + eid_at;
        memcpy(data, template, template_size);
        memcpy(data + NONCE_AT, &nonce, 8);
        eid[0] = 10, eid[1] = host >> 16, eid[2] = host >> 8, eid[3] = host;
        kept[place][number] = (struct asked){due, now(), 0};
        awaited++;
        flush();
    }
}

static void stream(uint64_t period) {
    uint64_t began = now(), number = 0;
    while (number < count) {
        uint64_t due = began + number * period, at = now();
        if (at < due) {
            hear(due - at);
            flush(); /* acknowledgements */
        } else {
            ask(number++, due);
        }
    }
    for (uint64_t at = now(), end = at + LAST_NS; awaited && at < end; at = now()) {
        hear(end - at);
        flush();
    }
}

int main(int argc, char **argv) {
    if (argc != 12) die("usage: see the head of stream.c");
    struct in_addr address;
    if (inet_pton(AF_INET, argv[5], &address) != 1) die(argv[5]);
    first = ntohl(address.s_addr), sources = atoi(argv[6]), hosts = atoi(argv[9]);
    uint64_t period = atoll(argv[8]) * 1000;
    count = atof(argv[7]) * 1e9 / period, eid_at = atoi(argv[11]);
    for (const char *hex = argv[10]; sscanf(hex, "%2hhx", template + template_size) == 1; hex += 2)
        template_size++;
    for (int one = 0; one < PLACES; one++) {
        int port = atoi(argv[2 + 2 * one]);
        used[one] = port != 0, places[one] = place(argv[1 + 2 * one], port);
        kept[one] = calloc(count, sizeof **kept);
        if (!kept[one]) die("calloc");
    }
    open_sources();
    stream(period);
    for (int one = 0; one < PLACES; one++) fwrite(kept[one], sizeof **kept, count, stdout);
    return fflush(stdout) ? 2 : 0;
}
