/* What the programs in C share. */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 4 << 20, NONCE_AT = 4, NONCE_END = 12 };

static void die(const char *what) {
    perror(what);
    exit(2);
}

/* A UDP socket at an address, with room for a burst. */
static int bound(const char *address, int port) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0 || inet_pton(AF_INET, address, &at.sin_addr) != 1) die(address);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&at, sizeof at)) die(address);
    return fd;
}
