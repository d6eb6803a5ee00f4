"""What a fleet of any size needs, computed from what was measured of small ones."""
