"""Comptoir's load tests for Locust: one user class and one shape, made from a scenario.

    locust -f loadtests/generator/locustfile.py --scenario FILE.yaml --out runs/chat --headless
    locust -f loadtests/generator/locustfile.py --scenario ... --out ... --processes 4      # opens the web UI

Locust starts and stops it, spreads it over processes and machines, and shows its figures; when a request is
sent, and how its answer is timed, is `generator`'s and `client`'s. `comptoir load run` calls this.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, TypeGuard

import gevent
from locust import LoadTestShape, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.generator.coordinator import Coordinator, Member
from loadtests.run.record import Record
from loadtests.workload.scenario import Scenario
from serving.errors import ComptoirError, ConfigError

BEGIN = "comptoir_begin"
REPORT = "comptoir"


class Session:
    """What the listeners of one process share: its part of the run, and on the master the run's folder."""

    member: Member | None = None
    coordinator: Coordinator | None = None


session = Session()


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Comptoir")
    group.add_argument("--scenario", metavar="FILE", help="The scenario, a YAML file", default="")
    group.add_argument("--out", metavar="FOLDER", help="folder of the run", default="run")


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    try:
        if not options or not options.scenario:
            raise ConfigError(
                "--scenario: name a scenario, such as loadtests/workload/scenarios/chat.yaml"
            )
        scenario = Scenario.load(Path(options.scenario))
        environment.host = scenario.target.url
        if not isinstance(runner, MasterRunner):
            session.member = Member.prepare(scenario, _logger_of(environment))
        if not isinstance(runner, WorkerRunner):
            session.coordinator = Coordinator(scenario, Path(options.out))
    except ComptoirError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    if isinstance(runner, WorkerRunner):
        runner.register_message(BEGIN, _on_begin)
    else:
        # Also where Ctrl-C would be ignored or lost: in the background, and under the web UI.
        gevent.signal_handler(signal.SIGINT, _interrupted, environment)


def _interrupted(environment: Environment) -> None:
    """End the run, keep its records, and leave."""
    assert environment.runner is not None  # noqa: S101 - `init` was told of it
    environment.runner.quit()
    code = session.coordinator.finish() if session.coordinator else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ---- the run's life ----------------------------------------------------------------------------------


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    runner, coordinator = environment.runner, session.coordinator
    if coordinator is None:
        return
    workers = sorted(client.id for client in runner.clients.ready) if is_master(runner) else []
    orders = coordinator.begin(max(1, len(workers)))
    if is_master(runner) and workers:
        for client_id, order in zip(workers, orders, strict=True):
            runner.send_message(BEGIN, order, client_id)
    else:
        assert session.member is not None  # noqa: S101 - a local runner has both
        session.member.begin(orders[0])
        gevent.spawn(_collect_here, session.member, coordinator)


def is_master(runner: object) -> TypeGuard[MasterRunner]:
    """Whether others do the sending."""
    return isinstance(runner, MasterRunner)


def _on_begin(environment: Environment, msg: Any, **_: Any) -> None:
    assert session.member is not None  # noqa: S101 - workers have one
    session.member.begin(msg.data)


def _collect_here(member: Member, coordinator: Coordinator) -> None:
    while not member.is_over:
        gevent.sleep(0.5)
        coordinator.collect("local", member.report())
    coordinator.collect("local", member.report())


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any]) -> None:
    if session.member is not None and session.member.has_begun:
        data[REPORT] = session.member.report()


@events.worker_report.add_listener
def _worker_report(client_id: str, data: dict[str, Any]) -> None:
    if session.coordinator is not None and REPORT in data:
        session.coordinator.collect(client_id, data[REPORT])


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    if session.member is not None:
        session.member.stop()
    coordinator = session.coordinator
    if coordinator is None:
        return
    if session.member is not None:
        coordinator.collect("local", session.member.report())
    if environment.web_ui is not None:
        # The last reports of workers come within some seconds.
        gevent.spawn_later(5, coordinator.finish)


@events.quitting.add_listener
def _quitting(environment: Environment, **_: Any) -> None:
    if session.coordinator is not None:
        environment.process_exit_code = session.coordinator.finish()


# ---- what Locust runs and shows ----------------------------------------------------------------------


class LoadUser(User):
    """In a closed loop one user; in an open loop one process's part of the plan."""

    @task
    def drive(self) -> None:
        """Until the run is over; Locust would call it again and again."""
        assert session.member is not None  # noqa: S101 - users run where a member is
        session.member.drive()
        while True:
            gevent.sleep(3600)


class PlanShape(LoadTestShape):
    """As many users as the scenario asks for, until its requests are answered."""

    def tick(self) -> tuple[int, float] | None:
        """Called once a second, by the master or the only process."""
        coordinator = session.coordinator
        if coordinator is None or (coordinator.has_begun and coordinator.is_over):
            return None
        if not is_master(self.runner):
            return coordinator.users(1)
        workers = self.runner.clients
        return coordinator.users(len(workers.ready + workers.running + workers.spawning))


def _logger_of(environment: Environment) -> Any:
    """Puts records into Locust's statistics: rows for the whole answer, its first text, its tokens."""

    def log(record: Record) -> None:
        name = f"{record.class_name} ({record.model})"
        environment.events.request.fire(
            request_type=record.kind,
            name=name,
            response_time=record.e2e_intended_s * 1000,
            response_length=max(0, record.output_tokens),
            exception=None if record.is_ok else LoadError(record.error, record.status),
            context={},
        )
        # Not through the event: these are no requests of their own, and must not count as such.
        ttft_s, tpot_s = record.ttft_intended_s, record.tpot_s
        if ttft_s is not None:
            environment.stats.get(name, "TTFT").log(ttft_s * 1000, 0)  # type: ignore[arg-type]  # fractions do
        if tpot_s is not None:
            environment.stats.get(name, "TPOT").log(tpot_s * 1000, 0)  # type: ignore[arg-type]

    return log


class LoadError(Exception):
    """Why a request failed, in words of ours: never text of an answer."""

    def __init__(self, word: str, status: int) -> None:
        super().__init__(f"{word} {status}" if word == "http" else word)


__all__ = ["LoadUser", "PlanShape"]
