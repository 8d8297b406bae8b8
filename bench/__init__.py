"""The benchmark: Atlas beside nginx in the same run, `python -m bench` or `make bench`.

Layout: load generator, canned upstream and any Redis share the first core, the gateway's process tree has the second
core for itself. All sockets are loopback. `measures.py` says what is measured, `report.py` what it has to reach.
"""
