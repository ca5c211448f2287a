"""No module imports what the walls of the architecture keep from it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from loragate import AsyncAuditClient, AuditClient
from tests.walls import HEAVY, LIGHT, MAY_IMPORT, NOT_FOR, PUBLIC_ONLY

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "loragate": ROOT / "client" / "loragate",
    "loragate_kernels": ROOT / "kernels" / "loragate_kernels",
    "loragate_server": ROOT / "server" / "loragate_server",
}


ORDER = tuple(MAY_IMPORT)
"""The rooms of the server; what comes first knows nothing of what comes later."""

BESIDE = ("benchmarks", "emoji_tiny", "scripts", "testkit", "tests")
"""Code that is in no distribution."""


@dataclass(frozen=True)
class Import:
    """One import: by whom, of what, where, and whether it happens when the module is loaded."""

    by: str
    of: str
    line: int
    when_loaded: bool


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


class Finder(ast.NodeVisitor):
    """Collects the imports of one module."""

    def __init__(self, module: str, is_package: bool, known: Mapping[str, str]) -> None:
        self.module, self.known = module, known
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: list[Import] = []
        self.deferred = 0

    def add(self, name: str, line: int) -> None:
        self.found.append(Import(self.module, name, line, when_loaded=not self.deferred))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            parts = self.package.split(".")
            parts = parts[: len(parts) - node.level + 1]
            source = ".".join([*parts, *filter(None, [source])])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            # Of what begins with a line it matters that it is private, module or not.
            private = alias.name.startswith("_") and not alias.name.endswith("__")
            named = inner in self.known or private
            self.add(inner if named else source, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in ("import_module", "__import__") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                self.add(argument.value, node.lineno)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.later(node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            self.later(node.body)
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def later(self, body: list[ast.stmt]) -> None:
        self.deferred += 1
        for child in body:
            self.visit(child)
        self.deferred -= 1


def imports(sources: Mapping[str, str]) -> Iterator[Import]:
    """Every import of modules given as dotted name to source; packages end in `.__init__`."""
    known = {name.removesuffix(".__init__"): text for name, text in sources.items()}
    for name, text in sources.items():
        finder = Finder(name.removesuffix(".__init__"), name.endswith(".__init__"), known)
        finder.visit(ast.parse(text))
        yield from finder.found


def breaches(sources: Mapping[str, str]) -> list[str]:
    """One line for each import that goes through a wall."""
    every = list(imports(sources))
    lines = [f"{one.by}:{one.line} imports {one.of}" for one in every if forbidden(one)]
    return sorted(lines + heavy_chains(sources, every))


def forbidden(one: Import) -> bool:
    """Whether the direction of this import is wrong."""
    package = one.by.partition(".")[0]
    if any(within(one.of, other) for other in NOT_FOR[package]):
        return True
    if within(one.by, PUBLIC_ONLY) and is_private(one.of):
        return True
    if package != "loragate_server":
        return False
    if within(one.of, "loragate"):
        return not within(one.of, "loragate.v1")  # generated from the API, so everybody's
    if one.of == "loragate_server" or not within(one.of, "loragate_server"):
        return False
    return not allowed_inside(one.by.partition(".")[2], one.of.partition(".")[2])


def is_private(name: str) -> bool:
    """Whether a module of the SDK, or what is taken from one, is the SDK's own affair."""
    if not within(name, "loragate") or within(name, PUBLIC_ONLY):
        return False
    return any(part.startswith("_") for part in name.split("."))


def allowed_inside(by: str, of: str) -> bool:
    """Whether module `by` of the server may import `of`, both without the package's name."""
    if not by:
        return False
    room = by.partition(".")[0]
    if within(of, room):
        return True
    if room not in MAY_IMPORT:
        return False
    allowed = MAY_IMPORT[room]
    if allowed is None:
        allowed = ORDER[: ORDER.index(room)]
    return any(within(of, prefix) for prefix in allowed)


def heavy_chains(sources: Mapping[str, str], every: list[Import]) -> list[str]:
    """How modules that have to be light come to load something heavy."""
    loads: dict[str, set[str]] = {}
    for one in every:
        if one.when_loaded:
            loads.setdefault(one.by, set()).add(one.of)
    modules = [name.removesuffix(".__init__") for name in sources]
    light = [name for name in modules if any(within(name, prefix) for prefix in LIGHT)]
    return [" loads ".join(chain) for name in light if (chain := heavy_chain(name, loads))]


def heavy_chain(start: str, loads: Mapping[str, set[str]]) -> list[str]:
    """The shortest chain of imports from `start` to something heavy; empty when there is none."""
    chains, seen = [[start]], {start}
    for chain in chains:
        if any(within(chain[-1], heavy) for heavy in HEAVY):
            return chain
        # Loading a.b.c loads a and a.b before.
        parents = [chain[-1].rsplit(".", n)[0] for n in range(1, chain[-1].count(".") + 1)]
        for name in sorted({*loads.get(chain[-1], ()), *parents} - seen):
            seen.add(name)
            chains.append([*chain, name])
    return []


def sources(packages: Mapping[str, Path] = PACKAGES) -> dict[str, str]:
    """The modules of the three packages, or of others; generated stubs left out."""
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]): path.read_text()
        for package, folder in packages.items()
        for path in folder.rglob("*.py")
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
    }


def private_uses(source: str) -> set[str]:
    """The private attributes of the SDK's clients that a module uses."""
    own = {name for kind in (AuditClient, AsyncAuditClient) for name in vars(kind)}
    own |= set(vars(AuditClient()))
    private = {name for name in own if name.startswith("_") and not name.endswith("__")}
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr in private
    }


def circles(sources: Mapping[str, str]) -> list[str]:
    """One line for each circle of modules that import each other, for types alone or late too."""
    graph: dict[str, set[str]] = {}
    for one in imports(sources):
        graph.setdefault(one.by, set()).add(one.of)
    known = {name.removesuffix(".__init__") for name in sources}
    free = TopologicalSorter(
        {by: {of for of in graph.get(by, ()) if of in known and of != by} for by in known}
    )
    try:
        free.prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def test_no_import_goes_through_a_wall() -> None:
    found = sources()
    assert len(found) > 40, "the modules are not where this test looks for them"
    assert breaches(found) == []


def test_integrations_use_nothing_of_the_clients_that_is_private() -> None:
    found = {name: text for name, text in sources().items() if within(name, PUBLIC_ONLY)}
    assert len(found) > 20, "the integrations are not where this test looks for them"
    assert {name: used for name, text in found.items() if (used := private_uses(text))} == {}
    assert private_uses("client._core.audit_stored(x)\nclient._send(y)") == {"_core", "_send"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(sources()) == []
    assert circles(sources({name: ROOT / name for name in BESIDE})) == []


def test_a_circle_is_found_even_where_it_is_for_types_alone() -> None:
    found = {
        "one.first": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one.second",
        "one.second": "def f():\n    from one import third",
        "one.third": "from one.first import f",
    }
    [line] = circles(found)
    assert line.count(" imports ") == 3


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_room_knows_of_one_that_comes_later(room: str) -> None:
    before = ORDER[: ORDER.index(room)]
    assert {name.partition(".")[0] for name in MAY_IMPORT[room] or ()} <= set(before)


def test_every_module_of_the_server_has_its_rule() -> None:
    rooms = {name.split(".")[1] for name in sources() if name.startswith("loragate_server.")}
    assert rooms - {"__init__"} <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("loragate_kernels.ops", "import loragate_server"),
        ("loragate_kernels.ops", "from loragate.v1 import audit_pb2"),
        ("loragate.client", "def f():\n    import loragate_server.config.schema"),
        ("loragate.client", "import loragate_kernels.pair_stats"),
        ("loragate.client", "import torch"),
        ("loragate.integrations.asgi", "from loragate._question import checked_digest"),
        ("loragate.integrations._bytes", "def f():\n    import loragate._reading"),
        ("loragate.integrations.comfyui.gate", "from loragate import _reading"),
        ("loragate.integrations.comfyui.gate", "from ..._core import Core"),
        ("loragate.integrations.ray_serve", "from loragate.client import _Secret"),
        ("loragate.client", "try:\n    import numpy as np\nexcept ImportError:\n    pass"),
        ("loragate_server.app.running", "from loragate import AuditClient"),
        ("loragate_server.intake.reader", "from loragate_server.audit import engine"),
        ("loragate_server.intake.reader", "from ..policy.decide import decide"),
        ("loragate_server.models.base", "from loragate_server.intake.reader import read_adapter"),
        ("loragate_server.audit.engine", "import loragate_server.policy.decision"),
        ("loragate_server.policy.decide", "from loragate_server.record.verdict import Verdict"),
        ("loragate_server.policy.decide", "import torch"),
        ("loragate_server.policy.decide", "from torch.nn import Module"),
        ("loragate_server.record.log", "from importlib import import_module\nimport torch"),
        ("loragate_server.gate.gate", "from loragate_server.rpc import server"),
        ("loragate_server.gate.gate", "import_module('loragate_server.metrics.metrics')"),
        ("loragate_server.record.recorder", "from loragate_server.report.render import render"),
        ("loragate_server.gate.gate", "from loragate_server.report.render import render"),
        ("loragate_server.report.view", "from loragate_server.gate.gate import Gate"),
        ("loragate_server.report.numbers", "import numpy"),
        ("loragate_server.replay", "from loragate_server.report.wording import REPORT"),
        ("loragate_server.rpc.server", "from loragate_server.audit.engine import AuditEngine"),
        ("loragate_server.web.server", "from loragate_server.rpc import server"),
        ("loragate_server.web.server", "from loragate_server.config.schema import Config"),
        ("loragate_server.intake.fetch", "from loragate_server.config.schema import Config"),
        ("loragate_server.rpc.access", "from loragate_server.config.intake import IntakeSection"),
        ("loragate_server.config.listen", "from loragate_server.errors import ErrorReason"),
        ("loragate_server.web.check", "from loragate_server.gate.gate import Gate"),
        ("loragate_server.access.forms", "from loragate_server.gate.gate import Gate"),
        ("loragate_server.console.pages.audit", "from loragate_server.gate.gate import Gate"),
        ("loragate_server.console.frame", "from loragate_server.metrics.metrics import Metrics"),
        ("loragate_server.console.pages.concepts", "import numpy"),
        ("loragate_server.report.view", "from loragate_server.console.wording import CONSOLE"),
        ("loragate_server.access.pages", "from loragate_server.report.wording import REPORT"),
        ("loragate_server.wording.wording", "from loragate_server.report.wording import REPORT"),
        ("loragate_server.checkpoint.checkpoint", "from loragate_server.rpc import server"),
        ("loragate_server.intercept.servers.sglang", "from loragate_server.gate.gate import Gate"),
        ("loragate_server.new_room.module", "import loragate_server.gate.gate"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert breaches({module: source}) != []


def test_something_heavy_is_found_behind_other_modules() -> None:
    chain = {
        "loragate_server.policy.decide": "from loragate_server.audit.evidence import Evidence",
        "loragate_server.audit.evidence": "",
        "loragate_server.audit.__init__": "from .engine import AuditEngine",
        "loragate_server.audit.engine": "import torch",
    }
    assert any(line.startswith("loragate_server.policy.decide loads ") for line in breaches(chain))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("loragate.integrations.diffusers", "def guard():\n    import torch"),
        ("loragate.integrations.comfyui.gate", "from loragate.integrations._bytes import parse"),
        ("loragate.integrations.comfyui.gate", "from .._bytes import parse"),
        ("loragate.integrations.asgi", "from loragate.files import read_once"),
        (
            "loragate.integrations.diffusers",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        ),
        ("loragate_server.audit.engine", "import torch\nfrom loragate_kernels import pair_stats"),
        ("loragate_server.rpc.server", "from loragate.v1 import audit_pb2_grpc"),
        ("loragate_server.models.apply", "from loragate_server.adapter.delta import WeightDelta"),
        ("loragate_server.app.running", "from loragate_server.audit.engine import AuditEngine"),
    ],
)
def test_what_is_allowed_is_let_through(module: str, source: str) -> None:
    assert breaches({module: source}) == []
