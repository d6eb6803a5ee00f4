/* Many addresses of this machine behind one socket: the source of a datagram is chosen as it is
 * sent, and of each that comes it is told to whom, and when the kernel took it in. */
#pragma once
#include "../lookups/udp.h"
#include <poll.h>
#include <time.h>

enum { BATCH = 64, ROOM = 2048, ROOMY = 32 << 20 };

static int fd;

/* What the including program does with a datagram: to whom it came, and when (nanoseconds). */
static void take_in(uint32_t address, const uint8_t *data, int length, uint64_t at);

static uint64_t now(void) { /* the kernel's stamps are of this clock */
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static struct sockaddr_in place(const char *address, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1) die(address);
    return at;
}

static void open_sources(void) {
    int on = 1, room = ROOMY;
    fd = bound("0.0.0.0", 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)) die("IP_PKTINFO");
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)) die("SO_TIMESTAMPNS");
}

static uint8_t out[BATCH][ROOM], extra[BATCH][256];
static struct iovec parts[BATCH];
static struct mmsghdr batch[BATCH];
static int filled;

static void flush(void) {
    for (int done = 0; done < filled;) {
        int count = sendmmsg(fd, batch + done, filled - done, 0);
        if (count < 0) die("sendmmsg");
        done += count;
    }
    filled = 0;
}

/* Put a datagram of an address into the batch; returns where its bytes go. */
static uint8_t *add(struct sockaddr_in *to, uint32_t address, int length) {
    if (filled == BATCH) flush();
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(address)};
    struct msghdr *head = &batch[filled].msg_hdr;
    parts[filled] = (struct iovec){out[filled], length};
    *head = (struct msghdr){to, sizeof *to, parts + filled, 1, extra[filled],
                            CMSG_SPACE(sizeof info), 0};
    struct cmsghdr *control = CMSG_FIRSTHDR(head);
    *control = (struct cmsghdr){CMSG_LEN(sizeof info), IPPROTO_IP, IP_PKTINFO};
    memcpy(CMSG_DATA(control), &info, sizeof info);
    return out[filled++];
}

static void stamped(struct msghdr *head, const uint8_t *data, int length) {
    uint64_t at = 0;
    uint32_t address = 0;
    struct timespec stamp;
    struct in_pktinfo info;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(head); one; one = CMSG_NXTHDR(head, one)) {
        if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMPNS) {
            memcpy(&stamp, CMSG_DATA(one), sizeof stamp);
            at = stamp.tv_sec * 1000000000ull + stamp.tv_nsec;
        } else if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
            memcpy(&info, CMSG_DATA(one), sizeof info);
            address = ntohl(info.ipi_addr.s_addr);
        }
    }
    if (length >= NONCE_END && at) take_in(address, data, length, at);
}

/* Wait until something comes, for so long at most, and take in what has come. */
static void hear(uint64_t wait_ns) {
    static uint8_t in[BATCH][ROOM], control[BATCH][256];
    static struct iovec rooms[BATCH];
    static struct mmsghdr got[BATCH];
    struct pollfd readable = {fd, POLLIN, 0};
    struct timespec most = {wait_ns / 1000000000, wait_ns % 1000000000};
    int count = ppoll(&readable, 1, &most, NULL) > 0 ? BATCH : 0;
    while (count == BATCH) {
        for (int i = 0; i < BATCH; i++) {
            rooms[i] = (struct iovec){in[i], ROOM};
            got[i].msg_hdr = (struct msghdr){NULL, 0, rooms + i, 1, control[i], sizeof control[i], 0};
        }
        count = recvmmsg(fd, got, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) stamped(&got[i].msg_hdr, in[i], got[i].msg_len);
    }
}
