"""Whether a run's process is alive, which Dagster's own launcher does not know.

A code server that is killed takes its runs with it, and so does a `footfall materialize`. Their runs would be in progress for ever: the
queue would wait for them, and the sweep leave out their partitions. Dagster's monitoring asks every 30 seconds, and when the daemon
starts; it fails those of which nobody is left, and tries again those that were launched.

For runs on this machine: what launches them elsewhere (Kubernetes, ECS) knows by itself, and is set in dagster.yaml instead.
"""

import subprocess
import time

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

SLACK_SECONDS = 2
"""`ps` tells the age of a process in whole seconds."""


class RunLauncher(DefaultRunLauncher):
    """Launches runs in the code server, as Dagster's own does, and says whether they live."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """By the process that the run's last event of its kind names. A run that names none yet is beginning."""
        for event in reversed(self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
            process = event.get_dagster_event().engine_event_data.metadata.get("pid")
            if process is not None:
                number = int(str(process.value))
                if not _is_alive(number, since=event.timestamp):
                    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {number} is gone")
                break
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _is_alive(process: int, since: float) -> bool:
    """Whether there is a process of this number that was there at that time: numbers are used again."""
    listed = subprocess.run(
        ["ps", "-o", "stat=,etime=", "-p", str(process)], capture_output=True, text=True
    ).stdout.split()
    if len(listed) != 2 or "Z" in listed[0]:
        return False
    return time.time() - _seconds(listed[1]) <= since + SLACK_SECONDS


def _seconds(age: str) -> int:
    """Of [[days-]hours:]minutes:seconds, which all of `ps` write."""
    days, _, clock = age.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 86_400 + seconds
