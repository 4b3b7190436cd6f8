"""`covey lab`: a whole cluster on one machine, every node with real processes, addresses and files of its own.

It writes the files a person would write and runs the commands a person would run; no part of covey knows of labs.
`folder.py` is what lies on the disk, `processes.py` the daemons, `ports.py` the free port, `launch.py` how a lab comes
up, `table.py` how it looks.
"""
