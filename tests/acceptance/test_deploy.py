"""The image without an engine to build it: what the Dockerfile does is done in a folder, and compose.yaml's parts run there.

Left out is what only a container has: its user, its file system, its network. The command lines, the keys and who gets which,
the installed package and the health check are those of the containers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import ROOT, free_ports, wait_until
from tests.deploy_files import CONFIG, build_context, dockerfile, final, health_command, services, volumes

ONLY_IN_A_CONTAINER = ("useradd", "apt-get")  #: a RUN with one of these makes the user, or changes the base image
FOLDERS = re.compile(r"(?<![\w./-])/(src|opt|data|keys|parts|etc)(?=[/ :]|$)")  #: of the container, in a command
INSTALL_LIMIT_S = 400
COMMAND_LIMIT_S = 60
STOP_LIMIT_S = 20
WEB_PORTS = {"rest": 5000, "dashboard": 8501}
SERVICES = services()


class Image:
    """The file system of a container, as a folder: what the Dockerfile's instructions leave there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.context = folder / "context"
        self.skipped: list[str] = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("ZBANK_", "PYTHON"))}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        for name in build_context():
            copy(ROOT / name, self.context / name)

    def here(self, text: str) -> str:
        """A text with the container's folders in it, for this machine."""
        return FOLDERS.sub(lambda match: f"{self.root}/{match[1]}", text)

    def build(self) -> None:
        """Do all instructions. Both stages have one root: what is copied from one to the other is there already."""
        folder = self.root
        for word, text in dockerfile():
            if word == "WORKDIR":
                folder = Path(self.here(text))
                folder.mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(text.split(), folder)
            elif word == "RUN":
                self._run(text, folder)
            elif word == "ENV":
                self._set(text)
            else:
                assert word in ("ARG", "FROM", "VOLUME", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"), word

    def _copy(self, words: list[str], folder: Path) -> None:
        if words[0].startswith("--from="):
            assert words[1] == words[2]
            assert Path(self.here(words[1])).is_dir()
            return
        *sources, target = words
        place = folder / self.here(target)
        for source in sources:
            copy(self.context / source, place / Path(source).name if target.endswith("/") else place)

    def _run(self, command: str, folder: Path) -> None:
        if any(word in command for word in ONLY_IN_A_CONTAINER):
            self.skipped.append(command)
            return
        done = subprocess.run(
            ["sh", "-euc", self.here(command)],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
        if done.returncode and not self._has_index():
            pytest.skip("NOT TESTED: the image was not built, no package index can be reached from here")
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def _has_index(self) -> bool:
        """Can a small package be had?"""
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "click"]
        return subprocess.run(command, cwd=self.root, env=self.environment, timeout=60, check=False).returncode == 0

    def _set(self, text: str) -> None:
        """ENV. Folders and PATH count, HOME is the tester's own, where pip keeps what it fetched."""
        for name, value in (pair.split("=", 1) for pair in text.split()):
            if name != "HOME":
                self.environment[name] = self.here(value).replace("$PATH", self.environment["PATH"])


def copy(source: Path, target: Path) -> None:
    """A file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


class Containers:
    """The services of compose.yaml as processes of this machine, at ports of its loopback."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write_config()
        self.handed_out = {volume: where for where, volume in volumes(SERVICES["keys"]).items()}
        for where in self.handed_out.values():
            Path(image.here(where)).mkdir(parents=True, exist_ok=True)

    def _write_config(self) -> None:
        """deploy/cluster.toml, with addresses of this machine in the place of the services' names."""
        text = (ROOT / "deploy" / "cluster.toml").read_text("utf-8")
        first = free_ports(8)
        ports = iter(range(first + 3, first + 8))  # the coordinator's feed takes the two after its own
        for host in ("coordinator", "mumbai", "delhi", "pune"):
            port = first if host == "coordinator" else next(ports)
            text = re.sub(rf"tcp://{host}:\d+(.*\n.*)0\.0\.0\.0:\d+", rf"tcp://127.0.0.1:{port}\g<1>127.0.0.1:{port}", text)
        for name in ("rest", "dashboard"):
            port = next(ports)
            text, old = re.sub(rf'(\[{name}\]\nhost = )"0\.0\.0\.0"', r'\1"127.0.0.1"', text), WEB_PORTS[name]
            text = text.replace(f"port = {old}", f"port = {port}").replace(f"http://rest:{old}", f"http://127.0.0.1:{port}")
        assert "0.0.0.0" not in text
        self.endpoint = f"tcp://127.0.0.1:{first}"
        place = Path(self.image.here(CONFIG))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace('"/data"', f'"{self.image.root}/data"'), encoding="utf-8")

    def environment(self, name: str) -> dict[str, str]:
        """Of a service: the image's, its own, and the folder that is mounted as its keys."""
        told: dict[str, str] = self.image.environment | SERVICES[name].get("environment", {})
        told |= {"ZBANK_PARTS": f"{self.image.root}/parts"}
        if "ZBANK_ENDPOINT" in told:
            told["ZBANK_ENDPOINT"] = self.endpoint
        if name not in ("keys", "dashboard"):
            volume = volumes(SERVICES[name])["/keys"].removesuffix(":ro")
            told["ZBANK_KEYS"] = self.image.here(self.handed_out[volume])
        return told

    def command(self, name: str, *arguments: str) -> list[str]:
        """The entry point and the command of a service, or other arguments."""
        entry = SERVICES[name].get("entrypoint") or [final("ENTRYPOINT").strip('[]"')]
        return [self.image.here(word) for word in (*entry, *(arguments or SERVICES[name]["command"]))]

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm NAME …`."""
        return self._done(self.command(name, *arguments), name)

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        """What the engine runs now and then in a container."""
        return self._done([self.image.here(word) for word in health_command()], name)

    def _done(self, command: list[str], name: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(name)
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.image.root / "data",
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    def start(self, name: str) -> None:
        """`docker compose up -d NAME`, and wait until it is healthy."""
        environment = self.environment(name)
        program, *arguments = self.command(name)
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [shutil.which(program, path=environment["PATH"]) or program, *arguments],
                cwd=self.image.root / "data",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: self.health(name).returncode == 0, COMMAND_LIMIT_S, f"the health of {name}")

    def log(self, name: str) -> Path:
        """All that it said."""
        return self.image.root / f"{name}.log"

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(STOP_LIMIT_S)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    image = Image(folder)
    image.root.mkdir()
    try:
        image.build()
        yield image
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it is half a gigabyte


@pytest.fixture
def bank(image: Image) -> Iterator[Containers]:
    containers = Containers(image)
    yield containers
    containers.close()


@pytest.mark.timeout(600)
def test_the_image_has_the_package_and_no_tools(image: Image) -> None:
    assert len(image.skipped) == 1, "the rest was done"
    python = image.here("/opt/zbank/bin/python")
    code = "import zbank, importlib.util as u; print(zbank.__file__, *map(u.find_spec, ('pip', 'setuptools', 'pytest')))"
    found = subprocess.run([python, "-Ic", code], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert found[0].startswith(str(image.root))
    assert found[1:] == ["None"] * 3


@pytest.mark.timeout(600)
def test_the_services_work_together_and_tell_of_their_health(bank: Containers) -> None:
    made = bank.run("keys")
    assert made.returncode == 0, made.stderr
    check_what_was_handed_out(bank)
    assert bank.health("coordinator").returncode == 1, "nobody is there yet"
    for name in ("coordinator", "mumbai", "rest", "dashboard"):
        bank.start(name)
    wait_until(lambda: '"Mumbai"' in bank.run("operator", "branches", "list", "--json").stdout, COMMAND_LIMIT_S, "a branch")
    paid = bank.run("operator", "deposit", "Mumbai/1001", "5")
    assert paid.returncode == 0, paid.stderr
    token = bank.run("operator", "tokens", "make", "--holder", "ops", "--role", "operator")
    assert token.returncode == 0, token.stderr
    wait_until(lambda: bank.run("operator").returncode == 0, COMMAND_LIMIT_S, "status")
    check_that_a_hung_one_is_found(bank)
    check_that_a_rotated_key_is_taken_up(bank)
    for name, process in bank.processes.items():
        process.terminate()
        assert process.wait(STOP_LIMIT_S) in (0, -signal.SIGTERM), bank.log(name).read_text("utf-8")


def check_what_was_handed_out(bank: Containers) -> None:
    """Each part has the list and its own secret, which others cannot read."""
    folders = {path.name: path for path in Path(bank.image.here("/parts")).iterdir()}
    assert set(folders) == {"coordinator", "Mumbai", "Delhi", "Pune", "Mumbai-replica-1", "rest", "operator"}
    for name, folder in folders.items():
        assert {path.name for path in folder.iterdir()} == {"keys.toml", f"{name}.secret"}
        assert (folder / f"{name}.secret").stat().st_mode & 0o777 == 0o600
    before = folders["rest"].joinpath("rest.secret").read_bytes()
    assert bank.run("keys").returncode == 0, "again: it makes no others"
    assert folders["rest"].joinpath("rest.secret").read_bytes() == before


def check_that_a_hung_one_is_found(bank: Containers) -> None:
    """A process that is there and does nothing is not healthy; the others are, since each is asked for itself."""
    process = bank.processes["mumbai"]
    process.send_signal(signal.SIGSTOP)
    try:
        told = bank.health("mumbai")
        assert (told.returncode, told.stdout) == (1, "Mumbai: nobody takes a connection\n")
        for name in ("coordinator", "rest"):
            told = bank.health(name)
            assert told.returncode == 0, told.stdout
    finally:
        process.send_signal(signal.SIGCONT)
    wait_until(lambda: bank.health("mumbai").returncode == 0, COMMAND_LIMIT_S, "the health of mumbai")


def check_that_a_rotated_key_is_taken_up(bank: Containers) -> None:
    """A new secret is handed out, and the branch works by it: with the old one it would be turned away."""
    rotated = bank.run("keys", "rotate", "Mumbai", "--days", "0")
    assert rotated.returncode == 0, rotated.stderr
    wait_until(lambda: bank.health("mumbai").returncode == 0, COMMAND_LIMIT_S, "the branch at its new key")
    wait_until(lambda: bank.run("operator").returncode == 0, COMMAND_LIMIT_S, "the bank with the new key")
