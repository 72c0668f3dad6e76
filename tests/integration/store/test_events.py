"""Events: numbered without gaps under contention, and heard of by whoever waits."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time

import pytest

from app.store import events
from app.store.events import Watcher
from app.store.store import Store


def publish(store: Store, topic: str, number: int = 0) -> int:
    with store.write() as session:
        return events.publish(session, topic, "points", {"number": number})


def test_each_topic_counts_for_itself(store: Store) -> None:
    assert [publish(store, topic) for topic in "aabab"] == [1, 2, 1, 3, 2]
    with store.read() as session:
        assert events.latest(session, "a") == 3
        assert events.latest(session, "unheard") == 0


def test_reading_goes_on_from_any_number(store: Store) -> None:
    for number in range(7):
        publish(store, "a", number)
    publish(store, "b", 99)
    with store.read() as session:
        assert [e.data["number"] for e in events.read_after(session, "a", 2, limit=3)] == [2, 3, 4]
        assert [e.seq for e in events.read_after(session, "a", 5)] == [6, 7]
        assert events.read_after(session, "a", 7) == []


def test_an_event_and_its_number_go_with_the_transaction(store: Store) -> None:
    publish(store, "a")

    def publish_and_fail() -> None:
        with store.write() as session:
            assert events.publish(session, "a", "points", {}) == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        publish_and_fail()
    assert publish(store, "a") == 2


def test_a_job_without_a_topic_tells_nobody(store: Store) -> None:
    with store.write() as session:
        assert events.publish(session, None, "status", {}) == 0
        assert events.latest(session, "None") == 0


def test_no_gap_and_no_double_between_threads(store: Store) -> None:
    taken: list[int] = []

    def many() -> None:
        for number in range(25):
            taken.append(publish(store, "a", number))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 101))
    with store.read() as session:
        assert [event.seq for event in events.read_after(session, "a", 0)] == list(range(1, 101))


def test_waiters_are_woken_by_their_own_topic_only(store: Store) -> None:
    async def scenario() -> None:
        watcher = Watcher(store, interval=0.02)
        mine = [asyncio.ensure_future(watcher.wait("a", 0, 10)) for _ in range(50)]
        other = asyncio.ensure_future(watcher.wait("b", 0, 0.6))
        await asyncio.sleep(0.2)
        assert not any(waiter.done() for waiter in mine)
        started = time.monotonic()
        publish(store, "a")
        assert all(await asyncio.gather(*mine))
        assert time.monotonic() - started < 2
        assert await other is False
        watcher.stop()

    asyncio.run(scenario())


def test_what_was_there_before_the_wait_counts_too(store: Store) -> None:
    async def scenario() -> None:
        watcher = Watcher(store, interval=0.02)
        publish(store, "a")
        assert await watcher.wait("a", 0, 10) is True
        assert await watcher.wait("a", 1, 0.2) is False
        publish(store, "a")
        assert await watcher.wait("a", 1, 10) is True
        watcher.stop()

    asyncio.run(scenario())


def test_a_change_that_the_poller_has_seen_already_counts_for_a_new_waiter(store: Store) -> None:
    async def scenario() -> None:
        watcher = Watcher(store, interval=0.01)
        other = asyncio.ensure_future(watcher.wait("b", 0, 30))  # keeps the poller looking
        await asyncio.sleep(0.1)
        publish(store, "a")
        await asyncio.sleep(0.2)
        assert await watcher.wait("a", 0, 5) is True
        watcher.stop()
        assert await other is False

    asyncio.run(scenario())


def publish_elsewhere(url: str) -> None:
    store = Store.open(url)
    for number in range(5):
        publish(store, "a", number)
    store.dispose()


def test_a_stream_misses_nothing_that_another_process_says(store: Store, url: str) -> None:
    async def scenario() -> list[int]:
        watcher = Watcher(store, interval=0.02)
        seen: list[int] = []
        while len(seen) < 5:
            with store.read() as session:
                found = events.read_after(session, "a", len(seen), limit=2)
            seen += [event.data["number"] for event in found]
            if not found:
                assert await watcher.wait("a", len(seen), 20)
        watcher.stop()
        return seen

    process = multiprocessing.get_context("spawn").Process(target=publish_elsewhere, args=(url,))
    process.start()
    assert asyncio.run(scenario()) == [0, 1, 2, 3, 4]
    process.join()


def test_stopping_ends_every_wait(store: Store) -> None:
    async def scenario() -> None:
        watcher = Watcher(store, interval=0.02)
        watcher.start()
        waiting = asyncio.ensure_future(watcher.wait("a", 0, 30))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(watcher.stop)
        assert await asyncio.wait_for(waiting, 2) is False
        assert await watcher.wait("a", 0, 30) is False

    asyncio.run(scenario())


def test_a_wait_given_up_leaves_nothing(store: Store) -> None:
    async def scenario() -> None:
        watcher = Watcher(store, interval=0.02)
        waiting = asyncio.ensure_future(watcher.wait("a", 0, 30))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert watcher.waiting == 0
        watcher.stop()

    asyncio.run(scenario())


def test_nothing_polls_while_nobody_waits_and_one_thread_serves_all(store: Store) -> None:
    async def scenario() -> int:
        watcher = Watcher(store, interval=0.01)
        await asyncio.gather(*(watcher.wait("a", 0, 0.1) for _ in range(20)))
        threads = sum(thread.name == "event-watcher" for thread in threading.enumerate())
        await asyncio.sleep(0.1)
        before = watcher.ticks
        await asyncio.sleep(0.2)
        assert watcher.ticks == before
        publish(store, "a")
        assert await watcher.wait("a", 0, 10) is True
        watcher.stop()
        return threads

    assert asyncio.run(scenario()) == 1
