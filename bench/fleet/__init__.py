"""A hundred thousand agents in one program in C, and the datagrams that it sends."""
