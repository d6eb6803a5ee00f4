"""The main job on real WireGuard, shown and measured in one command."""
