#!/bin/sh
# Boots a systemd of its own in new namespaces, as process 1, and has it run a program; it ends with that program.
# $1: the folder of the units; $2: a file that is made when everything could be mounted.
set -e
mount -t tmpfs tmpfs /var
mkdir /var/log /var/lib /var/tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc  # it may write there as it likes
cp "$1"/* /run/systemd/system
if [ -d /sys/fs/cgroup/unified ]; then  # both versions of control groups
    umount -R /sys/fs/cgroup
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
: > "$2"
container=covey exec /lib/systemd/systemd --system --unit=tester.service --log-target=console --show-status=0
