"""Chaos for the replicated log: real servers in namespaces, faults, load, and a judge.

``wgmap-chaos log --servers 5 --minutes 5 --seed 7`` runs it once. Every server is a process of its
own (``server``) with its disk and its place on a bridge (``network``, ``cluster``). Clients write
and read all the time and record when (``workload``) while faults come and go (``faults``); at the
end a pure function (``judge``) says whether a promise was broken.
"""
