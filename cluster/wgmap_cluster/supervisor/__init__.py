"""The supervisor: owns interfaces and the UDP socket, keeps replica and responder running."""
