"""The storage of a study: Optuna's, in a file of SQLite or on a server of PostgreSQL.

It is the queue and the memory: a trial waits, runs, and is complete, pruned or failed. Optuna's
tables hold numbers, texts and JSON; nothing of them is unpickled. So its journals, whose
snapshots are pickled, are not used, and neither is its sampler CMA-ES.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import vgx
from vgx.files import require_own, storage, user_path
from vgx.output import short
from vgx_sweep.plan import Plan, read_plan, require_name

FILE = "study.db"
HEARTBEAT = 15  # seconds between two signs of life of a worker
RETRIES = 10  # of a trial whose worker was killed
WAIT = 600  # seconds in which a server that was reached once may be away
MAX_BYTES = 2**30  # of a file of SQLite
PLAN, READY = "vgx", "vgx ready"  # attributes of a study
POINT, FIGURES, RUNS, REASON = "point", "figures", "runs", "reason"  # attributes of a trial
# What a file of SQLite has but tables and indexes; the query of a view, for one, may never end.
PROGRAMS = "SELECT sql FROM sqlite_master WHERE sql NOT GLOB 'CREATE [TIU][AN]*'"
SERVERS = ("postgresql://", "postgresql+psycopg://")


def sweeps_dir() -> Path:
    """Return the folder of sweeps: the environment's VGX_SWEEPS, or `sweeps`."""
    return user_path(os.environ.get("VGX_SWEEPS") or "sweeps")


def place(study: str, *names: str) -> Path:
    """Return the path of a file in the folder of a study, which may be a stranger's.

    Raises `vgx.StorageError` for a link on the way.
    """
    path = sweeps_dir() / study
    for name in ("", *names):
        path /= name
        require_own(path)
    return path


def require_optuna() -> Any:
    """Return the library Optuna. Raises `vgx.RecipeError` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise vgx.RecipeError("a sweep needs Optuna: pip install 'vgx[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of heartbeats
    return optuna


class UnreachableError(vgx.StorageError):
    """The storage of a study does not answer now."""


@dataclass(frozen=True)
class Study:
    """A study that is open: its plan, and what Optuna knows of it."""

    name: str
    plan: Plan
    optuna: Any  # optuna.Study
    rdb: Any  # optuna.storages.RDBStorage
    number: int  # of the study in the storage
    server: str | None  # its address; None for a file of this machine

    def trials(self, *states: str) -> list[Any]:
        """Return the trials in some states, such as "WAITING"; all without any."""
        known = require_optuna().trial.TrialState
        wanted = [known[state] for state in states] or None
        with reaching(self.name):
            return list(self.optuna.get_trials(deepcopy=False, states=wanted))

    def close(self) -> None:
        """Close the connections to the storage."""
        _close(self.rdb)

    def trial_id(self, number: int) -> int:
        """Return by which number the storage knows a trial of the study."""
        return int(self.rdb.get_trial_id_from_study_id_trial_number(self.number, number))


def address(name: str, server: str | None) -> str:
    """Return the URL of a study's storage. Raises an error for what is no storage for a sweep."""
    require_name(name)
    if server is None:
        require_own(file := place(name, FILE), alone=True)
        return f"sqlite:///{quote(str(file.absolute()))}"
    if not server.startswith(SERVERS):
        raise vgx.RecipeError(
            f"--storage {hidden(server)}: a study lies on a server of PostgreSQL, "
            "postgresql://USER@HOST/DATABASE, or without --storage in a file"
        )
    return server.replace(SERVERS[0], SERVERS[1], 1)


def hidden(server: str) -> str:
    """Return the URL of a storage without its password."""
    shown = re.sub(r"(://[^:/@]*):\S*@", r"\1:***@", server)
    return short(re.sub(r"([?&]password=)[^&\s]*", r"\1***", shown))


@contextlib.contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn errors of the storage in the block into `UnreachableError`."""
    optuna = require_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        why = str(getattr(cause, "orig", None) or cause).strip().splitlines() or ["no answer"]
        raise UnreachableError(f"the storage of {what}: {hidden(why[0])}") from error


def create(name: str, plan: Plan, server: str | None, heartbeat: int = HEARTBEAT) -> Study:
    """Make a study whose trials all wait. Raises `vgx.StorageError` for a name that is taken."""
    optuna = require_optuna()
    url = address(name, server)
    if server is None:
        with storage(sweeps_dir() / name):
            (sweeps_dir() / name).mkdir(parents=True, exist_ok=True)
    direction = "maximize" if plan.better == "higher" else "minimize"
    with reaching(name), contextlib.ExitStack() as refused:
        rdb = connect(url, heartbeat)
        refused.callback(_close, rdb)
        try:
            made = optuna.create_study(storage=rdb, study_name=name, direction=direction)
        except optuna.exceptions.DuplicatedStudyError:
            raise vgx.StorageError(
                f"there is a study {name} already; to go on with it: vgx sweep --join {name}; "
                "else give another --name"
            ) from None
        made.set_user_attr(PLAN, plan.model_dump_json())
        for number, parameters in enumerate(plan.grid or [{}] * plan.points):
            made.enqueue_trial(parameters, user_attrs={POINT: number})
        made.set_user_attr(READY, value=True)
        refused.pop_all()
        return Study(name, plan, made, rdb, rdb.get_study_id_from_name(name), server)


def join(name: str, server: str | None, heartbeat: int = HEARTBEAT) -> Study:
    """Open a study that is there. Raises `vgx.StorageError` for what is no study of a sweep."""
    optuna = require_optuna()
    url = address(name, server)
    if server is None:
        file = sweeps_dir() / name / FILE
        with storage(file):
            if not file.is_file():
                known = ", ".join(names()) or "none"
                raise vgx.StorageError(f"no study {name} in {sweeps_dir()}; there are: {known}")
            if file.stat().st_size > MAX_BYTES:
                raise vgx.StorageError(f"{file}: larger than {MAX_BYTES:,} bytes; no study")
    with reaching(name), contextlib.ExitStack() as refused:
        try:
            rdb = connect(url, heartbeat, new=False)
            refused.callback(_close, rdb)
            made = optuna.load_study(study_name=name, storage=rdb)
            about = made.user_attrs
            for trial in made.get_trials(deepcopy=False):
                for value in (*(trial.values or ()), *trial.intermediate_values.values()):
                    float(value)  # an error for what is no number
        except vgx.VgxError:
            raise
        except KeyError:
            raise vgx.StorageError(f"no study {name} in this storage") from None
        # Tables of a stranger, or of another version of Optuna, may raise any error.
        except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
            text = short(" ".join(str(error).split()))
            raise vgx.StorageError(f"{name}: no study that can be read: {text}") from None
        plan = read_plan(about.get(PLAN, ""))
        if about.get(READY) is not True:
            raise vgx.StorageError(
                f"{name}: whoever made this study ended before all of its trials were in; make it "
                "anew under another --name"
            )
        refused.pop_all()
        return Study(name, plan, made, rdb, rdb.get_study_id_from_name(name), server)


def _close(rdb: Any) -> None:
    rdb.remove_session()
    rdb.engine.dispose()


def names() -> list[str]:
    """Return the names of the studies in the folder of sweeps, the newest last."""
    files = [file for file in sweeps_dir().glob(f"*/{FILE}") if file.is_file()]
    return [file.parent.name for file in sorted(files, key=lambda file: file.stat().st_mtime)]


def connect(url: str, heartbeat: int, *, new: bool = True) -> Any:
    """Return Optuna's storage at a URL; with `new` its tables are made where they are missing."""
    optuna = require_optuna()
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    sqlite = url.startswith("sqlite")
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {
        # No connection is kept: it would be lost with the server, and warned of when forgotten.
        "poolclass": NullPool, "connect_args": {"connect_timeout": 10},
    }  # fmt: skip
    if sqlite:  # Optuna asks the tables when it opens them, and the file may be a stranger's
        with create_engine(url, poolclass=NullPool, **options).connect() as opened:
            if program := opened.exec_driver_sql(PROGRAMS).scalar():
                text = f"it has more than tables, which no sweep writes: {short(program)}"
                raise vgx.StorageError(f"{url}: no study that can be read: {text}")
    try:
        rdb = optuna.storages.RDBStorage(
            url, options, heartbeat_interval=heartbeat, grace_period=4 * heartbeat,
            heartbeat_stale_trial_callback=retry, skip_table_creation=not new,
        )  # fmt: skip
    except ImportError:
        raise vgx.RecipeError(
            "a storage of PostgreSQL needs psycopg: pip install 'vgx[sweep]'"
        ) from None
    (_serialised if sqlite else _patient)(rdb.engine)
    return rdb


def _serialised(engine: Any) -> None:
    """Let each transaction of SQLite have the file alone, from its first statement on.

    Python's module begins a transaction at its first change. So two workers could both read that a
    trial waits, and both take it.
    """
    from sqlalchemy import event

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # nothing begins by itself
        connection.execute("PRAGMA trusted_schema = OFF")  # the file may be a stranger's

    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made before
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _patient(engine: Any) -> None:
    """Let a connection wait for a server that is started again."""
    from sqlalchemy import event

    def connected(dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        end = time.monotonic() + WAIT
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    event.listen(engine, "do_connect", connected)


# --- the queue -----------------------------------------------------------------------------------


def claim(study: Study, sampler: Any) -> Any:
    """Return a trial that waited and is this worker's now; None when none waits.

    `sampler(number)` gives Optuna's sampler for a trial. `Study.ask` is not used, because it makes
    a new trial when none waits.
    """
    optuna = require_optuna()
    with reaching(study.name):
        optuna.storages.fail_stale_trials(study.optuna)  # of workers that were killed
        for waiting in study.trials("WAITING"):
            trial_id = study.trial_id(waiting.number)
            # First a sign of life: a worker that is killed just after it took a trial is noticed.
            study.rdb.record_heartbeat(trial_id)
            try:
                taken = study.rdb.set_trial_state_values(trial_id, optuna.trial.TrialState.RUNNING)
            except optuna.exceptions.UpdateFinishedTrialError:
                continue
            if taken and _is_twice(study, waiting):
                study.optuna.tell(waiting.number, state=optuna.trial.TrialState.FAIL)
            elif taken:
                study.optuna.sampler = sampler(waiting.number)
                return optuna.trial.Trial(study.optuna, trial_id)
    return None


def _is_twice(study: Study, trial: Any) -> bool:
    """Return whether an earlier trial stands for the same point, and has not failed.

    Several workers may have found the same point lost, and each has queued it again.
    """
    point = trial.user_attrs.get(POINT)
    before = [other for other in study.trials() if other.number < trial.number]
    return any(t.user_attrs.get(POINT) == point and t.state.name != "FAIL" for t in before)


@contextlib.contextmanager
def alive(study: Study, trial: Any) -> Iterator[None]:
    """Give signs of life for a trial while the block runs."""
    ended, trial_id = threading.Event(), study.trial_id(trial.number)

    def beat() -> None:
        while not ended.wait(study.rdb.get_heartbeat_interval()):
            # A server that is away for a moment; the next sign may reach it.
            with contextlib.suppress(vgx.StorageError), reaching(study.name):
                study.rdb.record_heartbeat(trial_id)
        study.rdb.remove_session()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join(HEARTBEAT)


def give_back(study: Study, trial: Any) -> None:
    """Let a trial of this worker wait again, for whoever comes next."""
    optuna = require_optuna()
    # Another worker may have taken this one for dead, and the trial for failed.
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError), reaching(study.name):
        waiting = optuna.trial.TrialState.WAITING
        study.rdb.set_trial_state_values(study.trial_id(trial.number), waiting)


def finish(
    study: Study, trial: Any, state: str, value: float | None = None, reason: str = ""
) -> None:
    """Note how a trial ended: "COMPLETE", "PRUNED" or "FAIL", and why.

    Nothing is noted when another worker took this one for dead: then the trial has failed already,
    and is tried again.
    """
    optuna = require_optuna()
    failed = (optuna.exceptions.UpdateFinishedTrialError, ValueError)
    with reaching(study.name), contextlib.suppress(*failed):
        if reason:
            trial.set_user_attr(REASON, reason)
        study.optuna.tell(trial, value, state=optuna.trial.TrialState[state])


def lost(study: Study) -> list[int]:
    """Return the points that no trial stands for any more.

    A worker that is killed after it noted the failure of another one's trial, and before it queued
    that trial again, leaves such a point.
    """
    failures = dict.fromkeys(range(study.plan.points), 0)
    for trial in study.trials():
        point = trial.user_attrs.get(POINT, -1)
        if trial.state.name == "FAIL" and REASON not in trial.user_attrs and point in failures:
            failures[point] += 1
        else:
            failures.pop(point, None)
    return [point for point, count in failures.items() if count <= RETRIES]


def put_again(study: Study, point: int) -> None:
    """Queue a point again, with the parameters that it had."""
    before = [t for t in study.trials() if t.user_attrs.get(POINT) == point and t.params]
    grid = study.plan.grid
    parameters = before[-1].params if before else grid[point] if grid else {}
    with reaching(study.name):
        study.optuna.enqueue_trial(parameters, user_attrs={POINT: point})
