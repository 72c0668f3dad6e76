"""The filter's words, run by a small machine of our own as the kernel would run them."""

from __future__ import annotations

import errno

import pytest

from worker.sandbox import seccomp
from worker.sandbox.syscalls import AUDIT_ARCH, NUMBERS

ALLOW, KILL = 0x7FFF0000, 0x80000000
PID = 4242


def judge(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Classic BPF: load word, jump if equal, jump if not less, and, return."""
    words = seccomp.program(machine, PID)
    data = [number, AUDIT_ARCH[machine] if arch is None else arch, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        data += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    at, value = 0, 0
    while True:
        code, true, false, k = words[at]
        at += 1
        if code == 0x20:
            value = data[k // 4]
        elif code == 0x15:
            at += true if value == k else false
        elif code == 0x35:
            at += true if value >= k else false
        elif code == 0x54:
            value &= k
        elif code == 0x06:
            return k
        else:
            raise AssertionError(hex(code))


def refused(number: int) -> int:
    return 0x50000 | number


@pytest.fixture(params=sorted(NUMBERS))
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_words_fit_the_kernel(machine: str) -> None:
    words = seccomp.program(machine, PID)
    assert len(words) < 4096
    assert all(0 <= true < 256 and 0 <= false < 256 for _, true, false, _ in words)


def test_names_are_known_on_some_machine() -> None:
    known = set(NUMBERS["x86_64"]) | set(NUMBERS["aarch64"])
    assert {*seccomp.FATAL, *seccomp.REFUSED, *seccomp.ABSENT} <= known
    assert len({*seccomp.FATAL, *seccomp.REFUSED, *seccomp.ABSENT}) == len(
        seccomp.FATAL + seccomp.REFUSED + seccomp.ABSENT
    )


def test_every_name_gets_its_answer(machine: str) -> None:
    numbers = NUMBERS[machine]
    for names, answer in (
        (seccomp.FATAL, KILL),
        (seccomp.REFUSED, refused(errno.EPERM)),
        (seccomp.ABSENT, refused(errno.ENOSYS)),
    ):
        for name in names:
            if name in numbers:
                assert judge(machine, numbers[name]) == answer, name


def test_reading_writing_and_waiting_are_allowed(machine: str) -> None:
    read_write_futex = {"x86_64": (0, 1, 202), "aarch64": (63, 64, 98)}[machine]
    for number in read_write_futex:
        assert judge(machine, number) == ALLOW


def test_another_machines_calls_end_the_process(machine: str) -> None:
    assert judge(machine, 1, arch=0x40000003) == KILL
    if machine == "x86_64":
        assert judge(machine, 0x40000000 | 41) == KILL


def test_calls_of_the_future_are_absent(machine: str) -> None:
    assert judge(machine, 460) == refused(errno.ENOSYS)
    assert judge(machine, 0x3FFFFFFF) == refused(errno.ENOSYS)


def test_threads_yes_processes_no(machine: str) -> None:
    clone = NUMBERS[machine]["clone"]
    assert judge(machine, clone, 0x3D0F00) == ALLOW  # What glibc passes for a thread.
    for flags in (17, 0x1200011, 0x4111, 0x10000000, 0):
        assert judge(machine, clone, flags) == refused(errno.EPERM)


def test_signals_to_itself_only(machine: str) -> None:
    for name in ("kill", "tgkill"):
        number = NUMBERS[machine][name]
        assert judge(machine, number, PID, 6) == ALLOW
        for pid in (0, 1, PID + 1, -1 & 0xFFFFFFFFFFFFFFFF, -PID & 0xFFFFFFFF):
            assert judge(machine, number, pid, 9) == refused(errno.EPERM)


def test_shared_memory_without_a_file_is_refused(machine: str) -> None:
    mmap = NUMBERS[machine]["mmap"]
    assert judge(machine, mmap, 0, 4096, 3, 0x22) == ALLOW  # Private, anonymous.
    assert judge(machine, mmap, 0, 4096, 3, 0x01) == ALLOW  # Of a file.
    for flags in (0x21, 0x23, 0x8021):
        assert judge(machine, mmap, 0, 4096, 3, flags) == refused(errno.ENOMEM)


def test_nameless_files_are_refused(machine: str) -> None:
    number = NUMBERS[machine]["openat"]
    assert judge(machine, number, 0, 0, 0o100102) == ALLOW
    assert judge(machine, number, 0, 0, 0o20200002) == refused(errno.EOPNOTSUPP)


def test_options_of_prctl(machine: str) -> None:
    number = NUMBERS[machine]["prctl"]
    assert judge(machine, number, 15) == ALLOW  # A thread's name.
    for option in (1, 4, 35, 36, 0x59616D61):
        assert judge(machine, number, option) == refused(errno.EPERM)


def test_limits_of_itself_only(machine: str) -> None:
    number = NUMBERS[machine]["prlimit64"]
    assert judge(machine, number, 0) == judge(machine, number, PID) == ALLOW
    assert judge(machine, number, 1) == refused(errno.EPERM)
