"""A system call filter: what a computation on the CPU never needs is refused by the kernel.

Source: Documentation/userspace-api/seccomp_filter.rst of Linux; the filter is classic BPF, put
together here. Calls that libraries try in good faith fail with an error; those that only an attack
makes end the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

from worker.sandbox import kernel
from worker.sandbox.syscalls import AUDIT_ARCH, NEWEST_KNOWN, NUMBERS

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_X32 = 0x40000000

_LOAD, _EQUAL, _GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x00010000
_SHARED_ANONYMOUS = 0x21
_TMPFILE = 0o20000000


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FATAL = _names("""
ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd bpf kexec_load kexec_file_load
init_module finit_module delete_module create_module mount umount2 move_mount open_tree fsopen
fsconfig fsmount fspick mount_setattr pivot_root chroot unshare setns add_key request_key keyctl
open_by_handle_at reboot swapon swapoff iopl ioperm
""")
REFUSED = _names("""
socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg
recvmmsg execve execveat fork vfork process_madvise process_mrelease pidfd_open pidfd_send_signal
perf_event_open userfaultfd chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat setuid
setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset personality tkill
rt_sigqueueinfo rt_tgsigqueueinfo name_to_handle_at sethostname setdomainname acct quotactl
quotactl_fd syslog settimeofday clock_settime clock_adjtime adjtimex modify_ldt lookup_dcookie
vhangup uselib ustat sysfs _sysctl fanotify_init fanotify_mark memfd_secret shmget shmat shmctl
msgget msgsnd msgrcv msgctl semget semop semctl semtimedop mq_open mq_unlink mknod mknodat vmsplice
move_pages migrate_pages setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr sched_setaffinity
""")
ABSENT = _names("""
clone3 openat2 memfd_create io_uring_setup io_uring_enter io_uring_register io_setup
""")
"""Answered as by a kernel without them, so that libraries take the older way that can be judged."""

_Words = list[tuple[int, int, int, int]]


@cache
def has_seccomp() -> bool:
    """Whether this kernel filters system calls and this program knows its numbers."""
    if not kernel.LINUX or kernel.MACHINE not in NUMBERS or struct.calcsize("P") != 8:
        return False
    action = ctypes.create_string_buffer(struct.pack("=I", _KILL_PROCESS))
    try:
        kernel.syscall(_SECCOMP[kernel.MACHINE], _GET_ACTION_AVAIL, 0, action)
    except OSError:
        return False
    return True


def install() -> None:
    """Filter this process from now on. Needs no_new_privs; call while it has one thread only.

    Raises OSError.
    """
    code = b"".join(struct.pack("=HBBI", *word) for word in program(kernel.MACHINE, os.getpid()))
    words = ctypes.create_string_buffer(code)
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(words))
    kernel.syscall(_SECCOMP[kernel.MACHINE], _SET_MODE_FILTER, 0, ctypes.create_string_buffer(head))


def program(machine: str, pid: int) -> _Words:
    """The filter's words (code, jump if true, jump if false, value)."""
    numbers = NUMBERS[machine]
    words: _Words = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    if machine == "x86_64":
        words += [(_GREATER_EQUAL, 0, 1, _X32), (_RETURN, 0, 0, _KILL_PROCESS)]
    words += [(_GREATER_EQUAL, 0, 1, NEWEST_KNOWN + 1), (_RETURN, 0, 0, _errno(errno.ENOSYS))]
    simple = [
        (FATAL, _KILL_PROCESS),
        (REFUSED, _errno(errno.EPERM)),
        (ABSENT, _errno(errno.ENOSYS)),
    ]
    for names, action in simple:
        for name in names:
            if name in numbers:
                words += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, action)]
    refuse = _errno(errno.EPERM)
    if "open" in numbers:
        words += _if_any(numbers["open"], 1, _TMPFILE, _errno(errno.EOPNOTSUPP))
    words += _if_any(numbers["openat"], 2, _TMPFILE, _errno(errno.EOPNOTSUPP))
    words += _unless_all(numbers["clone"], 0, _CLONE_THREAD, refuse)
    words += _if_all(numbers["mmap"], 3, _SHARED_ANONYMOUS, _errno(errno.ENOMEM))
    for name in ("kill", "tgkill"):
        words += _unless_among(numbers[name], 0, (pid,), refuse)
    words += _unless_among(numbers["prlimit64"], 0, (0, pid), refuse)
    # Of its own death signal, dumpability, memory map, tracer, and of becoming a reaper.
    words += _if_among(numbers["prctl"], 0, (1, 4, 35, 36, 0x59616D61), refuse)
    # TIOCSTI and TIOCLINUX type into a terminal; F_SETOWN sends signals.
    words += _if_among(numbers["ioctl"], 1, (0x5412, 0x541C), refuse)
    words += _if_among(numbers["fcntl"], 1, (8, 15), refuse)
    return [*words, (_RETURN, 0, 0, _ALLOW)]


def _errno(number: int) -> int:
    return _ERRNO | number


def _on(number: int, rule: _Words) -> _Words:
    """`rule` for this call only. It ends with the number loaded again for the rules that follow."""
    rule = [*rule, (_LOAD, 0, 0, _OFFSET_NUMBER)]
    return [(_EQUAL, 0, len(rule), number), *rule]


def _argument(index: int) -> tuple[int, int, int, int]:
    """The lower half; what is compared here (flags, pids, options) has no upper one."""
    return (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * index)


def _if_any(number: int, index: int, bits: int, action: int) -> _Words:
    rule = [_argument(index), (_AND, 0, 0, bits), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, action)]
    return _on(number, rule)


def _if_all(number: int, index: int, bits: int, action: int) -> _Words:
    rule = [_argument(index), (_AND, 0, 0, bits), (_EQUAL, 0, 1, bits), (_RETURN, 0, 0, action)]
    return _on(number, rule)


def _unless_all(number: int, index: int, bits: int, action: int) -> _Words:
    rule = [_argument(index), (_AND, 0, 0, bits), (_EQUAL, 1, 0, bits), (_RETURN, 0, 0, action)]
    return _on(number, rule)


def _if_among(number: int, index: int, values: tuple[int, ...], action: int) -> _Words:
    rule = [_argument(index)]
    for value in values:
        rule += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, action)]
    return _on(number, rule)


def _unless_among(number: int, index: int, values: tuple[int, ...], action: int) -> _Words:
    rule = [_argument(index)]
    rule += [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return _on(number, [*rule, (_RETURN, 0, 0, action)])
