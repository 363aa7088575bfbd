"""What Redis does for us in one step each, with the keys that Dramatiq's own scripts use.

Ours differ in what the message ids are and in whose clock counts.  Dramatiq gives each message a random id when it is
enqueued, and writes heartbeats by the clock of whoever sends them.  Here the id is the attempt's, so that what was
published is published once and can be asked for; and the time is Redis's, so that a worker whose clock is an hour off
neither looks dead nor lives for ever.

``NAMESPACE:QUEUE`` is a list of ids, ``….msgs`` the messages by id, ``NAMESPACE:__acks__.WORKER.QUEUE`` the ids that a
worker has taken, ``NAMESPACE:__heartbeats__`` when each worker was heard last.  ``NAMESPACE:__queues__`` is ours: which
queues there are, so that nobody has to look through all keys.  ``KEYS[1]`` is what they all begin with.
"""

from __future__ import annotations

from typing import Final

_NOW: Final = """
local time = redis.call("time")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_QUEUE: Final = """
local list = KEYS[1] .. ARGV[1]
local messages = list .. ".msgs"
"""

_WORKER: Final = (
    _QUEUE
    + """
local acks = KEYS[1] .. "__acks__." .. ARGV[2] .. "." .. ARGV[1]
"""
)

#: queue, (id, message)…: how many of them were not there yet.
PUBLISH: Final = (
    _QUEUE
    + """
redis.call("sadd", KEYS[1] .. "__queues__", ARGV[1])
local added = 0
for i = 2, #ARGV, 2 do
    if redis.call("hsetnx", messages, ARGV[i], ARGV[i + 1]) == 1 then
        redis.call("rpush", list, ARGV[i])
        added = added + 1
    end
end
return added
"""
)

#: queue, worker, how many: id, message, id, message…  Taking none is a heartbeat.
FETCH: Final = (
    _WORKER
    + _NOW
    + """
redis.call("zadd", KEYS[1] .. "__heartbeats__", now, ARGV[2])
redis.call("sadd", KEYS[1] .. "__queues__", ARGV[1])
local taken = {}
while #taken < 2 * tonumber(ARGV[3]) do
    local id = redis.call("lpop", list)
    if not id then
        break
    end
    local message = redis.call("hget", messages, id)
    if message then  -- without one it was dealt with while it lay in the list again
        redis.call("sadd", acks, id)
        taken[#taken + 1] = id
        taken[#taken + 1] = message
    end
end
return taken
"""
)

#: queue, worker, id: it is dealt with, in the list too, where it was put back meanwhile.
ACK: Final = (
    _WORKER
    + """
if redis.call("srem", acks, ARGV[3]) == 1 or redis.call("lrem", list, 1, ARGV[3]) == 1 then
    redis.call("hdel", messages, ARGV[3])
end
"""
)

#: queue, worker, id…: put back what the worker has taken, except these.
KEEP: Final = (
    _WORKER
    + """
local kept = {}
for i = 3, #ARGV do
    kept[ARGV[i]] = true
end
for _, id in ipairs(redis.call("smembers", acks)) do
    if not kept[id] then
        redis.call("srem", acks, id)
        if redis.call("hexists", messages, id) == 1 then
            redis.call("lpush", list, id)
        end
    end
end
"""
)

#: queue, worker, id…: put back these, as far as the worker has taken them.
PUT_BACK: Final = (
    _WORKER
    + """
for i = 3, #ARGV do
    if redis.call("srem", acks, ARGV[i]) == 1 and redis.call("hexists", messages, ARGV[i]) == 1 then
        redis.call("lpush", list, ARGV[i])
    end
end
"""
)

#: milliseconds, worker…: put back what is held by these workers, and by those who were not heard of for so long.
RESCUE: Final = (
    _NOW
    + """
local beats = KEYS[1] .. "__heartbeats__"
local dead = redis.call("zrangebyscore", beats, 0, now - tonumber(ARGV[1]), "limit", 0, 100)
for i = 2, #ARGV do
    dead[#dead + 1] = ARGV[i]
end
local rescued = 0
for _, worker in ipairs(dead) do
    for _, queue in ipairs(redis.call("smembers", KEYS[1] .. "__queues__")) do
        local list = KEYS[1] .. queue
        local acks = KEYS[1] .. "__acks__." .. worker .. "." .. queue
        for _, id in ipairs(redis.call("smembers", acks)) do
            if redis.call("hexists", list .. ".msgs", id) == 1 then
                redis.call("lpush", list, id)
                rescued = rescued + 1
            end
        end
        redis.call("del", acks)
    end
    redis.call("zrem", beats, worker)
end
return rescued
"""
)

#: id…: which of them lie in a list, or are held by a worker that is heard of.  A message that is in neither was lost by
#: half (a Redis that evicts keys): it is taken out, so that it can be published again.
LOCATE: Final = """
local wanted = {}
for _, id in ipairs(ARGV) do
    wanted[id] = true
end
local found = {}
local workers = redis.call("zrange", KEYS[1] .. "__heartbeats__", 0, -1)
for _, queue in ipairs(redis.call("smembers", KEYS[1] .. "__queues__")) do
    local list = KEYS[1] .. queue
    local messages = list .. ".msgs"
    local there = {}
    for _, id in ipairs(redis.call("lrange", list, 0, -1)) do
        there[id] = true
    end
    for _, worker in ipairs(workers) do
        for _, id in ipairs(redis.call("smembers", KEYS[1] .. "__acks__." .. worker .. "." .. queue)) do
            there[id] = true
        end
    end
    for id in pairs(wanted) do
        if redis.call("hexists", messages, id) == 1 then
            if there[id] then
                found[#found + 1] = id
            else
                redis.call("hdel", messages, id)
            end
        end
    end
end
return found
"""

#: id…: take out what nobody has taken yet.
FORGET: Final = """
for _, queue in ipairs(redis.call("smembers", KEYS[1] .. "__queues__")) do
    local list = KEYS[1] .. queue
    for _, id in ipairs(ARGV) do
        if redis.call("lrem", list, 1, id) == 1 then
            redis.call("hdel", list .. ".msgs", id)
        end
    end
end
"""
