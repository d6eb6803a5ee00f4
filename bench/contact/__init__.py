"""The parts of the benchmark of first contacts; ``bench/first_contact.py`` puts them together."""
