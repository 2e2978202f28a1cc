"""A clock that a test steps: the schedules are asked at the minutes of their cron, and the runs that they request take as long as it says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from ingestion.stores import Stores

MINUTE = timedelta(minutes=1)
MINUTES_OF = {"sweep_hours": range(0, 60, 15), "sweep_dates": range(5, 60, 30)}
JOB_OF = {"sweep_hours": "hourly", "sweep_dates": "daily"}


@dataclass
class Clock:
    """Runs queue one behind the other, as in dagster.yaml, the urgent ones first. A run reads when it has begun, so what comes
    meanwhile must be held back until it is over; what it makes is there when it ends."""

    stores: Stores
    now: datetime
    takes: dict[str, timedelta] = field(default_factory=dict)
    """How long a run of a job takes: no time, unless said."""
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.get)
    queue: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    ends_at: datetime | None = None

    def step(self) -> Iterator[str]:
        """One minute: gives the jobs whose runs end in it."""
        if self.ends_at == self.now:
            yield self._end()
        for schedule, minutes in MINUTES_OF.items():
            if self.now.minute in minutes:
                self.tick(schedule)
        while self.queue and self.ends_at is None:
            self.queue.sort(key=lambda item: item[1]["dagster/priority"], reverse=True)
            self.ends_at = self.now + self.takes.get(self.queue[0][0], timedelta())
            if self.ends_at == self.now:
                yield self._end()
        self.now += MINUTE

    @property
    def is_busy(self) -> bool:
        """Whether a run goes on."""
        return self.ends_at is not None

    def tick(self, schedule: str) -> list[dict[str, str]]:
        """Asks a schedule, and queues what it requests. Returns the tags of its requests."""
        from orchestration.definitions import defs

        with dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=self.now, resources={"stores": self.stores}
        ) as context:
            found = list(defs.resolve_schedule_def(schedule)(context))
        requested = [dict(request.tags) for request in found if isinstance(request, dg.RunRequest)]
        for tags in requested:
            job = JOB_OF[schedule]
            run = create_run_for_test(self.instance, job_name=job, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
            self.queue.append((job, tags, run.run_id))
        return requested

    def run_all(self) -> list[bool]:
        """Runs what is queued, now. Says of each whether it succeeded."""
        succeeded = []
        while self.queue:
            succeeded.append(self._run())
        return succeeded

    def _end(self) -> str:
        job = self.queue[0][0]
        assert self._run(), f"{job} failed"
        self.ends_at = None
        return job

    def _run(self) -> bool:
        from orchestration.definitions import defs

        job, tags, run_id = self.queue.pop(0)
        self.instance.delete_run(run_id)
        result = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return result.success
