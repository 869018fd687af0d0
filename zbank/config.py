"""The cluster file: one TOML file describes the cluster, and each machine starts its own roles from the same file.

Everything in it is checked here, once, before anything starts. What is wrong raises InvalidConfig, which names file,
key, what is wrong and what would be right. (This is for apps alone: nothing below them reads a config.)
"""

from __future__ import annotations

import difflib
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from zbank.domain.account import check_branch_name
from zbank.domain.money import currency
from zbank.errors import InvalidConfig, InvalidInput

COORDINATOR_NAME = "coordinator"  #: of the coordinator and its data file: no branch may have it
STANDBY_NAME = "coordinator-standby"  #: of its replica
DEFAULT_COORDINATOR = "tcp://127.0.0.1:9000"
DEFAULT_DATA = "data"
DEFAULT_TIME_ZONE = "UTC"
MAX_PORT = 65535
MAX_NAME_CHARS = 64
MAX_ENDPOINT_CHARS = 200

_ENDPOINT = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII)
_EVERYWHERE = frozenset({"0.0.0.0", "*", "[::]"})  # hosts that mean "every address of this machine": to listen on only

# The descriptions below say what would be right; an error repeats them.
Text = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS, description='a short text, as in "demo"')]
Folder = Annotated[str, Meta(min_length=1, description='a folder, as in "data"')]
Address = Annotated[
    str, Meta(max_length=MAX_ENDPOINT_CHARS, description='the address that others use, as in "tcp://127.0.0.1:9100"')
]
Listen = Annotated[
    str, Meta(max_length=MAX_ENDPOINT_CHARS, description='the address to listen on, as in "tcp://0.0.0.0:9100"')
]
Code = Annotated[str, Meta(description='a currency of ISO 4217, as in "INR"')]
Zone = Annotated[str, Meta(description='a time zone by its IANA name, as in "Asia/Kolkata"')]
Flag = Annotated[bool, Meta(description="true or false")]
Replicas = Annotated[int, Meta(ge=0, le=16, description="a whole number, 0 to 16")]
Acks = Annotated[int, Meta(ge=0, le=1, description="0, or 1: nothing is answered before the synchronous replica has it")]
ReplicaName = Annotated[
    str,
    Meta(pattern=r"\A([A-Za-z0-9][A-Za-z0-9._-]{0,63})?\Z", description='the name of a replica, as in "Mumbai-backup"'),
]
Storage = Annotated[str, Meta(description='"sqlite", or an address as in "postgresql://user@host/database"')]
Host = Annotated[str, Meta(min_length=1, max_length=MAX_ENDPOINT_CHARS, description='a host, as in "127.0.0.1"')]
Port = Annotated[int, Meta(ge=1, le=MAX_PORT, description=f"a port, 1 to {MAX_PORT}")]
Proxy = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f.:]+)?$", description='the address of a proxy, as in "127.0.0.1"')]
HostNames = Annotated[
    tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:\[\]-]{1,255}$")], ...],
    Meta(max_length=20, description='a list of names, as in ["bank.example"]'),
]
Url = Annotated[str, Meta(pattern="^(https?://.+)?$", description='an address, as in "http://192.168.1.50:5000"')]


class Endpoint(NamedTuple):
    """A parsed `tcp://host:port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"


class CoordinatorConfig(Struct, frozen=True, kw_only=True):
    """[coordinator]: after loading every address is filled in."""

    endpoint: Address  #: the address others use
    bind: Listen = ""  #: what to listen on; default: the endpoint
    feed_in: Listen = ""  #: where branches publish; default: the bind's next port
    feed_out: Listen = ""  #: where replicas subscribe; default: the bind's port after that
    standby: Address = ""  #: where a replica of it is, that can take its place; "" = there is none
    acks: Acks = 0  #: with 1, nothing leaves it before the standby has it

    @property
    def places(self) -> str:
        """Where it may be found, with commas between."""
        return f"{self.endpoint},{self.standby}" if self.standby else self.endpoint

    @property
    def synchronous(self) -> str:
        """The name of its synchronous replica; "" = it has none."""
        return STANDBY_NAME if self.acks else ""


class BranchConfig(Struct, frozen=True, kw_only=True):
    """[branches.NAME]."""

    endpoint: Address  #: the address others use
    bind: Listen = ""  #: what to listen on; default: the endpoint
    currency: Code  #: the one currency of the branch's accounts
    time_zone: Zone = DEFAULT_TIME_ZONE  #: where its days begin
    preload: Flag = False  #: accounts 1001 (10000.00) and 1002 (5000.00), only into an empty branch
    replicas: Replicas = 0  #: that are started together with it
    acks: Acks = 0  #: how many replicas have a row before anything that stands on it leaves the branch
    synchronous: ReplicaName = ""  #: with acks = 1, the replica that does; default: the first that is started with it
    storage: Storage = "sqlite"


class RestConfig(Struct, frozen=True, kw_only=True):
    """[rest]: where the REST bridge listens."""

    host: Host = "127.0.0.1"
    port: Port = 5000
    trusted_proxy: Proxy = ""  #: a proxy in front, whose word on who asks counts
    trusted_hosts: HostNames = ()  #: names that it is called by; none = any


class DashboardConfig(Struct, frozen=True, kw_only=True):
    """[dashboard]: where the web dashboard listens."""

    host: Host = "127.0.0.1"
    port: Port = 8501
    rest_url: Url = ""  #: default: the [rest] of this file
    trusted_hosts: HostNames = ()  #: names that it is called by behind a proxy


class ClusterSection(Struct, frozen=True, kw_only=True):
    """[cluster]."""

    name: Text
    data: Folder = DEFAULT_DATA


class ClusterConfig(Struct, frozen=True, kw_only=True):
    """A whole, checked cluster file."""

    path: Path  #: of the file, absolute
    name: str
    data: Path  #: folder of the data files; a relative one counts from the working directory
    coordinator: CoordinatorConfig
    branches: dict[str, BranchConfig]  #: by name, in the order of the file
    rest: RestConfig | None = None
    dashboard: DashboardConfig | None = None

    @property
    def replicas(self) -> dict[str, str]:
        """The replicas that are started together with whom they follow: the branch, or the coordinator, by the replica's
        name."""
        found = {name: of for of, branch in self.branches.items() for name in replica_names(of, branch.replicas)}
        return found | ({STANDBY_NAME: COORDINATOR_NAME} if self.coordinator.standby else {})

    @property
    def named_replicas(self) -> dict[str, str]:
        """These, and the synchronous ones that are started elsewhere: all whose names the file knows."""
        return self.replicas | {branch.synchronous: of for of, branch in self.branches.items() if branch.synchronous}


Section = TypeVar("Section", bound=Struct)


def load_config(path: str | Path) -> ClusterConfig:
    """Read and check a cluster file. Raises InvalidConfig."""
    return _Reader(Path(path)).read()


def data_file(data: Path, name: str) -> Path:
    """Where an actor keeps its data: `<data>/<name>.db`."""
    return data / f"{name}.db"


def replica_names(branch: str, count: int) -> list[str]:
    """What the replicas are called that are started together with a branch."""
    return [f"{branch}-replica-{number}" for number in range(1, count + 1)]


def parse_endpoint(text: str, lowest_port: int = 1) -> Endpoint:
    """Host and port of `tcp://host:port`; port 0 is any that is free. Raises InvalidInput."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or not lowest_port <= int(match["port"]) <= MAX_PORT:
        raise InvalidInput(f"{text!r} is no address: write tcp://host:port with a port from 1 to {MAX_PORT}")
    return Endpoint(match["host"], int(match["port"]))


def url_host(host: str) -> str:
    """The host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def url_of(section: RestConfig | DashboardConfig) -> str:
    """Where the bridge, or the dashboard, is found from this machine."""
    host = "localhost" if url_host(section.host) in _EVERYWHERE else url_host(section.host)
    return f"http://{host}:{section.port}"


def parse_reachable_endpoint(text: str, lowest_port: int = 1) -> Endpoint:
    """As `parse_endpoint`, for an address that others connect to: 0.0.0.0 and * are only good to listen on."""
    endpoint = parse_endpoint(text, lowest_port)
    if endpoint.host in _EVERYWHERE:
        raise InvalidInput(
            f"{text!r} is an address to listen on, others cannot connect to it: write a name or number of this machine"
        )
    return endpoint


class _Reader:
    """One reading of one file: knows the file's name for its errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> ClusterConfig:
        raw = self._parse()
        self._check_keys(raw, ("cluster", "coordinator", "branches", "rest", "dashboard"), "")
        cluster = self._section(raw, "cluster", ClusterSection)
        config = ClusterConfig(
            path=self._path.absolute(),
            name=cluster.name,
            data=Path(cluster.data),
            coordinator=self._coordinator(raw),
            branches=self._branches(raw),
            rest=self._section(raw, "rest", RestConfig) if "rest" in raw else None,
            dashboard=self._section(raw, "dashboard", DashboardConfig) if "dashboard" in raw else None,
        )
        self._check_ports(config)
        return config

    def _wrong(self, key: str, problem: str) -> InvalidConfig:
        return InvalidConfig(f"{self._path}: {key}: {problem}" if key else f"{self._path}: {problem}")

    def _parse(self) -> dict[str, Any]:
        try:
            text = self._path.read_bytes().decode("utf-8")
        except OSError as error:
            raise self._wrong("", f"cannot be read ({error.strerror}): give the path of a cluster file") from error
        except UnicodeDecodeError as error:
            raise self._wrong("", f"is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self._wrong("", f"is not valid TOML: {error}") from error

    def _check_keys(self, raw: dict[str, Any], known: tuple[str, ...], section: str) -> None:
        for key in raw:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                raise self._wrong(f"{section}.{key}" if section else key, f"unknown key; {hint}")

    def _section(self, raw: dict[str, Any], name: str, kind: type[Section], key: str = "") -> Section:
        """The section `name` of `raw` as a `kind`; `key` is its full name where that is longer."""
        key = key or name
        table = raw.get(name)
        if table is None:
            raise self._wrong("", f"the section [{key}] is missing")
        if not isinstance(table, dict):
            raise self._wrong(key, f"{_shown(table)} is not a section: write [{key}] on a line of its own")
        fields = msgspec.structs.fields(kind)
        self._check_keys(table, tuple(field.name for field in fields), key)
        for field in fields:
            right = next(meta.description for meta in field.type.__metadata__ if isinstance(meta, Meta))
            if field.name not in table:
                if field.required:
                    raise self._wrong(f"{key}.{field.name}", f"is missing: it is {right}")
                continue
            try:
                msgspec.convert(table[field.name], field.type)
            except msgspec.ValidationError as error:
                shown = _shown(table[field.name])
                raise self._wrong(f"{key}.{field.name}", f"{shown} does not fit: it is {right}") from error
        return msgspec.convert(table, kind)

    def _coordinator(self, raw: dict[str, Any]) -> CoordinatorConfig:
        section = self._section(raw, "coordinator", CoordinatorConfig)
        bind, feeds = self._addresses("coordinator", section)
        for offset, key in ((1, "feed_in"), (2, "feed_out")):
            given = getattr(section, key)
            if given:
                feeds[key] = str(self._endpoint(f"coordinator.{key}", given))
            elif bind.port + offset > MAX_PORT:
                raise self._wrong(f"coordinator.{key}", f"is missing: the port after {MAX_PORT} does not exist")
            else:
                feeds[key] = str(Endpoint(bind.host, bind.port + offset))
        if section.standby:
            feeds["standby"] = str(self._endpoint("coordinator.standby", section.standby, parse_reachable_endpoint))
        elif section.acks:
            raise self._wrong("coordinator.acks", 'needs a replica: write where it is, as in standby = "tcp://127.0.0.1:9010"')
        return msgspec.structs.replace(section, **feeds)

    def _branches(self, raw: dict[str, Any]) -> dict[str, BranchConfig]:
        tables = raw.get("branches")
        if not isinstance(tables, dict) or not tables:
            raise self._wrong("", "has no branch: write at least one section such as [branches.Mumbai]")
        branches: dict[str, BranchConfig] = {}
        for name in tables:
            key = f"branches.{name}"
            try:
                check_branch_name(name)
            except InvalidInput as error:
                raise self._wrong(key, str(error)) from error
            taken = {other.lower(): other for other in (*branches, COORDINATOR_NAME, STANDBY_NAME)}
            if name.lower() in taken:  # the data files of both would be one file on some systems
                raise self._wrong(key, f"the name {taken[name.lower()]!r} is taken: choose another one")
            branches[name] = self._with_acks(key, name, self._branch(key, self._section(tables, name, BranchConfig, key)))
        self._check_replicas(branches)
        return branches

    def _with_acks(self, key: str, name: str, section: BranchConfig) -> BranchConfig:
        """With the synchronous replica filled in, where one is wanted."""
        if not section.acks:
            if section.synchronous:
                raise self._wrong(f"{key}.synchronous", "is the replica of acks = 1: write that, too, or leave it out")
            return section
        if not section.synchronous and not section.replicas:
            raise self._wrong(f"{key}.acks", 'needs a replica: write replicas = 1, or synchronous = "NAME" of another one')
        return msgspec.structs.replace(section, synchronous=section.synchronous or replica_names(name, 1)[0])

    def _check_replicas(self, branches: Mapping[str, BranchConfig]) -> None:
        """Their data files and keys are called as they are: nobody else may be. The synchronous one is its own branch's."""
        taken = {COORDINATOR_NAME: "the coordinator", STANDBY_NAME: "its replica"}
        taken |= {other.lower(): f"branch {other}" for other in branches}
        started = {name.lower(): of for of, branch in branches.items() for name in replica_names(of, branch.replicas)}
        for other in branches:
            if other.lower() in started:
                detail = f"the name is that of a replica of {started[other.lower()]}: choose another one"
                raise self._wrong(f"branches.{other}", detail)
        for name, branch in branches.items():
            if not branch.synchronous:
                continue
            whose = started.setdefault(branch.synchronous.lower(), name)
            what = taken.get(branch.synchronous.lower()) or (f"a replica of {whose}" if whose != name else "")
            if what:
                right = f'write a replica of {name}, as in "{name}-backup"'
                raise self._wrong(f"branches.{name}.synchronous", f"{branch.synchronous!r} is the name of {what}: {right}")

    def _branch(self, key: str, section: BranchConfig) -> BranchConfig:
        _, addresses = self._addresses(key, section)
        try:
            currency(section.currency)
        except InvalidInput as error:
            raise self._wrong(f"{key}.currency", str(error)) from error
        try:
            zoneinfo.ZoneInfo(section.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            right = 'write an IANA name, as in "Asia/Kolkata" or "UTC"'
            raise self._wrong(f"{key}.time_zone", f"{section.time_zone!r} is no time zone: {right}") from error
        if section.storage != "sqlite":
            known = section.storage.startswith("postgresql://")
            what = "PostgreSQL is not in this build" if known else f"{_shown(section.storage)} is no storage"
            raise self._wrong(f"{key}.storage", f"{what}: leave the key out to use a SQLite file")
        return msgspec.structs.replace(section, **addresses)

    def _addresses(self, key: str, section: CoordinatorConfig | BranchConfig) -> tuple[Endpoint, dict[str, str]]:
        """What the actor listens on, and its checked `endpoint` and `bind`."""
        endpoint = self._endpoint(f"{key}.endpoint", section.endpoint, parse_reachable_endpoint)
        bind = self._endpoint(f"{key}.bind", section.bind) if section.bind else endpoint
        return bind, {"endpoint": str(endpoint), "bind": str(bind)}

    def _endpoint(self, key: str, text: str, parse: Callable[[str], Endpoint] = parse_endpoint) -> Endpoint:
        try:
            return parse(text)
        except InvalidInput as error:
            raise self._wrong(key, str(error)) from error

    def _check_ports(self, config: ClusterConfig) -> None:
        """No two listeners on one port of one machine; the host of an actor's endpoint tells its machine."""
        taken: dict[tuple[str, int], str] = {}
        for key, host, port in listeners(config):
            place = ("127.0.0.1" if host == "localhost" else host.lower(), port)
            if place in taken or port > MAX_PORT:  # the latter of the feed's, after the standby's own
                what = f"is taken by {taken[place]}" if place in taken else f"is above {MAX_PORT}"
                raise self._wrong(key, f"port {port} of {host} {what}: give one of them another")
            taken[place] = key


def listeners(config: ClusterConfig) -> Iterator[tuple[str, str, int]]:
    """(key, host of the machine, port) of everything that listens; `key` is the one to change when the port is busy."""
    actors: list[tuple[str, CoordinatorConfig | BranchConfig]] = [("coordinator", config.coordinator)]
    actors += [(f"branches.{name}", branch) for name, branch in config.branches.items()]
    for key, actor in actors:
        machine = parse_endpoint(actor.endpoint).host
        own = "endpoint" if actor.bind == actor.endpoint else "bind"
        yield f"{key}.{own}", machine, parse_endpoint(actor.bind).port
    machine = parse_endpoint(config.coordinator.endpoint).host
    if config.coordinator.standby:
        host, port = parse_endpoint(config.coordinator.standby)
        for offset in range(3):  # the feed is at the next two, once it leads
            yield "coordinator.standby", host, port + offset
    yield "coordinator.feed_in", machine, parse_endpoint(config.coordinator.feed_in).port
    yield "coordinator.feed_out", machine, parse_endpoint(config.coordinator.feed_out).port
    if config.rest:
        yield "rest.port", config.rest.host, config.rest.port
    if config.dashboard:
        yield "dashboard.port", config.dashboard.host, config.dashboard.port


def _shown(value: object) -> str:
    """A value as TOML writes it, cut to a bearable length."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:60] + "…"
