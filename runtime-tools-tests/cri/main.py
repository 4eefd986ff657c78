#!/usr/bin/env python3
# What Kubernetes' kubelet asks of containerd's CRI plugin, with the runtime under test below it.
#
#   main.py RUNTIME CGROUP_PARENT cgroupfs|systemd N [WORD..]
#
# Part of engines.sh, which calls it inside the lab: needs busybox's root as an image archive at /tmp/images/archive.tar, and
# root. Starts a containerd of its own and stops it. Prints a line a check as engines.sh does; N pods are made, used and
# removed by the check of leaks. WORDs choose checks whose title contains one. Exits 1 if a check failed.
import glob
import os
import signal
import sys
import time

import pods
from pods import *  # the words of a check
import life  # noqa: F401 its import registers the checks, in this order
import config  # noqa: F401

WORDS = sys.argv[5:]

# ---- leaks ----------------------------------------------------------------------------------------------------------


def count():
    me = os.getpid()
    return {
        "processes": len([p for p in glob.glob("/proc/[0-9]*") if p != f"/proc/{me}"]),
        "mounts": len(read("/proc/self/mountinfo").splitlines()),
        "cgroups": sum(PARENT in path for path, _, _ in os.walk("/sys/fs/cgroup")),
        "sockets": len(read("/proc/net/unix").splitlines()),
        "files": sum(len(files) + len(dirs) for top in ("/run", "/dev/shm") for _, dirs, files in os.walk(top)),
        "descriptors": len(os.listdir(f"/proc/{pods.daemon.pid}/fd")),
    }


@check(f"leaks: {PODS} pods with a container, exec'd into and stopped")
def _():
    def one():
        with Pod() as pod:
            container = pod.start()
            execute(container, "true")
            cri.StopContainer(container_id=container, timeout=0)
            cri.RemoveContainer(container_id=container)

    for _ in range(3):
        one()
    time.sleep(2)
    before = count()
    for _ in range(int(PODS)):
        one()
    time.sleep(2)
    after = count()
    grown = {kind: (before[kind], after[kind]) for kind in before if after[kind] > before[kind] + 8}
    expect(grown, {})


@check("no pod and no container stays")
def _():
    expect((cri.ListContainers()["containers"], cri.ListPodSandbox()["items"]), ([], []))


@check("no errors of the runtime in containerd's log")
def _():
    # Refusals that checks above asked for are the engine's answers; what is looked for are failures to clean up.
    words = ("failed to delete", "failed to kill", "failed to clean", "did not terminate", "cgroup")
    lines = [line for line in read(LOG).splitlines() if "level=error" in line or "level=warning" in line]
    # A shim that is slow to end is killed and cleaned up after, with words that name no runtime.
    usual = ("no such file", "dead shim", "shim disconnected")
    expect([line for line in lines if any(w in line for w in words) and not any(u in line for u in usual)], [])


# ---------------------------------------------------------------------------------------------------------------------


def main():
    os.makedirs("/run/cri", exist_ok=True)
    os.makedirs("/tmp/cri-logs", exist_ok=True)
    os.makedirs(HOME, exist_ok=True)
    start_daemon()
    failed = 0
    try:
        load_images()
        for title, needs, function in checks:
            if WORDS and not any(word in title for word in WORDS):
                continue
            reason = next(filter(None, (need() for need in needs)), None)
            if reason:
                print(f"skip   cri: {title}: {reason}", flush=True)
                continue
            try:
                function()
                print(f"ok     cri: {title}", flush=True)
            except Exception as error:  # whatever went wrong, the next check starts anew
                failed += 1
                print(f"not ok cri: {title}: {type(error).__name__}: {error}"[:1500].replace("\n", "\n         "), flush=True)
                # What failed must not fail the others too.
                remove_pods()
    finally:
        stop_daemon()
    sys.exit(1 if failed else 0)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
main()
