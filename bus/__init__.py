"""The bus: one ZeroMQ broker a node, and the client that everything else talks through.

It knows nothing of components, plugins or configuration files. A message is a small header the broker routes by and a
body it never opens (`messages`, `codec`); `routing` decides where a message goes and is free of input and output;
`broker` and `links` own the sockets; `client` and `service` are the two ends that users see; `machine`, `driver` and
`simulation` run protocol machines on a real bus or in virtual time.
"""
