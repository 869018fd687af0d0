"""What a run of the chaos has shown: as JSON, as text, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from zbank.apps.cli.bench_load import percentile

MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class Latency:
    """How long requests took that were answered by an outcome."""

    count: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Report:
    """One run."""

    version: str
    seed: int
    minutes: float
    branches: int
    faults: dict[str, int]  #: how often each kind was made
    connections_broken: int  #: in the middle of a message
    transfers: dict[str, int]  #: asked, committed, aborted, unknown
    not_outcomes: dict[str, int]  #: answers that were none, by code
    latency_undisturbed: Latency
    latency_all: Latency
    longest_settle_s: float  #: from first asking for a transfer until its outcome was told
    findings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  #: kinds of faults that were not possible here, and why
    directory: str | None = None  #: where data, logs and configs are, when they were kept

    def to_json(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return asdict(self)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Names and values for a person."""
        yield "run", self._run
        yield "faults", _counts(self.faults)
        yield from self._facts_after_faults()

    @property
    def _run(self) -> str:
        return f"zbank {self.version}, seed {self.seed}, {self.minutes:g} min, {self.branches} branches"

    def _facts_after_faults(self) -> Iterator[tuple[str, str]]:
        yield "connections broken", f"{self.connections_broken:,} in mid-message"
        yield from (("skipped", reason) for reason in self.skipped)
        yield "transfers", _counts(self.transfers)
        yield "other answers", _counts(self.not_outcomes) or "none"
        for name, latency in (("undisturbed", self.latency_undisturbed), ("all", self.latency_all)):
            figures = f"p50 {latency.p50_ms:.1f} ms  p99 {latency.p99_ms:.1f} ms  ({latency.count:,} requests)"
            yield f"latency, {name}", figures
        yield "longest settling", f"{self.longest_settle_s:.1f} s until the outcome of a transfer was told"
        if self.directory:
            yield "kept", self.directory
        if not self.findings:
            yield "findings", "none: the bank kept its word"
        yield from (("FINDING", finding) for finding in self.findings)

    def to_markdown(self) -> str:
        """A page for people."""
        facts = [("run", self._run), *self._facts_after_faults()]  # the faults have a table of their own
        lines = [
            "# Chaos",
            "",
            f"`zbank chaos --seed {self.seed} --minutes {self.minutes:g} --branches {self.branches}`",
            "",
        ]
        lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts)]
        lines += [
            "",
            "| fault | times |",
            "|---|---|",
            *(f"| {kind} | {count} |" for kind, count in self.faults.items()),
        ]
        return "\n".join(lines) + "\n"


def latency_of(values_s: Sequence[float]) -> Latency:
    """The figures of these times in seconds."""
    ordered = sorted(values_s)
    p50_s, p99_s = percentile(ordered, 0.5), percentile(ordered, 0.99)
    return Latency(len(ordered), round(p50_s * MILLISECONDS, 3), round(p99_s * MILLISECONDS, 3))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
