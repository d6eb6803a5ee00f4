"""Map-Requests as fast as they are answered: the responder beside servers in C."""
