/* A map server as one would write it in C in an afternoon: Map-Request in, Map-Reply out (RFC 9301,
 * sections 5.2 and 5.4), records encoded beforehand and found by an exact match of an IPv4 host. No
 * limits, no peers, no subscriptions, no pushes, nothing replicated.
 *
 * plain ADDRESS PORT FILE; the file: for each mapping 4 bytes address, 2 bytes length of its record,
 * the record; numbers in network order. */
#include "udp.h"

struct entry {
    uint32_t eid, at; /* where its record stands, 0: free */
};

static uint8_t *text;
static struct entry *table;
static uint32_t mask;

static uint32_t slot(uint32_t eid) { return (eid * 2654435761u) >> 7; }

static uint16_t read16(const uint8_t *at) { return at[0] << 8 | at[1]; }

static uint32_t read32(const uint8_t *at) { return (uint32_t)read16(at) << 16 | read16(at + 2); }

static void put(uint32_t eid, uint32_t at) {
    uint32_t i = slot(eid) & mask;
    while (table[i].at) i = (i + 1) & mask;
    table[i] = (struct entry){eid, at};
}

static uint32_t find(uint32_t eid) {
    uint32_t i = slot(eid) & mask;
    while (table[i].at && table[i].eid != eid) i = (i + 1) & mask;
    return table[i].at;
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die(path);
    long size = ftell(file), count = 0;
    rewind(file);
    text = malloc(size + 1);
    if (!text || fread(text + 1, 1, size, file) != (size_t)size) die(path);
    fclose(file);
    for (long at = 1; at <= size; at += 6 + read16(text + at + 4)) count++;
    for (mask = 1; mask < 2 * count; mask *= 2) continue;
    table = calloc(mask--, sizeof *table);
    if (!table) die("calloc");
    for (long at = 1; at <= size; at += 6 + read16(text + at + 4)) put(read32(text + at), at + 4);
}

/* The length of an address of this family, with its AFI; 0: none that we know. */
static int node(const uint8_t *data, const uint8_t *end) {
    if (data + 2 > end) return 0;
    switch (read16(data)) {
    case 0: return 2;
    case 1: return 6;
    case 2: return 18;
    }
    return 0;
}

/* Turn a request into its reply; returns its length, 0 for what is not answered. */
static int answer(const uint8_t *data, int size, uint8_t *out) {
    const uint8_t *at = data + NONCE_END, *end = data + size;
    if (size < NONCE_END || data[0] >> 4 != 1 || data[3] != 1) return 0;
    for (int nodes = (data[2] & 31) + 2; nodes; nodes--) {
        int length = node(at, end);
        if (!length) return 0;
        at += length;
    }
    if (at + 8 > end || at[1] != 32 || read16(at + 2) != 1) return 0;
    uint32_t found = find(read32(at + 4));
    if (!found) return 0;
    int length = read16(text + found);
    memcpy(out, (uint8_t[]){0x20, 0, 0, 1}, 4);
    memcpy(out + NONCE_AT, data + NONCE_AT, 8);
    memcpy(out + NONCE_END, text + found + 2, length);
    return NONCE_END + length;
}

int main(int argc, char **argv) {
    if (argc != 4) die("usage: plain ADDRESS PORT FILE");
    load(argv[3]);
    int fd = bound(argv[1], atoi(argv[2]));
    uint8_t data[2048], out[2048];
    for (;;) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &size);
        int length = got > 0 ? answer(data, got, out) : 0;
        if (length) sendto(fd, out, length, 0, (struct sockaddr *)&from, size);
    }
}
