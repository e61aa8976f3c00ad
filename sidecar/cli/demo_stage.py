"""The demo's stage: a trust domain, the example service, a sidecar in front, and the ways to reach them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from sidecar.cli.demo_world import (
    DemoError,
    Ran,
    World,
    accepts,
    answers,
    find_example,
    free_ports,
    shell_line,
    sidecar_command,
)

TRUST_DOMAIN = "demo.test"
ORDERS = f"spiffe://{TRUST_DOMAIN}/orders"
WEB = f"spiffe://{TRUST_DOMAIN}/web"
# Linux takes 107 bytes as path of a Unix socket. In a deeper directory the service gets a port instead.
MAX_SOCKET_PATH_BYTES = 107


class Stage:
    """What the scenes play on. ``tell`` hears of every command that has ended, ``say`` of everything else."""

    def __init__(self, world: World, tell: Callable[[Ran], None], say: Callable[[str], None]) -> None:
        self._world = world
        self._tell = tell
        self._say = say
        self._example = find_example()
        self._port, self._status_port, self._service_port = free_ports(3)
        self.state = world.directory / "state"
        self.policy = world.directory / "policy.yaml"
        self.key = world.directory / "oncall"
        self.svid = Path()

    @property
    def audit(self) -> Path:
        """The directory of the log."""
        return self.state / "audit"

    @property
    def audit_key(self) -> Path:
        """The public half of the key that signs the log's checkpoints."""
        return self.state / "audit.pub"

    def curl_line(self) -> str:
        """An allowed call by curl, for an order that the story leaves alone: every check on, no ``-k``."""
        names = {"--cert": "svid.pem", "--key": "svid_key.pem", "--cacert": "bundle.pem"}
        files: list[str | Path] = [
            word for option, name in names.items() for word in (option, str(self.svid / name))
        ]
        return shell_line(["curl", *files, f"https://localhost:{self._port}/orders/41"])

    def status_line(self) -> str:
        """How an operator asks the running sidecar how it is."""
        return shell_line(sidecar_command("status"), self._operator)

    def set_up(self) -> None:
        """Make the trust domain and start both processes. Raises DemoError if one does not come up."""
        shutil.copyfile(self._example / "policy.yaml", self.policy)
        self.state.mkdir(mode=0o700)
        issuer = self.state / "issuer"
        expect(0, self.sidecar("issuer", "init", "--trust-domain", TRUST_DOMAIN, "--dir", issuer))
        expect(0, self.sidecar("issuer", "entry", "add", WEB, "--dir", issuer))
        expect(0, self.sidecar("break-glass", "keygen", self.key))
        upstream = self._start_service()
        self._start_sidecar(upstream)
        self.svid = self._find_svid(issuer)

    def call(self, method: str, path: str, *flags: str) -> Ran:
        """Make a call as web, or as nobody with ``--no-certificate``."""
        url = f"https://127.0.0.1:{self._port}{path}"
        proof: list[str | Path] = ["--svid", self.svid, "--expect", ORDERS]
        return self.run([sys.executable, self._example / "call.py", *proof, *flags, method, url])

    def sidecar(self, *words: str | Path, operator: bool = False) -> Ran:
        """Run a command of the sidecar; ``operator`` for those that look for the running one."""
        return self.run(sidecar_command(*words), variables=self._operator if operator else None)

    def run(
        self,
        argv: list[str | Path],
        *,
        variables: dict[str, str] | None = None,
        shown: str | None = None,
    ) -> Ran:
        """Run any command, and tell of it."""
        ran = self._world.run(argv, variables, shown=shown)
        self._tell(ran)
        return ran

    @property
    def _operator(self) -> dict[str, str]:
        return {"SIDECAR_STATE_DIR": str(self.state)}

    def _start_service(self) -> str:
        """Start the orders service; gives what ``SIDECAR_UPSTREAM`` has to be."""
        path = self._world.directory / "orders.sock"
        by_socket = len(str(path).encode()) <= MAX_SOCKET_PATH_BYTES
        listen = f"unix:{path}" if by_socket else f"127.0.0.1:{self._service_port}"
        service = self._world.start(
            "orders", [sys.executable, self._example / "service.py", "--listen", listen]
        )
        self._say(f"$ {service.command} &")
        self._world.wait_for(
            "the orders service answers",
            lambda: accepts(path) if by_socket else answers(self._service_port, "/healthz"),
            service,
        )
        return listen if by_socket else f"http://{listen}"

    def _start_sidecar(self, upstream: str) -> None:
        signers = self._world.directory / "signers"
        shutil.copyfile(self.key.with_name("oncall.pub"), signers)
        variables = {
            "SIDECAR_LISTEN": f"127.0.0.1:{self._port}",
            "SIDECAR_UPSTREAM": upstream,
            "SIDECAR_IDENTITY": "embedded",
            "SIDECAR_SPIFFE_ID": ORDERS,
            "SIDECAR_POLICY": str(self.policy),
            "SIDECAR_STATE_DIR": str(self.state),
            "SIDECAR_STATUS": f"127.0.0.1:{self._status_port}",
            "SIDECAR_BREAK_GLASS_SIGNERS": str(signers),
            "SIDECAR_DRAIN_DELAY": "100ms",
        }
        started = self._world.start("sidecar", sidecar_command("run"), variables)
        self._say(f"$ {started.command} &")
        self._world.wait_for("the sidecar is ready", lambda: answers(self._status_port, "/readyz"), started)

    def _find_svid(self, issuer: Path) -> Path:
        """The directory in which the issuer keeps the SVID of web, once all three files are there."""
        found: list[Path] = []

        def written() -> bool:
            found[:] = [path.parent for path in issuer.glob("svids/*web*/svid.pem")]
            return bool(found)

        self._world.wait_for("the issuer has written the SVID of web", written)
        return found[0]


def expect(exit_code: int, ran: Ran) -> None:
    """Raise DemoError unless the command ended with ``exit_code``."""
    if ran.exit_code != exit_code:
        said = " ".join((ran.stderr or ran.stdout).split())
        raise DemoError(f"expected exit code {exit_code}, got {ran.exit_code} from {_one_line(ran)}: {said}")


def expect_answer(ran: Ran, first_line: str) -> None:
    """Raise DemoError unless the call was answered with this status, and reason if there is one."""
    expect(0, ran)
    if ran.stdout.splitlines()[:1] != [first_line]:
        raise DemoError(f"expected the answer {first_line!r}, got {ran.stdout!r} from {_one_line(ran)}")


def _one_line(ran: Ran) -> str:
    return ran.command.replace(" \\\n    ", " ")
