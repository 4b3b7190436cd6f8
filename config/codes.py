"""Codes of findings in files, and what `covey explain` says about each: what it means, then what to do.

Findings are reported together and never raised alone; codes of errors stand in `covey.errors`. Knows no file.
"""

from __future__ import annotations

# These exist once for each kind of file: `config.unknown_key` in a node's YAML, `description.unknown_key` in a
# resource description.
_ANY_FILE: dict[str, str] = {
    "no_file": "There is no file of that name. Check the path; relative ones count from where the command runs.",
    "unreadable": "The file exists and cannot be read: a folder, or no permission. The message gives the reason.",
    "too_large": "The file is too long, too deeply nested, or grows too much through aliases. Write it simpler.",
    "not_text": "Bytes that are no UTF-8, or a character that YAML forbids, stand there. Save the file as UTF-8 text.",
    "empty": "The file holds nothing but comments. Write the sections it needs.",
    "documents": "A line `---` begins a second document. A file holds one: remove the line, or split the file.",
    "syntax": "The text is not YAML from this place on, so nothing behind it was read. Mend it and check again.",
    "tab": "A tab stands where YAML allows only spaces. Indent with spaces.",
    "tag": "An explicit tag (`!name`, `!!int`) stands there. Tags mean nothing here; quote what must be text.",
    "bad_key": "A key is not text (a number, true, null, a list). Quote it if it is meant.",
    "duplicate_key": "A key stands twice in one section; the message names both lines. Keep one of them.",
    "merge_key": "`<<` merges sections in YAML 1.1 only. Write the keys out; anchors and aliases of values work.",
    "bad_variable": "A `${env:…}` is malformed, or its value no UTF-8. Write `${env:NAME}` or `${env:NAME:-default}`.",
    "unset_variable": "An environment variable is not set. Set it, or give a default: `${env:NAME:-default}`.",
    "unknown_key": "No such key exists in this section. The hint lists the keys there are and the nearest one.",
    "missing": "A key that must be written is not there. The hint shows it.",
    "wrong_type": "The value is of another kind than the key needs, for example text for a number. Only `true` and "
    "`false` are truth values (`no`, `on` are text), and a quoted number is text.",
    "bad_value": "The value is not one of those allowed, or not of the form needed. The hint shows the right ones.",
    "out_of_range": "The number, duration or size is too small or too large. The message gives the limit.",
    "bad_length": "The text or list is too short or too long. The message gives the limit.",
    "needs_unit": "A duration or size stands there as a bare number. Write its unit: `3s`, `10MiB`.",
    "bad_duration": "Not a duration. Write a number and a unit without a space: `250ms`, `3s`, `5m`, `2h`, `1d`.",
    "bad_size": "Not a size. Write a number and a unit without a space: `512B`, `64KiB`, `10MiB`, `1GB`.",
}

FINDINGS: dict[str, str] = {
    **{f"{kind}.{code}": text for kind in ("config", "description", "balance") for code, text in _ANY_FILE.items()},
    "config.bad_name": "A node's name has letters, digits, `-`, `_` and `.`, at most 63, and is never all digits.",
    "config.bad_address": "An adapter is written ADDRESS/PREFIX: the node's own address and the prefix length of its "
    "subnetwork, for example `10.1.2.3/24` or `fd00::3/64`.",
    "config.duplicate_address": "The same address is listed twice. Each adapter has its own.",
    "config.not_loopback": "Without encryption (`security: {mode: open}`) only loopback addresses are allowed: "
    "127.0.0.0/8 and ::1. Anybody who can reach another address could control the node.",
    "config.unknown_user": "No local user or group has that name, so nobody gets the role by it. The rest still holds; "
    "correct the name, or make the user.",
    "config.path_too_long": "The state folder's path is so long that its bus socket DIR/run/bus.sock does not fit into "
    "the 107 bytes that the system allows for one. Choose a shorter path.",
    "config.unknown_source": "No such source of node ids is installed. The hint lists those there are.",
    "config.unknown_controller": "No such controller is installed on this node. The hint lists those there are; "
    "`covey plugin ls` shows packages that failed.",
    "config.no_options": "This controller has no options. Leave `options` out.",
    "description.unknown_type": "An attribute or argument has a type that does not exist. The hint lists the types; "
    "a list of one of them is written `[string]`.",
    "description.bad_name": "Names of classes, attributes, actions and arguments have letters, digits and `_`, a "
    "letter first, at most 64, and are no words of Python.",
    "description.undeclared_attribute": "The key, an effect or a replacement names an unknown attribute.",
    "description.bad_key_attribute": "What tells resources apart must be one persistent value, no list and no "
    "fraction, that nobody may set and everybody may see, and stands once in `key`.",
    "description.unit_without_number": "Only numbers have a unit. A duration is always in seconds.",
    "description.bad_default": "The default is not a value of the declared type. Durations carry their unit.",
    "description.bad_depends": "A class cannot wait for itself to be known.",
    "plugin.bad_value": "A controller reported a value of another type than it declares. It was not kept.",
    "plugin.bad_key": "A controller found something whose key is not the one its class declares. It was not kept.",
    "plugin.unknown_class": "A controller found something of a class it does not declare. It was not kept.",
    "plugin.duplicate_resource": "A controller found two things with one key. The first one counts.",
    "balance.too_many": "Together the clusters of a pool want more nodes than it has. Want fewer, or add nodes to it.",
    "balance.duplicate_node": "A node stands twice in the pools. It can be counted for one of them only, and once.",
    "balance.unknown_cluster": "A schedule names a cluster that the pool does not. Write it under the pool's "
    "`clusters`, too, with how many it wants otherwise.",
    "doctor.no_daemon": "No daemon runs on the state folder, so nothing can be asked. Start it: `covey node start` or "
    "its service.",
    "doctor.hung": "A daemon holds the state folder and does not answer: it is stopped, overloaded or hung. Look at "
    "its process and its log.",
    "doctor.no_folder": "There is no such state folder. Name the right one with --state; `covey node start` makes it.",
    "doctor.damaged_file": "A local file was cut, edited or cannot be read. It is not used and not changed; put it "
    "back from a copy, or define the node again.",
    "doctor.disk": "Little room is left where the state folder lies. A registry server that cannot write stops; make "
    "room.",
    "doctor.silent": "A node that is defined does not answer its DCM's questions. Its daemon or machine is down, or "
    "the network between the two nodes is.",
    "doctor.failed": "A node gave up joining. The reason is in the message; its boot log says how far it came.",
    "doctor.identity": "A node's identity is not as it was defined: a clone, a changed key, an id that cannot be read. "
    "`covey node verdict` there names the fix.",
    "doctor.no_cluster": "A node runs and is in no cluster. Define one there, or define the node to one.",
    "doctor.offline": "A node's daemon runs and the node is offline. `covey node online` lets it join.",
    "doctor.pending": "A node is on its way into the cluster or out of it. If it stays so, its boot log says what it "
    "waits for.",
    "doctor.no_quorum": "Too few registry servers can be reached from here to decide anything. Bring them back.",
    "doctor.read_only": "The registry answers and takes no writes. The message says why; it opens by itself when that "
    "is over.",
    "doctor.server": "A registry server is offline or its copy damaged. The others go on; one more loss may stop them.",
    "doctor.no_spare": "The loss of any one registry server stops all writes. Three servers tolerate one loss.",
    "doctor.unreachable": "One node tried another's addresses and could not reach it at some of them, or at none. "
    "Firewalls must let the nodes' port (TCP and UDP) and the join port, the next one (TCP), through.",
    "doctor.network": "A node reaches nobody on one of its networks, and does on others: its adapter, cable or switch "
    "there. What prefers that network goes by the next one meanwhile.",
    "doctor.mtu": "Adapters of one subnetwork differ in the largest packet they send, so large ones may be lost on the "
    "way. Set one MTU on all of them and on the switches.",
    "doctor.protocol": "Two nodes speak different versions of the protocol between nodes and cannot work together. "
    "Install the same covey on both.",
    "doctor.version": "Two nodes run different versions of covey. That is meant for the time of an update only.",
    "doctor.clock": "Two machines' clocks differ. Nothing is decided by them, but logs and the expiry of join tokens "
    "are in each machine's own time. Let both follow one time server.",
    "doctor.loopback": "One side has only loopback addresses, which no other machine can reach. Give the node a real "
    "address in its YAML.",
    "doctor.prefix": "Two nodes lie in each other's subnetwork with different prefix lengths. One is mistyped.",
    "doctor.apart": "A node shares no subnetwork with any other. That works where addresses are routed.",
    "doctor.redefined": "A machine was defined again, and its older definition in this cluster went with it.",
    "doctor.address": "A node does not listen where its definition says, so others look for it in vain. Correct its "
    "YAML, or the definition with `covey node modify`.",
    "doctor.crash": "A component or controller ended unasked in this stay of the node. It is started again by itself; "
    "the log and `core/` say why.",
    "doctor.plugin": "A plugin is not used on a node. `covey plugin why NAME` there has the whole story.",
}
