"""Thousands of hosts in one process: real handshakes and messages, no devices of their own."""
