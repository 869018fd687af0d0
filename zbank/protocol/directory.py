"""The directory of branches, and whether this coordinator may serve at all (PROTOCOL P11)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from zbank.clock import Now, format_time
from zbank.protocol import messages
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import BUSY_RETRY_MS, EPOCH_LEAP, Effect, Sender, Step
from zbank.protocol.messages import (
    OUT_OF_OFFICE,
    AckedBy,
    AnyMessage,
    BranchInfo,
    Fault,
    Feed,
    Lead,
    NameAcks,
    Promote,
    Promoting,
    Register,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Retire,
    RetiredInfo,
)
from zbank.protocol.records import AcksNamed, BranchJoined, BranchPromoted, Fork

MAX_BRANCHES = 1_000
NO_WORDS: Mapping[str, AckedBy | None] = {}
MAX_NAMES_TOLD = 10
MAX_REPLICAS = 1_000
REPLICA_SILENT_US = 5_000_000  #: who was silent for so long is not promoted
MAX_RETIRED_TOLD = 1_000
#: A connection that was lost, or a coordinator that was restarted, has branches call again: one that is well needs less than
#: this. Who wants a transfer with it meanwhile is asked for a moment's patience.
MOMENT_US = 2_000_000
BACK_US = 5_000_000  #: after so long a branch that is well has registered with a coordinator that was restarted
FORGOTTEN_AFTER_US = 3_600_000_000  #: a replica that was silent for so long


def enumerated(names: Sequence[str]) -> str:
    """Names for a sentence, so few of them that it stays within MAX_DETAIL_CHARS."""
    listed = ", ".join(names[:MAX_NAMES_TOLD]) or "none"
    return listed if len(names) <= MAX_NAMES_TOLD else f"{listed} and {len(names) - MAX_NAMES_TOLD} more"


class Directory:
    """Which branches there are, where, and which of them were heard of lately."""

    def __init__(self, state: CoordinatorState, configured: Collection[str], feed: Feed) -> None:
        """`configured` are the names of the config file: known, if not here yet. `feed` is told to who registers."""
        self._state = state
        self._configured = frozenset(configured)
        self._feed = feed
        self._replicas: dict[str, tuple[ReplicaInfo, int]] = {}  #: by name, and when it said so; none of it is durable
        self._furthest: dict[str, tuple[bytes, int]] = {}  #: replicas, by name: data, and the last row that it ever had
        self._promoted: dict[str, ReplicaInfo] = {}  #: by branch: what its last promoted one said of itself before
        self._epochs: dict[str, int] = {}
        self._wanted_acks: dict[str, str] = {}  #: by branch: the synchronous replica that its config wants
        self._words: dict[str, int] = {}  #: by branch: the last word on this coordinator's own replica that its journal has
        self.begun_us = -1  #: this term of office, by the monotonic clock
        self.up: set[str] = set()
        self._gone_us: dict[str, int] = {}  #: by branch: when it was lost
        self._turned_away: set[str] = set()  #: they are here, and look for another coordinator
        self.behind = ""  #: why this coordinator must not serve; "" = it may

    def carry_on(self, before: Directory) -> None:
        """Know who was there before the state was rebuilt: nobody registers again for that."""
        self._epochs = before._epochs
        self._replicas = before._replicas
        self._furthest = before._furthest
        self.begun_us = before.begun_us
        self._promoted = before._promoted
        self._wanted_acks = before._wanted_acks
        self._words = before._words
        self.up = before.up
        self._gone_us = before._gone_us
        self._turned_away = before._turned_away
        self.behind = before.behind

    def unavailable(self, names: Iterable[str], now: Now) -> Fault | None:
        """Why a transfer between these branches cannot begin now; None when it can."""
        for name in names:
            retired = self._state.retired.get(name)
            if retired is not None:
                return Fault(code="branch_retired", detail=_was_retired(retired))
            if name in self.up:
                continue
            if name in self._state.branches or name in self._configured:
                if now.mono_us - self._gone_us.get(name, self.begun_us) < MOMENT_US:
                    detail = f"branch {name} is not connected in this moment: nothing was done; send the same id again soon"
                    return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)
                return Fault(
                    code="branch_unavailable",
                    detail=f"branch {name} is not connected: nothing was done; send the same id again when it is back",
                )
            return Fault(code="branch_not_found", detail=f"there is no branch {name}; known are {self._known()}")
        return None

    def _known(self) -> str:
        return enumerated(sorted({*self._state.branches, *self._configured} - self._state.retired.keys()))

    def refuse(self, message: Register) -> Fault | None:
        """Why this branch cannot join; None when it can."""
        info = message.info
        if info.instance in self._state.former:
            detail = f"a replica was promoted to be branch {info.name}: this process serves it no more"
            return Fault(code="superseded", detail=detail)
        retired = self._state.retired.get(info.name)
        if retired is not None and retired.instance != info.instance:
            detail = f"{_was_retired(retired)}. Its name stands in old transfers: give this branch another one"
            return Fault(code="branch_retired", detail=detail)
        joined = self._state.branches.get(info.name)
        if joined is not None and joined.instance != info.instance:
            detail = (
                f"branch {info.name} was here with other data (instance {joined.instance.hex()[-8:]}, "
                f"now {info.instance.hex()[-8:]}): start it with the data directory it had"
            )
            return Fault(code="foreign_store", detail=detail)
        if joined is None and retired is None and len(self._state.branches) >= MAX_BRANCHES:
            return Fault(code="busy", detail=f"a cluster has at most {MAX_BRANCHES} branches")
        if info.epoch < self._epochs.get(info.name, 0):
            return Fault(code="fence_lost", detail=f"a newer process serves branch {info.name} already")
        return None

    def register(self, sender: Sender, n: int, message: Register) -> Step:
        """Take a branch into the directory; all branches hear of a change."""
        refusal = self.refuse(message)
        if refusal is not None:  # two of one name, in one batch
            return Step(None, (Effect(sender.address, n, refusal),))
        self.heed(message)
        state = self._state
        info = message.info
        if self.behind:
            return Step(None, (Effect(sender.address, n, Fault(code=OUT_OF_OFFICE, detail=self.behind)),))
        retired = state.retired.get(info.name)
        if retired is not None:  # it answers questions; if it is an old copy that knows nothing of its end, it hears of it
            registered = self._registered(state.branches)
            again = Retire(retired.by, state.epoch)
            return Step(None, (Effect(sender.address, n, registered), Effect(sender.address, 0, again)))
        self.up.add(info.name)
        self._turned_away.discard(info.name)
        joined = BranchJoined(info.name, info.endpoint, info.currency, info.instance)
        if state.branches.get(info.name) == joined:
            return Step(None, (Effect(sender.address, n, self._registered(self._state.branches)),))
        listed = {**self._state.branches, info.name: joined}
        registered = self._registered(listed)
        effects = [Effect(name, 0, registered) for name in sorted(self.up) if name != sender.address]
        return Step(joined, [Effect(sender.address, n, registered), *effects])

    def heed(self, message: Register) -> None:
        """A branch is here. It may know more of this coordinator than that itself (P11)."""
        info = message.info
        self.behind = self._why_behind(message) or self.behind
        self._epochs[info.name] = info.epoch
        self._wanted_acks[info.name] = message.acks
        self._words[info.name] = message.coordinator_word

    def unaware(self, names: Collection[str]) -> list[str]:
        """Those of these branches that may not have heard that this coordinator's replica was replaced. A commit is told when
        all have: that replica may lead by now, and abort; but it serves nobody once a branch has come that has heard of it."""
        since = self._state.replaced_seq
        return [name for name in names if self._words.get(name, 0) < since] if since else []

    def gone(self, name: str, now: Now) -> None:
        """A branch has left, or is silent."""
        self.up.discard(name)
        self._gone_us[name] = now.mono_us
        self._turned_away.discard(name)

    def turns_away(self, message: AnyMessage) -> bool:
        """While the synchronous replica is away: actors that come are to look for another coordinator. What a branch tells
        counts, and replicas of this coordinator are heard of: one may be named."""
        if isinstance(message, Register):
            self.heed(message)
            self._turned_away.add(message.info.name)
            return True
        return isinstance(message, RegisterReplica) and message.info.of != self._state.name

    def call_back(self) -> list[Effect]:
        """Whom it has turned away is to register now. It may believe that it has: an answer from before, which has waited for
        the replica, comes to whatever connection it has by then."""
        names, self._turned_away = self._turned_away, set()
        again = Fault(code="hello_first", detail="register again: this coordinator is back")
        return [] if self.behind else [Effect(name, 0, again) for name in sorted(names)]

    def _why_behind(self, message: Register) -> str:
        """What this branch knows that was forgotten here; "" = nothing."""
        state = self._state
        info, word = message.info, state.acks.get(message.info.name)
        epoch, number, former = message.coordinator_epoch, message.coordinator_number, state.took_over
        # Whose place it took has gone on without it: in a later office, by another word on its replica, or by further commits.
        # Or one that was replaced before has led by mistake: what it decided nobody knows here.
        went_on = former is not None and (
            former.epoch < epoch < former.own_epoch
            or (epoch <= former.epoch and message.coordinator_word > former.seq)
            or (epoch == former.epoch and number > former.number)
        )
        generation = 0 if info.acks is None or info.name in state.retired else info.acks.generation
        if epoch > state.epoch or number > state.number or went_on:
            knows = f"epoch {epoch} and commit {number} of coordinator {state.name}"
            ends = f"epoch {state.epoch} and commit {state.number}"
        elif generation > (0 if word is None else word.generation):
            knows = f"of a word on its synchronous replica, row {generation} of coordinator {state.name}"
            ends = f"row {state.seq}, without that word"
        else:
            return ""
        return (
            f"branch {info.name} knows {knows}, its own data ends at {ends}: it was restored from an old copy, or another one "
            "took its place; or it was promoted though another replica was named. Bring the newest data back"
        )

    def without(self, name: str) -> list[Effect]:
        """A branch is about to be out of the directory: all hear of it, and it itself, too."""
        listed = {other: joined for other, joined in self._state.branches.items() if other != name}
        registered = self._registered(listed)
        return [Effect(other, 0, registered) for other in sorted(self.up)]

    def replica(self, message: RegisterReplica, now: Now) -> Registered | Lead:
        """A replica says where it stands."""
        info = message.info
        joined = self._state.branches.get(info.of)
        promotion = self._state.promotions.get(info.of)
        # Not a replica of another name: that began with a copy of the promoted one's file.
        if promotion and joined and (info.name, info.instance) == (promotion.replica, joined.instance):
            self._promoted[info.of], _ = self._replicas.pop(info.name, (info, 0))
            return Lead(promotion.epoch, promotion.caller)
        if info.name in self._replicas or len(self._replicas) < MAX_REPLICAS:
            self._replicas[info.name] = (self._less_what_it_lost(info), now.mono_us)
        return self._registered(self._state.branches)

    def _less_what_it_lost(self, info: ReplicaInfo) -> ReplicaInfo:
        """Who had more rows before had its file put back from a copy: it lacks what it has acknowledged, whatever it says."""
        instance, furthest = self._furthest.get(info.name, (b"", 0))
        if instance == info.instance and info.seq < furthest:
            return replace(info, acks=0)
        if info.name in self._furthest or len(self._furthest) < MAX_REPLICAS:
            self._furthest[info.name] = (info.instance, info.seq)
        return info

    def wanted(self, info: ReplicaInfo, wanted_here: str) -> AcksNamed | None:
        """What to record when a replica has come that a config wants as the synchronous one, and there was no word on it yet.
        `wanted_here` is the one of this coordinator itself."""
        wanted = wanted_here if info.of == self._state.name else self._wanted_acks.get(info.of)
        if wanted != info.name or info.of in self._state.acks or self.behind:
            return None
        if info.of != self._state.name and (info.of not in self._state.branches or self._unfit(info) is not None):
            return None
        return AcksNamed(info.of, info.name, info.instance, "")

    def name(self, message: NameAcks, caller: str, now: Now) -> AcksNamed | Fault:
        """What to record when an operator names a synchronous replica, or none any more."""
        if message.of != self._state.name and message.of not in self._state.branches:
            return Fault(code="branch_not_found", detail=f"there is no branch {message.of}; known are {self._known()}")
        if message.of == self._state.name and self._may_be_replaced():
            detail = f"no branch is connected to {message.of}: a replica may have taken its place. If not, start a branch first"
            return Fault(code="branches_away", detail=detail)
        if message.of != self._state.name and message.of not in self.up:  # by a word that it never followed nobody has all
            detail = f"branch {message.of} is not connected, and has to follow: start it, or, if it is lost, promote a replica"
            return Fault(code="branch_unavailable", detail=detail)
        if message.replica:
            info, told_us = self._replicas.get(message.replica, (None, 0))
            if info is None or info.of != message.of or info.instance != message.instance:
                detail = f"no replica {message.replica} of {message.of} with that data has been heard of"
                return Fault(code="replica_not_found", detail=detail)
            if now.mono_us - told_us > REPLICA_SILENT_US:
                return Fault(code="replica_not_found", detail=f"replica {info.name} is silent: start it again first")
            unfit = self._unfit(info)
            if unfit is not None:
                return unfit
        return AcksNamed(message.of, message.replica, message.instance if message.replica else b"", caller)

    def _may_be_replaced(self) -> bool:
        """By its synchronous replica, for all that is known here: no branch that would know is there."""
        word = self._state.acks.get(self._state.name)
        is_alone = not self.up and not self._turned_away and bool(self._state.branches)
        return is_alone and word is not None and word.replica != ""

    def _unfit(self, info: ReplicaInfo) -> Fault | None:
        """Why this replica could never take its branch's place; None when it might."""
        joined = self._state.branches.get(info.of)
        if joined is not None and joined.instance == info.instance:
            detail = f"replica {info.name} has a copy of the data of branch {info.of}: remove it, and let it fetch its own"
            return Fault(code="foreign_store", detail=detail)
        promotion = self._state.promotions.get(info.of)
        forks = () if promotion is None else promotion.forks
        if any(info.epoch < fork.epoch and info.seq > fork.seq for fork in forks):
            detail = f"replica {info.name} may have rows that became void when another replica was promoted: it cannot lead"
            return Fault(code="diverged", detail=detail)
        return None

    def reminder(self, info: ReplicaInfo) -> list[Effect]:
        """A branch is told again of the last word, while the rows of a replica that it concerns do not have it: it was lost."""
        word = self._state.acks.get(info.of)
        if word is None or info.acks == word.generation or not (info.acks or word.instance == info.instance):
            return []
        return self.told(info.of, word)

    def told(self, name: str, word: AckedBy | None) -> list[Effect]:
        """A branch hears of the word on its synchronous replica, if it is there, else when it comes; all of that on ours."""
        to = sorted(self.up) if name == self._state.name else [name] if name in self.up else []
        return [Effect(other, 0, self._registered(self._state.branches, {name: word})) for other in to]

    def info_of(self, replica: str) -> ReplicaInfo:
        """What a replica that is known said of itself last."""
        return self._replicas[replica][0]

    def promote(self, message: Promote, caller: str, now: Now) -> BranchPromoted | Promoting | Fault:
        """What to record so that a replica becomes its branch; Promoting when that was recorded before (R2, R3)."""
        info, told_us = self._replicas.get(message.replica, (None, 0))
        retired = self._state.retired.get(message.branch)
        if retired is not None:
            return Fault(code="branch_retired", detail=f"{_was_retired(retired)}: no replica can take its place")
        joined = self._state.branches.get(message.branch)
        if joined is None:
            return Fault(code="branch_not_found", detail=f"there is no branch {message.branch}; known are {self._known()}")
        if joined.instance == message.instance:
            done = self._already(message)
            if done is not None:
                return Promoting(done)
        if info is None or info.of != message.branch or info.instance != message.instance:
            detail = f"no replica {message.replica} of {message.branch} with that data has been heard of"
            return Fault(code="replica_not_found", detail=detail)
        before = self._state.promotions.get(message.branch)
        unfit = self._unfit(info)
        if unfit is not None:
            return unfit
        if now.mono_us - told_us > REPLICA_SILENT_US:
            return Fault(code="replica_not_found", detail=f"replica {info.name} is silent: start it again first")
        if not info.can_lead:
            secret = f"copy {info.of}.secret (and keys.toml) into its keys folder, and start it again"
            detail = f"replica {info.name} has no good key of branch {info.of}: {secret}"
            return Fault(code="cannot_lead", detail=detail)
        if message.branch in self.up:
            detail = f"branch {message.branch} is up: stop it first, so that it cannot go on beside its successor"
            return Fault(code="branch_up", detail=detail)
        others = [one.epoch for one, _ in self._replicas.values() if one.of == message.branch]
        if now.mono_us - self.begun_us < BACK_US:
            detail = f"the coordinator has just been started: branch {message.branch} may be up and not have come back yet"
            return Fault(code="busy", detail=f"not done: {detail}; ask again in a moment", retry_after_ms=1000)
        epoch = max(self._epochs.get(message.branch, 0), *others) + EPOCH_LEAP
        forks = (*(() if before is None else before.forks), Fork(epoch, info.seq))
        return BranchPromoted(caller, info.of, info.name, info.endpoint, info.instance, joined.instance, epoch, forks)

    def _already(self, message: Promote) -> ReplicaInfo | None:
        """The replica that this very promotion has made the branch: it is no replica any more once it was told so."""
        done = self._state.promotions.get(message.branch)
        if done is None or done.replica != message.replica or done.instance != message.instance:
            return None
        info = self._promoted.get(message.branch)
        if info is None and message.replica in self._replicas:
            info = self.info_of(message.replica)
        if info is not None and info.instance == message.instance:
            return info
        return ReplicaInfo(done.replica, done.name, done.endpoint, done.instance, done.epoch, 0, 0, messages.NEVER_US)

    def answer(self, now: Now) -> messages.Directory:
        """The directory as clients get it."""
        silent_us = {name: now.mono_us - told_us for name, (_, told_us) in self._replicas.items()}
        for name in [name for name, one_us in silent_us.items() if one_us > FORGOTTEN_AFTER_US]:
            del self._replicas[name]
        replicas = tuple(
            replace(info, lag_us=info.lag_us + silent_us[name]) for name, (info, _) in sorted(self._replicas.items())
        )
        retired = tuple(self._state.retired.values())[-MAX_RETIRED_TOLD:]
        state = self._state
        return messages.Directory(state.name, self._infos(state.branches), replicas, retired, state.acks.get(state.name))

    def _registered(self, listed: dict[str, BranchJoined], words: Mapping[str, AckedBy | None] = NO_WORDS) -> Registered:
        state = self._state
        own = words.get(state.name) or state.acks.get(state.name)
        infos = self._infos(listed, words)
        return Registered(state.name, state.epoch, infos, self._feed, 0 if own is None else own.generation)

    def _infos(self, listed: dict[str, BranchJoined], words: Mapping[str, AckedBy | None] = NO_WORDS) -> tuple[BranchInfo, ...]:
        """`words`: what is about to be recorded."""
        acks = {**self._state.acks, **words}
        return tuple(
            BranchInfo(
                name=name,
                endpoint=joined.endpoint,
                currency=joined.currency,
                instance=joined.instance,
                epoch=self._epochs.get(name, 0),
                up=name in self.up,
                acks=acks.get(name),
            )
            for name, joined in sorted(listed.items())
        )


def _was_retired(info: RetiredInfo) -> str:
    return f"branch {info.name} was retired on {format_time(info.at_us)[:10]} and is closed for good"
