"""The loads of the benchmark as workflows of DBOS: see `peers/dbos.rs`.

A durable step is a `@DBOS.step`. What a step does is trivial on purpose: what
is measured is what it costs to make it durable. DBOS is a library and has no
server, so whoever starts the workflows does so in this process.

Usage: loads.py URL SIZES, where SIZES is a JSON object. Prints one JSON object.
"""

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from dbos import DBOS


@DBOS.step()
async def branch(number):
    return number


@DBOS.workflow()
async def fanout(count):
    return sum(await asyncio.gather(*[branch(number) for number in range(count)]))


@DBOS.step()
def step(number):
    return number + 1


@DBOS.workflow()
def chain(length):
    number = 0
    for _ in range(length):
        number = step(number)
    return number


@DBOS.workflow()
def single(number):
    return step(number)


def be_durable(connection, _):
    """A transaction is on the disk when it is committed, and a commit is one
    sync: with its default, a rollback journal, SQLite needs several."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def durability(url):
    """What the database says of itself."""
    questions = ["SHOW fsync", "SHOW synchronous_commit"]
    if url.startswith("sqlite"):
        questions = ["PRAGMA journal_mode", "PRAGMA synchronous"]
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        return [str(connection.exec_driver_sql(it).scalar()) for it in questions]


def fan_out(count):
    """The seconds that it takes."""
    begun = time.perf_counter()
    result = asyncio.run(fanout(count))
    assert result == count * (count - 1) // 2, result
    return time.perf_counter() - begun


def many(workflow, argument, result, total, clients):
    """The seconds that all took, and the milliseconds of each."""

    def client(_):
        begun = time.perf_counter()
        found = workflow(argument)
        assert found == result, found
        return (time.perf_counter() - begun) * 1000

    begun = time.perf_counter()
    if clients == 1:
        latencies = [client(number) for number in range(total)]
    else:
        with ThreadPoolExecutor(clients) as threads:
            latencies = list(threads.map(client, range(total)))
    return time.perf_counter() - begun, latencies


def measure(sizes):
    """All loads in these sizes."""
    chains, singles = sizes["chains"], sizes["singles"]
    return {
        "fanout": fan_out(sizes["branches"]),
        "chains": many(chain, sizes["length"], sizes["length"], chains, chains)[0],
        "singles": many(single, 1, 2, singles, sizes["clients"])[0],
        "latencies": many(single, 1, 2, sizes["alone"], 1)[1],
    }


def main():
    url, sizes = sys.argv[1], json.loads(sys.argv[2])
    if url.startswith("sqlite"):
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", be_durable)
    config = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    # As many threads as there are steps, which is its default, are slower.
    DBOS(config={**config, "max_executor_threads": 16})
    DBOS.launch()
    fewer = {it: sizes[it] // 10 for it in ("branches", "chains", "singles", "alone")}
    # It warms up.
    measure({**sizes, **fewer})
    print(json.dumps({"durability": durability(url), **measure(sizes)}), flush=True)
    # Nothing is left to do, and to end in good order takes seconds.
    os._exit(0)


main()
