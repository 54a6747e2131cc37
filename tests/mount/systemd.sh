#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# As a unit of systemd: told when the mount answers and not before, and when it is about to end. A socket
# in this folder stands for systemd. The example unit starts what is there, with options that exist.
# shellcheck source-path=SCRIPTDIR source=lib.sh disable=SC2015,SC2016,SC2086,SC2317
. "$(dirname "$0")/lib.sh"
start qemu-img qemu-io python3
image disk.qcow2 1m "write -q -P 65 64k 64k"
mkdir mnt

unit=${top_srcdir:-$here/../..}/examples/vdifs@.service
[ -e "$unit" ] || { echo "Bail out! no $unit"; exit 99; }
command=$(sed -n 's/^ExecStart=//p' "$unit")
is "the unit's command" "$command" '/usr/bin/vdifs -f $OPTIONS -- ${IMAGE} ${MOUNTPOINT}'
# What systemd does with a mount namespace or with a list of devices (systemd.exec(5)).
alone='Protect(System|Home|Kernel|Control|Proc|Clock)|ProcSubset|Private|[A-Za-z]*Paths|[A-Za-z]*Directory'
alone="$alone|Bind|Mount|Root|TemporaryFileSystem|DynamicUser|Device|Extension|JoinsNamespaceOf|NetworkNamespacePath"
is "nothing in the unit hides the mount or the device" \
	"$(sed -n '/^[[]Service]/,/^[[]Install]/p' "$unit" | grep -E "^($alone)")" ""
claim "an image may be on a server" grep -q '^RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6$' "$unit"
OPTIONS='--sandbox=auto -o noexec' IMAGE=disk.qcow2 MOUNTPOINT=mnt
command=${command/\/usr\/bin\/vdifs/$vdifs} command=${command/\$OPTIONS/$OPTIONS}
command=${command/\$\{IMAGE\}/$IMAGE} command=${command/\$\{MOUNTPOINT\}/$MOUNTPOINT}
begin $command >said 2>&1 </dev/null
claim "serves when it is run as the unit says" wait_for 20 test -e mnt/disk.raw
kill -TERM "$pid"
end_of "$pid"
is "and ends well, without a word" "$ended_with $(cat said)" "0 "

if grep -q '^#define HAVE_SYSTEMD 1' "$tools/config.h"; then
	python_claims "$vdifs" "$tools/vdifs_liar" <<'END'
import os
import signal
import socket
import subprocess
import sys
from claims import same

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.bind('notify')
    systemd.settimeout(20)
    process = subprocess.Popen([sys.argv[1], '-f', 'disk.qcow2', 'mnt'],
                               env=dict(os.environ, NOTIFY_SOCKET=os.path.abspath('notify')))
    said = systemd.recv(4096)
    same('READY=1 comes, and the mount is there', (said, os.path.exists('mnt/disk.raw')), (b'READY=1', True))
    process.send_signal(signal.SIGTERM)
    same('STOPPING=1 comes before the end', systemd.recv(4096), b'STOPPING=1')
    same('and then the end', process.wait(20), 0)
    systemd.setblocking(False)
    process = subprocess.run([sys.argv[1], '-f', 'none.qcow2', 'mnt'], stderr=subprocess.DEVNULL, timeout=20,
                             env=dict(os.environ, NOTIFY_SOCKET=os.path.abspath('notify')))
    try:
        said = systemd.recv(4096)
    except BlockingIOError:
        said = b''
    same('an image that cannot be opened is never ready', (process.returncode, said), (1, b''))
    systemd.settimeout(0.5)
    process = subprocess.Popen([sys.argv[2], '-f', 'disk.qcow2', 'mnt'],
                               env=dict(os.environ, NOTIFY_SOCKET=os.path.abspath('notify'), VD_LIE='answer'))
    try:
        said = systemd.recv(4096)
    except TimeoutError:
        said = b''
    same('nor is a mount whose server only says so', said, b'')
    systemd.settimeout(20)
    process.send_signal(signal.SIGTERM)
    same('which ends nevertheless', (systemd.recv(4096), process.wait(20)), (b'STOPPING=1', 0))
END
else
	skip "systemd is told" "built without libsystemd"
fi
finish
