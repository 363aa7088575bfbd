from __future__ import annotations

import threading

from executors.queues.room import Room


def test_no_more_is_taken_than_there_is() -> None:
    room = Room(3)
    assert [room.take(2), room.take(2), room.take(2)] == [2, 1, 0]
    room.give(2)
    assert room.take(5) == 2


def test_nothing_is_taken_while_it_is_closed_and_what_was_taken_counts() -> None:
    room = Room(2)
    room.take(1)
    room.close()
    assert (room.take(1), room.free) == (0, 0)
    room.open()
    assert room.free == 1


def test_whoever_waits_is_woken_by_room_and_by_opening() -> None:
    for wake in (Room.give, Room.open):
        room = Room(1)
        room.take(1)
        if wake is Room.open:
            room.give()
            room.close()
        waited = threading.Thread(target=room.wait, args=(60.0,))
        waited.start()
        wake(room)
        waited.join(10)
        assert not waited.is_alive()


def test_listeners_hear_of_room_until_they_are_forgotten() -> None:
    room = Room(1)
    heard: list[str] = []

    def listener() -> None:
        heard.append("heard")

    room.on_change(listener)
    room.give()
    room.forget(listener)
    room.give()
    assert heard == ["heard"]
