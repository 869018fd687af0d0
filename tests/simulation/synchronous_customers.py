"""The customers of the bank in `synchronous`: they remember all that they were told, by whichever process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.failover_actor import DELHI, MUMBAI
from tests.simulation.failover_books import Breach, record_of
from tests.simulation.synchronous_process import CUSTOMER, Process
from tests.unit.protocol_support import id_of
from zbank.domain.legs import Leg, branches_of
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    AnyMessage,
    Fault,
    GetAccount,
    GetEntries,
    GetStatus,
    GetTransfer,
    OpenAccount,
    Opened,
    Outcome,
    Transfer,
)
from zbank.protocol.records import AccountOpened, Executed

if TYPE_CHECKING:
    from tests.simulation.synchronous_town import Town

FIRST = 1_000_000  #: of their wishes' ids


class Wish(NamedTuple):
    """What somebody wants done."""

    message: Transfer | OpenAccount
    branch: str  #: whose alone it is; "" = the coordinator's


class Customers:
    """All of them."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._random = town.random
        self.stands: dict[int, int] = {}  #: by envelope: the row that the answer to it stands on, at the branch that was asked
        self.wishes: dict[bytes, Wish] = {}
        self.told: dict[bytes, str] = {}  #: COMMITTED, ABORTED, or the number of the account that was opened
        self.asked: dict[int, AnyMessage] = {}  #: reads that were not answered
        self._numbers = {name: ["1", "2"] for name in (MUMBAI, DELHI)}  #: accounts that they know of
        self._owners: dict[tuple[str, str], bytes] = {}  #: by account: by which wish it was opened
        self._n = 0

    # --- asking --------------------------------------------------------------------------------------------------------

    def wish(self, name: str = "") -> None:
        """Something new; of this branch alone, if one is given."""
        random = self._random
        id = id_of(FIRST + len(self.wishes))
        if random.random() < 0.1:
            branch = random.choice((MUMBAI, DELHI))
            self.wishes[id] = Wish(OpenAccount(id, "", f"owner of {id.hex()[-6:]}", "", 0), branch)
        else:
            pairs = ((MUMBAI, MUMBAI), (DELHI, DELHI), (MUMBAI, DELHI), (DELHI, MUMBAI))
            giver, taker = (name, name) if name else random.choice(pairs)
            given = random.choice(self._numbers[giver])
            taken = random.choice([one for one in self._numbers[taker] if (taker, one) != (giver, given)])
            amount_minor = random.randint(1, 400)
            legs = (Leg(giver, given, -amount_minor), Leg(taker, taken, amount_minor))
            names = branches_of(legs)
            self.wishes[id] = Wish(Transfer(id, legs, "INR"), names[0] if len(names) == 1 else "")
        self.ask(self.wishes[id])

    def ask(self, wish: Wish) -> None:
        """Send it (again) to whom it concerns: of two that say they are its branch, to any; or by way of the coordinator."""
        is_forwarded = isinstance(wish.message, Transfer) and self._random.random() < 0.1
        self._send("" if is_forwarded else wish.branch, wish.message)

    def ask_again(self) -> None:
        """Something that was not told yet; sometimes also what was told."""
        untold = [id for id in self.wishes if id not in self.told]
        if not untold or self._random.random() < 0.2:
            untold = list(self.wishes)
        if untold:
            self.ask(self.wishes[self._random.choice(untold)])

    def ask_all(self) -> None:
        """Whatever is not told; and look at both branches."""
        for id, wish in self.wishes.items():
            if id not in self.told:
                self.ask(wish)
        self.asked.clear()
        for name in (MUMBAI, DELHI):
            self.read(name)

    @property
    def are_content(self) -> bool:
        """All are told."""
        return not self.asked and len(self.told) == len(self.wishes)

    def read(self, name: str = "") -> None:
        """Look at an account, a statement, a transfer, or how a branch does."""
        random = self._random
        name = name or random.choice((MUMBAI, DELHI))
        number = random.choice(self._numbers[name])
        known = random.choice(list(self.wishes)) if self.wishes else id_of(1)
        message = random.choice(
            (GetAccount(number), GetEntries(number, True, "", 10), GetTransfer(known), GetStatus())
        )
        self.asked[self._n + 1] = message
        self._send(name, message)

    def _send(self, branch: str, message: AnyMessage) -> None:
        self._n += 1
        doors = [process for process in self._town.doors(branch) if process.is_up]
        if doors:
            self._town.request(self._random.choice(doors), CUSTOMER, self._n, message)

    # --- being told ----------------------------------------------------------------------------------------------------

    def hear(self, process: Process, n: int, message: AnyMessage) -> None:
        """An answer."""
        if self.asked.pop(n, None) is not None:
            self._town.met["reads answered"] += not isinstance(message, Fault)
        elif isinstance(message, Outcome) and message.status in (COMMITTED, ABORTED):
            self._remember(process, message.id, message.status)
        elif isinstance(message, Opened):
            number = message.account.number
            self._remember(process, message.id, number)
            branch = self.wishes[message.id].branch
            if self._owners.setdefault((branch, number), message.id) != message.id:
                raise Breach(f"{branch}/{number} was given to two")
            if number not in self._numbers[branch]:
                self._numbers[branch].append(number)

    def _remember(self, process: Process, id: bytes, told: str) -> None:
        if self.told.setdefault(id, told) != told:
            raise Breach(f"{process.key} tells {told} of {id.hex()}, which was told {self.told[id]} before")
        self._town.met["told by a branch that is cut off"] += process.key in self._town.cut_off

    # --- in the end ----------------------------------------------------------------------------------------------------

    def judge(self, branches: Iterable[Process], decided: set[bytes]) -> None:
        """All was told, and what was told is true."""
        untold = [id.hex() for id in self.wishes if id not in self.told]
        if untold or self.asked:
            raise Breach(f"not answered in the end: {untold}, {list(self.asked.values())}")
        executed: Counter[bytes] = Counter()
        opened: dict[bytes, str] = {}
        for branch in branches:
            for record in map(record_of, branch.journal()):
                if isinstance(record, Executed):
                    executed[record.id] += 1
                elif isinstance(record, AccountOpened):
                    opened[record.id] = record.number
        for id, told in self.told.items():
            done = executed[id] + (id in decided)
            if isinstance(self.wishes[id].message, OpenAccount):
                if opened.get(id) != told:
                    raise Breach(f"account {told} was told as opened, and {opened.get(id)} is")
            elif done != (told == COMMITTED):
                raise Breach(f"{id.hex()} was told {told}, and is done {done} times")
