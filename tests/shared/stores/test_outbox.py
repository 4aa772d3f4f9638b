"""The outbox: promised with the work, run once for each time it is due, by whoever comes first."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from shared.stores import outbox
from shared.stores.postgres import Record
from twins.context import Context

KIND = "test"


@pytest.fixture(autouse=True)
async def _empty(context: Context) -> None:
    """Forget what other tests have left."""
    async with context.postgres.connection() as connection:
        await connection.execute("DELETE FROM outbox")


async def promise(context: Context, kind: str = KIND) -> UUID:
    subject = uuid4()
    async with context.postgres.connection() as connection:
        await outbox.enqueue(connection, kind, subject)
    return subject


async def job_of(context: Context, subject: UUID) -> Record | None:
    async with context.postgres.connection() as connection:
        return await connection.fetchrow(
            """
            SELECT attempts, last_error, dead_at, extract(epoch FROM run_at - now())::float AS wait,
                   extract(epoch FROM due_at - now())::float AS due
            FROM outbox WHERE subject = $1
            """,
            subject,
        )


async def make_due(context: Context) -> None:
    """Put the clock forward to when everything is due."""
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE outbox SET run_at = now()")


class Recorder:
    """A handler that notes what it was called for, and answers what it is told to."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self.answers = list(answers)
        self.calls: list[UUID] = []

    async def __call__(self, subject: UUID) -> float | None:
        self.calls.append(subject)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_job_is_there_only_if_the_transaction_that_promised_it_is(context: Context) -> None:
    handler, subject = Recorder(), uuid4()
    with contextlib.suppress(ZeroDivisionError):
        async with context.postgres.transaction() as connection:
            await outbox.enqueue(connection, KIND, subject)
            raise ZeroDivisionError
    assert await outbox.drain(context.postgres, {KIND: handler}) == 0

    subject = await promise(context)
    assert await outbox.drain(context.postgres, {KIND: handler}) == 1
    assert handler.calls == [subject]
    assert await job_of(context, subject) is None
    assert await outbox.drain(context.postgres, {KIND: handler}) == 0


async def test_jobs_run_in_the_order_in_which_they_are_due(context: Context) -> None:
    handler = Recorder()
    subjects = [await promise(context) for _ in range(5)]
    await outbox.drain(context.postgres, {KIND: handler})

    assert handler.calls == subjects


async def test_a_drain_for_one_subject_leaves_the_others(context: Context) -> None:
    handler = Recorder()
    other, subject = await promise(context), await promise(context)
    assert await outbox.drain(context.postgres, {KIND: handler}, subject=subject) == 1

    assert handler.calls == [subject]
    assert await job_of(context, other) is not None


async def test_a_job_that_asks_for_it_runs_again_at_that_time_and_not_before(context: Context) -> None:
    handler = Recorder(60.0, None)
    subject = await promise(context)
    assert await outbox.drain(context.postgres, {KIND: handler}) == 1
    job = await job_of(context, subject)
    assert job is not None
    assert (job["attempts"], job["last_error"]) == (0, None)
    assert 58 < job["wait"] <= 60
    assert 58 < job["due"] <= 60
    assert await outbox.drain(context.postgres, {KIND: handler}) == 0

    await make_due(context)
    assert await outbox.drain(context.postgres, {KIND: handler}) == 1
    assert handler.calls == [subject, subject]
    assert await job_of(context, subject) is None


async def test_a_job_that_fails_waits_twice_as_long_each_time(context: Context) -> None:
    subject = await promise(context)
    for attempt in range(1, 11):
        assert await outbox.drain(context.postgres, {KIND: Recorder(ValueError("a secret"))}) == 1
        job = await job_of(context, subject)
        assert job is not None
        assert (job["attempts"], job["last_error"], job["dead_at"]) == (attempt, "ValueError", None)
        expected = min(2**attempt, outbox.LONGEST_BACKOFF)
        assert expected - 2 < job["wait"] <= expected
        assert job["due"] <= 0  # since when it waits
        await make_due(context)
    await outbox.drain(context.postgres, {KIND: Recorder()})

    assert await job_of(context, subject) is None


async def test_a_success_in_between_forgets_the_failures(context: Context) -> None:
    subject = await promise(context)
    handler = Recorder(ValueError(), ValueError(), 60.0, ValueError())
    for _ in range(4):
        await make_due(context)
        await outbox.drain(context.postgres, {KIND: handler})
    job = await job_of(context, subject)

    assert job is not None
    assert job["attempts"] == 1


async def test_after_its_last_attempt_a_job_is_a_dead_letter(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    subject = await promise(context)
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE outbox SET attempts = $1", outbox.MAX_ATTEMPTS - 2)
    handler = Recorder(ValueError("a secret"), ValueError("a secret"))
    await outbox.drain(context.postgres, {KIND: handler})
    assert (await outbox.backlog(context.postgres)).dead == 0
    await make_due(context)
    await outbox.drain(context.postgres, {KIND: handler})
    job = await job_of(context, subject)
    assert job is not None
    assert (job["attempts"], job["last_error"]) == (outbox.MAX_ATTEMPTS, "ValueError")
    assert job["dead_at"] is not None
    await make_due(context)

    assert await outbox.drain(context.postgres, {KIND: handler}) == 0
    assert (await outbox.backlog(context.postgres)).dead == 1
    assert [record.levelname for record in caplog.records if "dead letter" in record.message] == ["ERROR"]
    assert "a secret" not in caplog.text


async def test_a_job_that_no_process_survives_is_a_dead_letter_too(context: Context) -> None:
    subject = await promise(context)
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE outbox SET attempts = $1", outbox.MAX_ATTEMPTS)  # and none has ended
    handler = Recorder()
    await outbox.drain(context.postgres, {KIND: handler})

    job = await job_of(context, subject)
    assert job is not None
    assert job["dead_at"] is not None
    assert job["last_error"] == "WorkerLostError"
    assert handler.calls == []


async def test_the_backlog_tells_how_much_waits_and_for_how_long(context: Context) -> None:
    empty = await outbox.backlog(context.postgres)
    assert (empty.due, empty.dead, empty.age) == (0, 0, 0.0)
    for _ in range(3):
        await promise(context)
    later, dead = await promise(context), await promise(context)
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE outbox SET due_at = now() - interval '90 s'")
        await connection.execute("UPDATE outbox SET due_at = now() + interval '1 h' WHERE subject = $1", later)
        await connection.execute("UPDATE outbox SET dead_at = now() WHERE subject = $1", dead)
    backlog = await outbox.backlog(context.postgres)

    assert (backlog.due, backlog.dead) == (3, 1)
    assert 90 <= backlog.age < 100


async def test_a_job_of_a_kind_nobody_knows_fails_and_holds_up_no_other(context: Context) -> None:
    # As a process of an older release would find it.
    unknown, subject = await promise(context, "from-the-future"), await promise(context)
    handler = Recorder()
    assert await outbox.drain(context.postgres, {KIND: handler}) == 2

    assert handler.calls == [subject]
    job = await job_of(context, unknown)
    assert job is not None
    assert (job["attempts"], job["last_error"]) == (1, "KeyError")


# --- Many at once ---------------------------------------------------------------------------------


async def test_twenty_drains_at_once_run_each_job_once(context: Context) -> None:
    subjects = [await promise(context) for _ in range(40)]
    handler = Recorder()
    counts = await asyncio.gather(*(outbox.drain(context.postgres, {KIND: handler}) for _ in range(20)))

    assert sum(counts) == 40, await outbox_of(context)
    assert Counter(handler.calls) == Counter(subjects), await outbox_of(context)


async def test_twenty_drains_at_once_run_each_job_once_for_each_time_it_is_due(context: Context) -> None:
    subjects = [await promise(context) for _ in range(10)]
    runs: Counter[UUID] = Counter()

    async def handler(subject: UUID) -> float | None:
        runs[subject] += 1
        await asyncio.sleep(0.001)
        return None if runs[subject] == 3 else 0.05

    for _ in range(200):
        await asyncio.gather(*(outbox.drain(context.postgres, {KIND: handler}) for _ in range(20)))
        if (await outbox.backlog(context.postgres)).due == 0 and not await waiting(context):
            break
        await asyncio.sleep(0.01)

    assert runs == Counter(dict.fromkeys(subjects, 3)), await outbox_of(context)


async def outbox_of(context: Context) -> str:
    """Return the clock and the table, for a failure: another drain leaves `KeyError`, a clock set back neither."""
    async with context.postgres.connection() as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
        rows = await connection.fetch("SELECT * FROM outbox ORDER BY run_at")
    return "\n".join([f"{now}, and in the outbox:", *(str(dict(row)) for row in rows)])


async def waiting(context: Context) -> int:
    async with context.postgres.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))


# --- Leases ---------------------------------------------------------------------------------------


class Slow:
    """A handler that stays in the middle until it is let go."""

    def __init__(self, finish: Callable[[], float | None] = lambda: None) -> None:
        self.entered, self.leave = asyncio.Event(), asyncio.Event()
        self._finish = finish

    async def __call__(self, _: UUID) -> float | None:
        self.entered.set()
        await self.leave.wait()
        return self._finish()


async def start(context: Context, handler: Callable[[UUID], Awaitable[float | None]]) -> asyncio.Task[int]:
    return asyncio.create_task(outbox.drain(context.postgres, {KIND: handler}))


async def test_a_leased_job_is_nobody_elses_until_its_lease_ends(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE", 0.3)
    subject = await promise(context)
    crashing, handler = Slow(), Recorder()
    task = await start(context, crashing)
    await crashing.entered.wait()
    assert await outbox.drain(context.postgres, {KIND: handler}) == 0
    task.cancel()  # as when the process dies: nothing is noted
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outbox.drain(context.postgres, {KIND: handler}) == 0
    await asyncio.sleep(0.35)

    assert await outbox.drain(context.postgres, {KIND: handler}) == 1
    assert handler.calls == [subject]
    assert await job_of(context, subject) is None


def _fails() -> float | None:
    raise ValueError


@pytest.mark.parametrize("finish", [lambda: None, lambda: 1000.0, _fails])
@pytest.mark.parametrize("meanwhile", ["leased", "run again later", "rescheduled and leased", "failed"])
async def test_whoever_is_slower_than_its_lease_changes_nothing(
    context: Context, finish: Callable[[], float | None], meanwhile: str
) -> None:
    subject = await promise(context)
    slow = Slow(finish)
    task = await start(context, slow)
    await slow.entered.wait()
    await make_due(context)  # the lease has ended
    holder = Slow()
    held: asyncio.Task[int] | None = None
    if meanwhile == "run again later":
        await outbox.drain(context.postgres, {KIND: Recorder(60.0)})
    elif meanwhile == "failed":
        await outbox.drain(context.postgres, {KIND: Recorder(OSError())})
    else:
        if meanwhile == "rescheduled and leased":
            await outbox.drain(context.postgres, {KIND: Recorder(60.0)})
            await make_due(context)
        held = await start(context, holder)
        await holder.entered.wait()
    before = await job_of(context, subject)
    assert before is not None
    slow.leave.set()
    assert await task >= 1
    after = await job_of(context, subject)

    assert after is not None
    assert dict(after) | {"wait": 0, "due": 0} == dict(before) | {"wait": 0, "due": 0}
    assert after["wait"] == pytest.approx(before["wait"], abs=1)
    if held is not None:  # and the one that holds it now ends it
        holder.leave.set()
        assert await held == 1
        assert await job_of(context, subject) is None
