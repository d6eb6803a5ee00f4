/* The trivial server: sends every datagram back. What no server can be faster than.
 * echo ADDRESS PORT */
#include "udp.h"

int main(int argc, char **argv) {
    if (argc != 3) die("usage: echo ADDRESS PORT");
    int fd = bound(argv[1], atoi(argv[2]));
    uint8_t data[2048];
    for (;;) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &size);
        if (got > 0) sendto(fd, data, got, 0, (struct sockaddr *)&from, size);
    }
}
