"""What the kernel says of processes: their time, their memory, their threads."""

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system seconds of all threads of a process and of its children (nginx's work is in a child)."""
    user = system = 0
    for process in [pid, *children(pid)]:
        fields = stat_fields(process)
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND


def precise_cpu_seconds(pid):
    """Seconds of all threads that a process has now, to the nanosecond: for short runs."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def pipeline_seconds(pid):
    """Seconds of all threads of a process that are neither its first one nor a worker."""
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if task.name != str(pid) and not name.startswith("worker"):
            fields = stat_fields(f"{pid}/task/{task.name}")
            seconds += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return seconds


def children(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(stat_fields(folder.name)[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            # It ended while the list was read.
            continue
    return found


def stat_fields(pid):
    """The fields of /proc/PID/stat from the state on; the name before it may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def machine_busy_seconds():
    """Seconds that all processors together have spent on anything, or waited for a host that gave them to another."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def rss_anon(pid):
    """Bytes of memory that are the process's own; of its files none."""
    return kib_of(f"/proc/{pid}/status", "RssAnon:")


def slab():
    """Bytes that the kernel has taken for its own small things, sockets among them."""
    return kib_of("/proc/meminfo", "Slab:")


def kib_of(file, name):
    [line] = [line for line in Path(file).read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
